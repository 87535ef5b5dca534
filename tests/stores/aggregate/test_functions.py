"""Aggregates by key, beside the plainest way to work them out."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.aggregate.functions import in_order, increases, newest, percentile, rounded

ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.floats(-1e9, 1e9).map(lambda value: round(value, 3))),
    max_size=60,
)


def arrays(rows: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    keys, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(keys, dtype=np.int64), np.array(times, dtype=np.int64), np.array(values, dtype=np.float64)


def told(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


@given(ROWS, st.sampled_from([50, 95, 99]))
def test_a_percentile_is_the_value_of_its_rank(rows: list[tuple[int, int, float]], percent: int) -> None:
    keys, _, values = arrays(rows)
    expected: list[float | None] = []
    for key in range(6):
        mine = sorted(value for other, _, value in rows if other == key)
        expected.append(mine[math.floor(len(mine) * percent / 100 + 0.5) - 1] if mine else None)
    assert told(percentile(keys, values, 6, percent)) == expected


@given(ROWS)
def test_the_newest_is_of_equally_new_ones_the_largest(rows: list[tuple[int, int, float]]) -> None:
    expected: list[float | None] = []
    for key in range(6):
        mine = [(time, value) for other, time, value in rows if other == key]
        expected.append(max(mine)[1] if mine else None)
    assert told(newest(*arrays(rows), 6)) == expected


def test_increases_go_on_where_the_last_call_ended() -> None:
    before: dict[int, float] = {}
    series, times, values = arrays([(0, 2, 15.0), (1, 1, 7.0), (0, 1, 10.0), (0, 3, 4.0)])
    places, grown = increases(series, times, values, before)
    assert sorted(zip(places.tolist(), grown.tolist(), strict=True)) == [(0, 5.0), (3, 4.0)]
    assert before == {0: 4.0, 1: 7.0}
    places, grown = increases(*arrays([(1, 5, 7.5), (2, 5, 1.0)]), before)
    assert (places.tolist(), grown.tolist()) == ([0], [0.5])
    places, _ = increases(*arrays([]), before)
    assert places.tolist() == []


@given(ROWS)
def test_a_counter_never_grows_by_less_than_nothing(rows: list[tuple[int, int, float]]) -> None:
    rows = [(key, time, abs(value)) for key, time, value in rows]
    places, grown = increases(*arrays(rows), {})
    assert (grown >= 0).all()
    of: dict[int, int] = defaultdict(int)
    for key, _, _ in rows:
        of[key] += 1
    assert len(places) == sum(number - 1 for number in of.values())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (43.78099999999999, 43.781),
        (0.1 + 0.2, 0.3),
        (1 / 3, 0.333333333333),
        (2e17 / 3, 66666666666700000.0),
        (-2 / 3, -0.666666666667),
        (0.0, 0.0),
        (1e-310, 1e-310),
        (1.7976931348623157e308, 1.7976931348623157e308),
        (1e300, 1e300),
    ],
)
def test_digits_that_depend_on_the_order_of_adding_are_not_told(value: float, expected: float) -> None:
    assert rounded(np.array([value])).tolist() == [pytest.approx(expected, rel=1e-11)]
    if 1e-9 < abs(value) < 1e20:
        assert rounded(np.array([value])).tolist() == [expected]


def test_what_is_not_there_stays_so() -> None:
    assert math.isnan(rounded(np.array([math.nan]))[0])


@pytest.mark.parametrize(
    ("series", "times"), [([0, 0, 2, 2], [1, 1, 0, 5]), ([0, 0, 2, 2], [1, 0, 0, 5]), ([1, 0, 1], [1, 5, 0]), ([], [])]
)
def test_readings_are_put_in_order_by_series_and_time(series: list[int], times: list[int]) -> None:
    order = in_order(np.array(series, dtype=np.int64), np.array(times, dtype=np.int64)).tolist()
    assert order == sorted(range(len(series)), key=lambda place: (series[place], times[place]))
