"""So many samples to open, hysteresis to close, and what is unknown changes nothing."""

from __future__ import annotations

import pytest

from readings.model import Point, PointBlock
from readings.times import SECOND
from tests.health.engine.building import (
    ENERGY,
    MINUTE,
    REPLAYS,
    START,
    TEMP,
    UTIL,
    FleetFeed,
    gpu,
    level,
    rule,
    start,
)

HOT = rule(
    "temp_high",
    "condition",
    level("warning", "GPU_TEMP > 85", "GPU_TEMP <= 83", for_ns=5 * MINUTE, clear_samples=3),
    level("critical", "GPU_TEMP > 95", "GPU_TEMP <= 83", for_ns=2 * MINUTE, clear_samples=3),
)
THREE = rule("three", "condition", level("warning", "GPU_UTIL > 50", samples=3, clear_samples=2))


def temps(feed: FleetFeed, *values: float | None) -> None:
    for value in values:
        feed.run(feed.step, [(gpu(0), {TEMP: value, UTIL: 0.0})])


def utils(feed: FleetFeed, *values: float | None) -> None:
    for value in values:
        feed.run(feed.step, [(gpu(0), {UTIL: value, TEMP: 40.0})])


def test_it_opens_after_its_samples_and_closes_after_as_many_as_it_says() -> None:
    feed = start(THREE)
    utils(feed, 60, 60, 0, 60, 60)
    assert feed.said() == []
    utils(feed, 60)
    assert feed.said() == [("opened", "three", "GPU-node-1-0")]
    utils(feed, 0, 60, 0)
    assert len(feed.said()) == 1
    utils(feed, 0)
    assert feed.said()[1:] == [("closed", "three", "GPU-node-1-0")]
    assert feed.seen[0].values["value"] == 60.0
    assert feed.seen[0].at_ns == START + 50_000_000_000


def test_what_is_unknown_neither_opens_nor_closes() -> None:
    feed = start(THREE)
    utils(feed, 60, 60, None, 60)
    assert feed.said() == [("opened", "three", "GPU-node-1-0")]
    utils(feed, 0, None, None, None)
    assert len(feed.said()) == 1
    feed.silence(60)
    utils(feed, 0)
    assert len(feed.said()) == 2


def test_a_level_needs_its_time_without_gaps_and_a_worse_one_raises() -> None:
    feed = start(HOT)
    temps(feed, *[90.0] * 25)
    feed.silence(200)  # a gap is no time above the limit
    temps(feed, *[90.0] * 5)
    assert feed.said() == []
    temps(feed, 90.0, 90.0)
    assert feed.said() == [("opened", "temp_high", "GPU-node-1-0")]
    assert feed.seen[0].severity == "warning"
    temps(feed, *[96.0] * 13)
    assert feed.said()[1:] == [("raised", "temp_high", "GPU-node-1-0")]
    temps(feed, 84.0, 84.0, 84.0, 84.0)  # between the two limits nothing changes
    assert len(feed.said()) == 2
    temps(feed, 83.0, 83.0, 83.0)
    assert feed.said()[2:] == [("closed", "temp_high", "GPU-node-1-0")]


def test_parts_of_one_point_count_once_and_the_whole_of_it_decides() -> None:
    feed = start(rule("pair", "condition", level("warning", "GPU_UTIL > 50 and GPU_TEMP < 50", samples=3)))
    for _ in range(2):
        feed.send([(gpu(0), {UTIL: 60.0})])
        feed.send([(gpu(0), {TEMP: 40.0})])
        feed.at += feed.step
    assert feed.said() == []
    feed.send([(gpu(0), {UTIL: 60.0})])
    assert feed.said() == [("opened", "pair", "GPU-node-1-0")]


def test_counters_count_from_the_value_before_and_begin_anew_after_a_reset() -> None:
    replays = rule("replay", "condition", level("warning", "increase(PCIE_REPLAY_COUNTER) > 0", clear_samples=2))
    feed = start(replays)
    for count in (100, 100, 3, 3, 3, 4):
        feed.run(feed.step, [(gpu(0), {REPLAYS: float(count)})])
    assert feed.said() == [
        ("opened", "replay", "GPU-node-1-0"),
        ("closed", "replay", "GPU-node-1-0"),
        ("opened", "replay", "GPU-node-1-0"),
    ]


def test_growth_within_a_window() -> None:
    errors = rule("errors", "condition", level("warning", "growth(PCIE_REPLAY_COUNTER, 600) >= 2", clear_samples=1))
    feed = start(errors, step=60)
    for count in (0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2):  # the first is out of the window by the time of the second
        feed.run(feed.step, [(gpu(0), {REPLAYS: float(count)})])
    assert feed.said() == []
    feed.run(feed.step, [(gpu(0), {REPLAYS: 3.0})])
    assert feed.said() == [("opened", "errors", "GPU-node-1-0")]


