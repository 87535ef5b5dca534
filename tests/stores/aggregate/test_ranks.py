"""Aggregates over a whole range, of readings that come in parts."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from stores.aggregate import functions
from stores.aggregate.functions import RunningQuantiles


@pytest.mark.parametrize("aggregate", ["p50", "p95", "p99", "last"])
def test_parts_make_the_same_as_all_at_once(aggregate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "_VALUES_HELD", 50)
    chance = random.Random(4)
    rows = [(chance.randrange(3), chance.randrange(100), float(chance.randrange(30))) for _ in range(700)]
    found = RunningQuantiles(aggregate)
    for start in range(0, len(rows), 40):
        groups, times, values = zip(*rows[start : start + 40], strict=True)
        found.add(np.array(groups), np.array(times), np.array(values), 4)
    told = found.values().tolist()
    for group in range(3):
        mine = [(time, value) for other, time, value in rows if other == group]
        values_of = sorted(value for _, value in mine)
        expected = (
            max(mine)[1]
            if aggregate == "last"
            else values_of[math.floor(len(values_of) * int(aggregate[1:]) / 100 + 0.5) - 1]
        )
        assert told[group] == expected
    assert math.isnan(told[3])


def test_what_is_held_does_not_grow_with_the_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "_VALUES_HELD", 50)
    found = RunningQuantiles("p95")
    for _ in range(100):
        found.add(np.zeros(30, dtype=np.int64), np.arange(30), (np.arange(30) % 7).astype(np.float64), 1)
    assert len(found._values) == 7
    assert sum(len(values) for _, values in found._held) <= 60


def test_nothing_is_nothing() -> None:
    assert RunningQuantiles("p95").values().tolist() == []
    assert RunningQuantiles("last").values().tolist() == []
