"""The files that exports make, whole and broken off."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pyarrow as pa
import pytest
from pyarrow import parquet

from api.exports.formats import CsvEncoder, Encoder, NdjsonEncoder, ParquetEncoder
from api.exports.readings import COLUMNS, ReadingLayout
from stores.base import RowBatch, SeriesLabels

LAYOUT = ReadingLayout()
ORIGIN = SeriesLabels("DCGM_FI_DEV_POWER_USAGE", "GPU-a", "3", 1, "nvidia1", "H100", "h", "c", "=pod", "ns")
OTHER = ORIGIN._replace(uuid="GPU-b", mig_id="", gpu_id=None)


def portion(start: int, rows: int) -> RowBatch:
    return RowBatch(
        [1_752_871_354_000_000_001 + start + row for row in range(rows)],
        [0.1 + start + row for row in range(rows)],
        [row % 2 for row in range(rows)],
        [ORIGIN, OTHER],
    )


def file_of(encoder: Encoder, *portions: RowBatch) -> bytes:
    return b"".join([encoder.begin(), *[encoder.encode(each) for each in portions], encoder.end()])


def test_csv_has_a_header_and_a_line_for_each_row() -> None:
    rows = list(
        csv.DictReader(io.StringIO(file_of(CsvEncoder(LAYOUT), portion(0, 3), portion(3, 2)).decode(), newline=""))
    )
    assert [row["value"] for row in rows] == ["0.1", "1.1", "2.1", "3.1", "4.1"]
    assert (rows[0]["timestamp"], rows[0]["pod"], rows[0]["mig_id"]) == ("2025-07-18T20:42:34.000000001Z", "=pod", "3")
    assert (rows[1]["gpu_id"], rows[1]["unit"]) == ("", "W")


def test_ndjson_has_an_object_for_each_row() -> None:
    lines = file_of(NdjsonEncoder(LAYOUT), portion(0, 3), portion(3, 2)).decode().splitlines()
    assert [json.loads(line)["value"] for line in lines] == [0.1, 1.1, 2.1, 3.1, 4.1]
    assert json.loads(lines[1])["gpu_id"] is None


def test_parquet_has_every_row_with_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.exports.formats._ROW_GROUP", 4)
    data = file_of(ParquetEncoder(LAYOUT), portion(0, 3), portion(3, 3), portion(6, 1))
    found = parquet.ParquetFile(io.BytesIO(data))
    assert found.num_row_groups == 3
    table = found.read()
    assert table.schema.field("timestamp").type == pa.timestamp("ns", "UTC")
    assert table["timestamp"].cast(pa.int64()).to_pylist() == [1_752_871_354_000_000_001 + row for row in range(7)]
    assert table["value"].to_pylist() == [0.1 + row for row in range(7)]
    assert table["gpu_id"].to_pylist() == [1, None, 1, 1, None, 1, 1]
    assert table["uuid"].to_pylist()[:2] == ["GPU-a", "GPU-b"]
    assert set(table["unit"].to_pylist()) == {"W"}
    assert table.column_names == [column.name for column in COLUMNS]


def test_parts_with_other_texts_make_one_table() -> None:
    other = RowBatch([3, 4], [3.0, 4.0], [1, 0], [ORIGIN._replace(hostname="x"), ORIGIN._replace(hostname="y")])
    table = parquet.read_table(io.BytesIO(file_of(ParquetEncoder(LAYOUT), portion(0, 2), other)))
    assert table["hostname"].to_pylist() == ["h", "h", "y", "x"]


@pytest.mark.parametrize("make", [CsvEncoder, NdjsonEncoder, ParquetEncoder])
def test_a_file_of_nothing_is_a_file(make: Callable[[ReadingLayout], Encoder]) -> None:
    data = file_of(make(LAYOUT))
    if make is CsvEncoder:
        assert data.decode() == ",".join(column.name for column in COLUMNS) + "\r\n"
    elif make is NdjsonEncoder:
        assert data == b""
    else:
        assert parquet.read_table(io.BytesIO(data)).num_rows == 0


def test_what_is_broken_off_looks_like_it() -> None:
    (line,) = csv.reader([CsvEncoder(LAYOUT).broken("the disk, it is gone").decode()])
    assert len(line) == 1
    assert "not complete: the disk, it is gone" in line[0]
    assert json.loads(NdjsonEncoder(LAYOUT).broken("why"))["error"] == "unavailable"
    encoder = ParquetEncoder(LAYOUT)
    with pytest.raises(pa.ArrowInvalid):
        parquet.read_table(io.BytesIO(encoder.begin() + encoder.encode(portion(0, 5)) + encoder.broken("why")))
