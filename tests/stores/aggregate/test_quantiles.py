"""Ranks in bounded memory, by passes over the readings."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.aggregate.quantiles import GroupNewest, GroupQuantiles
from stores.base import TooMuch

Rows = list[tuple[int, int, float]]  # group, time, value


def feed(found: GroupNewest | GroupQuantiles, rows: Rows, count: int, at_once: int = 40) -> None:
    for start in range(0, len(rows), at_once):
        groups, times, values = zip(*rows[start : start + at_once], strict=True)
        found.add(np.array(groups), np.array(times), np.array(values), count)


def ranked(rows: Rows, count: int, most: int, aggregate: str) -> tuple[list[float], int]:
    """The answer, and after how many passes it was known."""
    found, passes = GroupQuantiles(aggregate, most), 1
    feed(found, rows, count)
    while not found.end_pass():
        assert len(found._groups) <= most
        feed(found, rows, count)
        passes += 1
    return found.values().tolist(), passes


def expected(rows: Rows, group: int, aggregate: str) -> float:
    values = sorted(value for other, _, value in rows if other == group)
    return values[max(1, math.floor(len(values) * int(aggregate[1:]) / 100 + 0.5)) - 1]


def draw(seed: int, value: Callable[[random.Random], float], count: int = 700) -> Rows:
    chance = random.Random(seed)
    return [(chance.randrange(3), chance.randrange(100), value(chance)) for _ in range(count)]


@pytest.mark.parametrize("aggregate", ["p50", "p95", "p99"])
def test_few_values_need_one_pass_and_many_need_more(aggregate: str) -> None:
    few, many = draw(4, lambda chance: float(chance.randrange(30))), draw(5, lambda chance: chance.gauss(0, 1e3))
    for rows, most, more in ((few, 90, False), (many, 700, False), (many, 60, True), (many, 6, True)):
        told, passes = ranked(rows, 4, most, aggregate)
        assert told[:3] == [expected(rows, group, aggregate) for group in range(3)]
        assert math.isnan(told[3])
        assert (passes > 1) == more
        assert passes <= 63


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.just(0), st.floats(allow_nan=False, allow_infinity=False)),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from(["p50", "p95", "p99"]),
)
def test_any_numbers(rows: Rows, aggregate: str) -> None:
    told, _ = ranked(rows, 4, 9, aggregate)
    for group in {group for group, _, _ in rows}:
        assert told[group] == expected(rows, group, aggregate)


def test_the_newest_of_parts_is_the_newest_of_all() -> None:
    rows = draw(6, lambda chance: float(chance.randrange(30)))
    found = GroupNewest()
    feed(found, rows, 4)
    assert found.end_pass()
    assert found.values().tolist()[:3] == [
        max((time, value) for other, time, value in rows if other == group)[1] for group in range(3)
    ]


def test_what_is_held_does_not_grow_with_the_readings() -> None:
    found = GroupQuantiles("p95", 50)
    for start in range(100):
        found.add(np.zeros(30, dtype=np.int64), np.arange(30), np.arange(30, dtype=np.float64) + start * 30, 1)
        assert len(found._groups) + found._waiting <= 50 + 30 + 30


def test_readings_that_come_and_go_between_passes_do_no_harm() -> None:
    rows = draw(7, lambda chance: chance.random())
    found = GroupQuantiles("p99", 20)
    feed(found, rows, 3)
    assert not found.end_pass()
    feed(found, [*rows[:100], (5, 0, 0.5)], 6)
    while not found.end_pass():
        feed(found, rows[:100], 6)
    assert all(0 <= value <= 1 for value in found.values())


def test_more_groups_than_can_be_counted_are_refused() -> None:
    with pytest.raises(TooMuch, match=r"more than 2 groups.*QUERY_MEMORY"):
        ranked([(group, 0, float(group)) for group in range(50)], 50, 5, "p50")


def test_nothing_is_nothing() -> None:
    for found in (GroupQuantiles("p95", 10), GroupNewest()):
        assert found.end_pass()
        assert found.values().tolist() == []
