"""Samples of GPUs one by one and many at once, hosts that GPUs come to and leave, and pods that share a GPU."""

from __future__ import annotations

import random

import numpy as np

from health.engine.registry import MOST_SHARES, Registry
from readings.times import SECOND
from tests.health.engine.building import START, gpu


def registry_of(gpus: int) -> Registry:
    registry = Registry(1000)
    for number in range(gpus):
        registry.row(gpu(number), "s", live=True)
    return registry


def test_many_samples_at_once_are_the_same_as_one_by_one() -> None:
    chance = random.Random(7)
    for heard_ns in (None, START + 5 * SECOND):
        for gpus in (1, 3, 40):
            at_once, one_by_one = registry_of(gpus), registry_of(gpus)
            last = [START] * gpus
            for _ in range(6):
                points = []
                for row in range(gpus):
                    for _ in range(chance.choice((0, 1, 2, 30))):
                        last[row] += chance.choice((1, 10, 11, 40, 5000)) * SECOND
                        points.append((row, last[row]))
                    if points and chance.random() < 0.3:
                        for each in (at_once, one_by_one):
                            each.share(row, gpu(row, pod=f"p{len(points)}"), last[row])
                rows = np.array([row for row, _ in points], np.int32)
                at_once.sample_all(rows, np.array([time for _, time in points], np.int64), heard_ns)
                for row, time_ns in points:
                    place = np.array([row], np.int32)
                    one_by_one.sample(place, np.array([time_ns], np.int64))
                    one_by_one.hear(place, np.array([time_ns], np.int64) if heard_ns is None else heard_ns)
                assert at_once.state() == one_by_one.state()


def test_a_host_that_its_last_gpu_has_left_is_forgotten() -> None:
    registry = registry_of(2)
    for number in range(50):
        registry.row(gpu(0, f"name-{number}", uuid="GPU-node-1-0"), "s", live=True)
    assert {host: list(rows) for host, rows in registry.by_host.items()} == {"node-1": [1], "name-49": [0]}


def test_only_so_many_pods_share_a_gpu_and_those_that_are_gone_make_room() -> None:
    registry = registry_of(1)
    registry.sample(np.array([0], np.int32), np.array([START], np.int64))
    registry.sample(np.array([0], np.int32), np.array([START + 10 * SECOND], np.int64))
    taken = [registry.share(0, gpu(0, pod=f"p{number}"), START) for number in range(MOST_SHARES + 5)]
    assert taken == [True] * MOST_SHARES + [False] * 5
    assert registry.share(0, gpu(0, pod="p0"), START + 40 * SECOND)
    assert registry.share(0, gpu(0, pod="new"), START + 40 * SECOND)
    assert [share.pod for share in registry.state().shares[0][-2:]] == ["p0", "new"]
    assert "p1" not in [share.pod for share in registry.state().shares[0]]
