"""Rows as Arrow tables."""

from __future__ import annotations

from api.exports.formats import READINGS, readings_table, windows_schema, windows_table
from api.exports.readings import CSV_COLUMNS
from api.exports.windows import Part
from stores.base import RowBatch, SeriesLabels

ORIGIN = SeriesLabels("DCGM_FI_DEV_GPU_TEMP", "GPU-a", "", 0, "nvidia0", "H100", "h", "", "", "")


def test_the_columns_are_those_of_csv() -> None:
    assert tuple(READINGS.names) == CSV_COLUMNS


def test_portions_with_other_words_are_one_table() -> None:
    one = RowBatch([1, 2], [1.0, 2.0], [0, 0], [ORIGIN])
    other = RowBatch([3, 4], [3.0, 4.0], [1, 0], [ORIGIN._replace(hostname="x"), ORIGIN._replace(hostname="y")])
    table = readings_table([one, other])
    assert table["hostname"].to_pylist() == ["h", "h", "y", "x"]
    assert table["value"].to_pylist() == [1.0, 2.0, 3.0, 4.0]
    assert table["unit"].to_pylist() == ["°C"] * 4


def test_a_window_without_a_value_has_none() -> None:
    table = windows_table([Part([1, 2], [None, 2.5], ("a",)), Part([1], [3.0], ("b",))], windows_schema(["host"]))
    assert table["host"].to_pylist() == ["a", "a", "b"]
    assert table["value"].to_pylist() == [None, 2.5, 3.0]
