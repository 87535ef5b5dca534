"""Samples and metrics that do not come any more, while others do."""

from __future__ import annotations

import random

from readings.model import Gpu
from readings.times import SECOND
from tests.health.engine.building import START, TEMP, UTIL, FleetFeed, gpu, level, rule, start

WARM = rule("warm", "condition", level("warning", "GPU_TEMP > 200"))


def everyone() -> list[Gpu]:
    return [gpu(number, f"node-{host}") for host in range(3) for number in range(4)]


def hours(feed: FleetFeed, count: float, *, lossy: str = "", share: float = 0.0, without: tuple[str, ...] = ()) -> None:
    chance = random.Random(7)
    until = feed.at + count * 3600
    while feed.at < until:
        points = []
        for each in everyone():
            if each.id == lossy and chance.random() < share:
                continue
            points.append(
                (each, {UTIL: 50.0} | ({} if each.hostname in without or each.id in without else {TEMP: 40.0}))
            )
        feed.send(points)
        feed.at += feed.step


def test_a_gpu_that_loses_samples_is_said_and_one_that_loses_few_is_not() -> None:
    for share, expected in ((0.1, []), (0.4, [("opened", "sample_loss", "GPU-node-1-2")])):
        feed = start(step=20)
        hours(feed, 1)
        hours(feed, 1.2, lossy="GPU-node-1-2", share=share)
        assert [each for each in feed.said("opened", "closed") if each[1] == "sample_loss"] == expected
        hours(feed, 1.2)
        if expected:
            assert feed.said()[-1] == ("closed", "sample_loss", "GPU-node-1-2")


def test_an_outage_is_no_loss() -> None:
    feed = start(step=20)
    hours(feed, 1)
    feed.silence(1200)
    hours(feed, 1)
    assert [each for each in feed.said() if each[1] == "sample_loss"] == []


def test_a_metric_that_vanishes_is_one_event_of_the_widest_thing_that_lost_it() -> None:
    for without, entity in (
        (("GPU-node-1-2",), ("gpu", "GPU-node-1-2")),
        (("node-1",), ("host", "node-1")),
        (("node-0", "node-1", "node-2"), ("source", "s")),
    ):
        feed = start(WARM, step=30)
        hours(feed, 1.1)
        hours(feed, 0.2, without=without)
        assert [each for each in feed.said() if each[1] == "metric_vanished"] == []
        hours(feed, 0.3, without=without)
        found = [each for each in feed.seen if each.key.rule == "metric_vanished"]
        assert [(each.key.entity, each.key.subject) for each in found] == [(entity, TEMP)]
        back = feed.at
        hours(feed, 0.1)
        assert feed.said()[-1] == ("closed", "metric_vanished", entity[1])
        assert feed.seen[-1].at_ns == START + round(back + 60) * SECOND  # its third sample


def test_a_metric_that_was_never_there_for_long_does_not_vanish() -> None:
    feed = start(WARM, step=30)
    hours(feed, 0.5)
    hours(feed, 1, without=("node-1",))
    assert [each for each in feed.said() if each[1] == "metric_vanished"] == []
