from __future__ import annotations

import math

import numpy as np
import pytest

from stores.sqlite.points import (
    Points,
    merge,
    pack_points,
    pack_values,
    recent_points,
    rows_of,
    stored_points,
    unpack_values,
)

NAN = math.nan


def points(rows: list[tuple[int, int, int]], metrics: list[int], values: list[list[float]]) -> Points:
    """Points from (source, time, identity) each; ``values`` by metric."""
    sources, times, identities = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Points(sources, times, identities, np.array(metrics, dtype=np.int64), np.array(values, dtype=np.float64))


def test_of_a_reading_the_last_stays_and_a_null_erases_nothing() -> None:
    first = points([(1, 10, 5), (2, 10, 6)], [7, 3], [[1.0, 2.0], [3.0, NAN]])
    second = points([(2, 10, 8), (1, 9, 5)], [3, 9], [[4.0, 5.0], [NAN, 6.0]])
    found = merge([first, second])
    assert list(zip(found.sources, found.times, found.identities, strict=True)) == [(1, 9, 5), (1, 10, 5), (2, 10, 8)]
    assert found.metrics.tolist() == [3, 7, 9]
    np.testing.assert_array_equal(found.values, [[5.0, 3.0, 4.0], [NAN, 1.0, 2.0], [6.0, NAN, NAN]])
    assert found.readings() == 6


@pytest.mark.parametrize("values", [[1.0, -0.0, 5e-324], [NAN, 2.0, NAN], [NAN] * 9 + [1.7976931348623157e308]])
def test_values_come_back_as_they_were_packed(values: list[float]) -> None:
    count, data = pack_values(np.array(values))
    assert count == sum(not math.isnan(value) for value in values)
    assert unpack_values(len(values), count, data).tobytes() == np.array(values).tobytes()


@pytest.mark.parametrize("stripe", [0, 5, -1])
def test_points_come_back_as_they_were_packed(stripe: int) -> None:
    rows = [
        (stripe * 64 + source, time, 4_000_000_000) for source in (0, 7, 63) for time in (-(1 << 63), 0, (1 << 63) - 1)
    ]
    whole = points(rows, [1], [[float(number) for number in range(9)]])
    data, (count, packed) = pack_points(whole), pack_values(whole.values[0])
    for found in (
        stored_points(stripe, 9, data, [(1, count, packed)]),
        recent_points(stripe, 9, data, whole.metrics.tobytes(), whole.values.tobytes()),
    ):
        for one, other in zip(found, whole, strict=True):
            np.testing.assert_array_equal(one, other)
    middle = rows_of(9, data, np.array([stripe * 64 + 7]))
    assert middle == range(3, 6)
    assert stored_points(stripe, 9, data, [(1, count, packed)], middle).values.tolist() == [[3.0, 4.0, 5.0]]
