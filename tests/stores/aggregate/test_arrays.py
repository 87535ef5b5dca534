"""Readings as arrays."""

from __future__ import annotations

import numpy as np

from stores.aggregate.arrays import ReadingSource, columns_of

A, B = ReadingSource("GPU-1", "", "h", "m"), ReadingSource("GPU-1", "3", "h", "m")


def test_rows_become_columns() -> None:
    columns = columns_of([A, B], [(0, (1 << 63) - 1, 1.5), (1, 2, 2.0)])
    assert columns.times.tolist() == [(1 << 63) - 1, 2]
    assert columns.only(np.array([1])).values.tolist() == [2.0]
    assert columns.only(columns.values < 2).places.tolist() == [0]
    assert [each.dtype.kind for each in columns[1:]] == ["i", "i", "f"]


def test_the_id_of_a_source_is_its_gpus() -> None:
    assert (A.gpu, B.gpu) == ("GPU-1", "GPU-1:3")
