"""The windows of a range."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from stores.aggregate.buckets import Buckets


def test_windows_are_aligned_to_1970() -> None:
    grid = Buckets(61, 181, 60)
    assert (grid.origin_ns, grid.count, grid.times()) == (60, 3, [60, 120, 180])
    assert Buckets(60, 180, 60).times() == [60, 120]
    assert Buckets(-61, -1, 60).times() == [-120, -60]


def test_slabs_are_the_same_windows_in_parts() -> None:
    grid = Buckets(61, 401, 60)
    batches = list(grid.batches(2))
    assert batches == [Buckets(61, 180, 60), Buckets(180, 300, 60), Buckets(300, 401, 60)]
    assert [grid.index_of(batch) for batch in batches] == [0, 2, 4]
    assert list(grid.batches(0)) == list(grid.batches(1))


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.integers(1, 100), st.integers(1, 20))
def test_slabs_leave_out_nothing_and_hold_nothing_twice(start: int, length: int, every: int, windows: int) -> None:
    grid = Buckets(start, start + length, every)
    batches = list(grid.batches(windows))
    assert [time for batch in batches for time in batch.times()] == grid.times()
    assert batches[0].start_ns == grid.start_ns
    assert batches[-1].end_ns == grid.end_ns
    assert all(one.end_ns == other.start_ns for one, other in itertools.pairwise(batches))
