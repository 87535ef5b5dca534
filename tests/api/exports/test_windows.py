"""Windows as rows of an export."""

from __future__ import annotations

import csv
import io
from typing import Any

from pyarrow import parquet

from api.exports.formats import ParquetEncoder, csv_line
from api.exports.windows import WindowLayout
from readings.times import SECOND
from stores.base import GroupSeries, SeriesQuery

START = 1_752_871_320 * SECOND
FOUND = [
    GroupSeries(("ml", "=job"), [1.5, None, 0.1]),
    GroupSeries(("ml", "b,c"), [None, None, 3.0]),
]


def query(**changes: Any) -> SeriesQuery:
    asked: dict[str, Any] = {
        "metric_name": "DCGM_FI_DEV_POWER_USAGE", "aggregate": "mean", "every_ns": 60 * SECOND,
        "start_ns": START, "end_ns": START + 180 * SECOND, "by": "pod", "occupancies": (),
    }  # fmt: skip
    return SeriesQuery(**(asked | changes))


def names_of(layout: WindowLayout) -> list[str]:
    return [column.name for column in layout.columns]


def lines(layout: WindowLayout, *, safe: bool = False) -> list[dict[str, str]]:
    text = csv_line(names_of(layout)) + "".join(
        line for part in layout.parts(FOUND) for line in layout.csv_rows(part, safe=safe)
    )
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_there_is_a_row_for_each_window_of_each_group() -> None:
    rows = lines(WindowLayout(query()))
    assert [(row["pod"], row["timestamp"], row["value"]) for row in rows] == [
        ("=job", "2025-07-18T20:42:00Z", "1.5"),
        ("=job", "2025-07-18T20:43:00Z", ""),
        ("=job", "2025-07-18T20:44:00Z", "0.1"),
        ("b,c", "2025-07-18T20:42:00Z", ""),
        ("b,c", "2025-07-18T20:43:00Z", ""),
        ("b,c", "2025-07-18T20:44:00Z", "3.0"),
    ]
    assert {(row["namespace"], row["metric"], row["agg"], row["unit"]) for row in rows} == {
        ("ml", "DCGM_FI_DEV_POWER_USAGE", "mean", "W")
    }
    assert lines(WindowLayout(query()), safe=True)[0]["pod"] == "'=job"


def test_parquet_has_the_columns_of_csv() -> None:
    layout = WindowLayout(query())
    encoder = ParquetEncoder(layout)
    pieces = [encoder.begin(), *[encoder.encode(part) for part in layout.parts(FOUND)], encoder.end()]
    table = parquet.read_table(io.BytesIO(b"".join(pieces)))
    assert table.column_names == names_of(layout)
    assert table["pod"].to_pylist() == ["=job"] * 3 + ["b,c"] * 3
    assert table["value"].to_pylist() == [1.5, None, 0.1, None, None, 3.0]


def test_one_group_of_all_has_no_name() -> None:
    layout = WindowLayout(query(by=None, aggregate="count"))
    (part,) = layout.parts([GroupSeries((), [1.0, 2.0, 3.0])])
    assert names_of(layout) == ["timestamp", "metric", "agg", "unit", "value"]
    assert layout.csv_rows(part, safe=False)[0] == "2025-07-18T20:42:00Z,DCGM_FI_DEV_POWER_USAGE,count,count,1.0\r\n"