def test_what_a_person_closed_opens_again_only_after_it_was_over() -> None:
    feed = start(THREE)
    utils(feed, 60, 60, 60)
    feed.engine.resolve(feed.seen[0].key)
    utils(feed, 60, 60, 60, 60)
    assert feed.said("opened", "closed") == [("opened", "three", "GPU-node-1-0")]
    utils(feed, 0, 0, 60, 60, 60)
    assert feed.said("opened", "closed") == [("opened", "three", "GPU-node-1-0")] * 2


def test_what_is_usual_after_a_reset_waits() -> None:
    settling = rule(
        "links", "condition", level("warning", "GPU_UTIL > 50", samples=3, clear_samples=2), after_reset_s=60
    )
    feed = start(settling)
    for number in range(8):  # the reset is seen in the second sample
        assert ("opened", "links", gpu(0).id) not in feed.said()
        feed.run(feed.step, [(gpu(0), {UTIL: 60.0 if number else 0.0, ENERGY: 100.0 * number or 500.0})])
    assert ("opened", "links", gpu(0).id) in feed.said()


def test_a_level_with_a_window_needs_its_time_within_it_not_on_end() -> None:
    flapping = rule(
        "slowdown",
        "condition",
        level("warning", "GPU_UTIL > 50", samples=6, for_ns=6 * MINUTE, within_ns=10 * MINUTE, clear_ns=10 * MINUTE),
    )
    feed = start(flapping, step=60)
    utils(feed, *[60, 0] * 20)  # five of ten minutes
    assert feed.said() == []
    utils(feed, *[60, 60, 0] * 4)
    assert feed.said() == [("opened", "slowdown", "GPU-node-1-0")]
    utils(feed, *[0] * 9)
    assert len(feed.said()) == 1
    utils(feed, 0)
    assert feed.said()[1:] == [("closed", "slowdown", "GPU-node-1-0")]


def test_what_comes_and_goes_is_soon_one_event_that_stays_until_it_is_quiet() -> None:
    feed = start(rule("flip", "condition", level("warning", "GPU_UTIL > 50")))

    def changes() -> list[str]:
        return [str(each.change) for each in feed.seen if each.key.rule == "flip"]

    utils(feed, *[60, 0] * 200)  # more than an hour
    assert changes() == ["opened", "closed"] * 4 + ["opened"]
    utils(feed, *[0] * 355)
    assert len(changes()) == 9
    utils(feed, *[0] * 10)
    assert changes()[9:] == ["closed"]
    utils(feed, 60, 0)
    assert changes()[10:] == ["opened", "closed"]


def test_a_block_has_only_so_many_steps_for_all_rules_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.engine.engine.MOST_STEPS", 5)
    feed = start(rule("busy", "condition", level("warning", "GPU_UTIL > 50")), THREE)
    feed.send([(gpu(number), {UTIL: 90.0}) for number in range(4)])
    feed.send([(gpu(number), {UTIL: 90.0}) for number in range(4)], at=10)
    assert [entity for _, rule_name, entity in feed.said() if rule_name == "busy"] == [
        f"GPU-node-1-{number}" for number in range(4)
    ]
    assert feed.engine.left_out["too_many_steps"] == 6


def test_a_window_counts_the_same_however_many_samples_come_at_once() -> None:
    flapping = rule(
        "flapping",
        "condition",
        level("warning", "GPU_UTIL > 50", samples=6, within_ns=10 * MINUTE, clear_ns=10 * MINUTE),
    )
    values = [90.0 if number % 3 else 10.0 for number in range(40)] + [10.0] * 90
    one_by_one, at_once = start(flapping), start(flapping)
    for feed in (one_by_one, at_once):
        feed.send([(gpu(0), {UTIL: 10.0})], at=-20)
        feed.send([(gpu(0), {UTIL: 10.0})], at=-10)
    utils(one_by_one, *values)
    points: list[Point] = [(0, START + number * 10 * SECOND, [value]) for number, value in enumerate(values)]
    at_once.engine.take(PointBlock([gpu(0)], [UTIL], points), source="s", live=True, received_ns=START + 1300 * SECOND)
    said = [each for each in one_by_one.seen if each.key.rule == "flapping"]
    assert [each.change for each in said] == ["opened", "closed"]
    assert [each for each in at_once.engine.drain() if each.key.rule == "flapping"] == said


def test_a_sample_that_is_well_ends_what_began_in_the_same_block() -> None:
    values = [60.0, 60.0, 0.0, 60.0, 60.0, 0.0]
    feed = start(THREE)
    points: list[Point] = [(0, START + number * 10 * SECOND, [value]) for number, value in enumerate(values)]
    feed.engine.take(PointBlock([gpu(0)], [UTIL], points), source="s", live=True, received_ns=START + MINUTE)
    assert feed.engine.drain() == []
