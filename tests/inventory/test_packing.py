"""inventory.packing: the table of a host takes points over as a plain reckoning does, whatever their order and columns."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from inventory.packing import HostTable
from readings.catalogue import is_counter
from tests.inventory.building import POWER, TEMP, UTIL

ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
GPUS = 4
COLUMNS = ((ENERGY, UTIL), (UTIL, ENERGY), (ENERGY,), (TEMP, POWER, ENERGY), ())
Merge = tuple[tuple[str, ...], list[tuple[int, int, list[float | None]]]]


@st.composite
def merges(draw: st.DrawFn) -> Merge:
    """Points of some GPUs, each of another one, under one list of metric names."""
    names = draw(st.sampled_from(COLUMNS))
    in_order = [list(range(first, end)) for first in range(GPUS) for end in range(first + 1, GPUS + 1)]
    rows = draw(st.sampled_from(in_order) | st.permutations(range(GPUS)) | st.just([3, 1]))
    value = st.sampled_from([None, 0.0, 1.0, 2.0, math.nan, math.inf, -math.inf])
    return names, [
        (row, draw(st.integers(1, 3)), draw(st.lists(value, min_size=len(names), max_size=len(names)))) for row in rows
    ]


@given(st.lists(merges(), max_size=6))
def test_points_are_taken_over_where_they_are_newer(flushes: list[Merge]) -> None:
    table = HostTable()
    table.add([f"GPU-{number}" for number in range(GPUS)])
    newest: dict[tuple[int, str], tuple[int, float]] = {}
    for names, points in flushes:
        fallen = 0
        for row, time_ns, values in points:
            for name, value in zip(names, values, strict=True):
                before_ns, before = newest.get((row, name), (0, math.nan))
                if value is None or not math.isfinite(value) or time_ns < before_ns:
                    continue
                fallen += is_counter(name) and value < before and time_ns > before_ns
                newest[row, name] = time_ns, value
        rows, times_ns, of_points = (list(each) for each in zip(*points, strict=True))
        assert table.merge(names, rows, times_ns, of_points) == fallen
    assert is_counter(ENERGY)
    found = {
        (row, name): (int(table.times_ns[row, column]), float(table.values[row, column]))
        for row in range(GPUS)
        for column, name in enumerate(table.metric_names)
        if table.times_ns[row, column]
    }
    assert found == newest
