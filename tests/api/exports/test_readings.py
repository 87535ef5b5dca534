"""Rows as text: JSON that is JSON, CSV that is RFC 4180, numbers and times to the last digit."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
from math import isfinite

import msgspec
import pytest

from api.exports.formats import csv_line, number_texts, time_texts
from api.exports.readings import COLUMNS, ReadingLayout, json_list, json_rows
from stores.base import RowBatch, SeriesLabels

CSV_COLUMNS = [column.name for column in COLUMNS]
TIME = 1_752_871_354_000_000_000
ORIGIN = SeriesLabels("DCGM_FI_DEV_GPU_TEMP", "GPU-a", "", None, "nvidia0", "H100", "h", "", "", "")
NASTY = ['a,"b"', "line\nbreak\r\n", "=HYPERLINK(1)", "ünï\u2028", "'", '"', "\\", " ", "</script>", "\t"]


def csv_rows(batch: RowBatch, *, safe: bool = False) -> list[str]:
    return ReadingLayout().csv_rows(batch, safe=safe)


def of(*origins: SeriesLabels) -> RowBatch:
    """A row of each origin."""
    places = list(range(len(origins)))
    return RowBatch([TIME + place for place in places], [63.0 + place for place in places], places, list(origins))


def test_a_row_has_its_unit_and_its_time() -> None:
    (row,) = [json.loads(each) for each in json_rows(of(ORIGIN))]
    assert (row["timestamp"], row["unit"], row["gpu_id"], row["value"]) == ("2025-07-18T20:42:34Z", "°C", None, 63.0)
    assert "mig_id" not in row


def test_a_metric_that_is_not_in_the_catalogue_has_no_unit() -> None:
    assert json.loads(json_rows(of(ORIGIN._replace(metric_name="MINE")))[0])["unit"] == ""
    assert csv_rows(of(ORIGIN._replace(metric_name="MINE")))[0].endswith(",63.0,\r\n")


def test_a_list_is_one_piece_of_json() -> None:
    answer = msgspec.json.encode({"data": json_list(of(ORIGIN, ORIGIN)), "none": json_list(RowBatch([], [], [], []))})
    assert [row["uuid"] for row in json.loads(answer)["data"]] == ["GPU-a", "GPU-a"]
    assert json.loads(answer)["none"] == []


def test_times_are_told_to_the_nanosecond_each_once() -> None:
    assert time_texts([TIME, 1, TIME]) == [
        "2025-07-18T20:42:34Z",
        "1970-01-01T00:00:00.000000001Z",
        "2025-07-18T20:42:34Z",
    ]


def test_numbers_are_told_to_the_last_digit() -> None:
    chance = random.Random(4)
    bits = [struct.unpack("<d", struct.pack("<Q", chance.getrandbits(64)))[0] for _ in range(2000)]
    numbers = [
        0.0,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        66.781,
        0.1,
        1e16,
        123456789.123456789,
        *filter(isfinite, bits),
    ]
    assert [struct.pack("<d", float(text)) for text in number_texts(numbers)] == [
        struct.pack("<d", each) for each in numbers
    ]
    assert number_texts([]) == []


@pytest.mark.parametrize("text", NASTY)
def test_any_text_comes_back_as_it_was(text: str) -> None:
    origin = SeriesLabels(f"m{text}", f"u{text}", text, 7, text, text, text, text, text, text)
    (row,) = [json.loads(each) for each in json_rows(of(origin))]
    assert {row[name] for name in ("device", "model_name", "hostname", "container", "pod", "namespace")} == {text}
    written = "".join([csv_line(CSV_COLUMNS), *csv_rows(of(origin, ORIGIN))])
    first, second = csv.DictReader(io.StringIO(written, newline=""), strict=True)
    assert first["metric_name"] == f"m{text}"
    assert {first[name] for name in ("device", "model_name", "hostname", "container", "pod", "namespace")} == {text}
    assert (first["gpu_id"], second["gpu_id"], second["value"]) == ("7", "", "64.0")


def test_every_line_of_csv_ends_as_rfc_4180_says() -> None:
    assert csv_line(CSV_COLUMNS).endswith("unit\r\n")
    assert all(line.endswith("\r\n") and line.count("\n") == 1 for line in csv_rows(of(ORIGIN, ORIGIN)))


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "＝1", "＋1", "－1", "＠SUM(A1)"]
)
def test_a_formula_is_defused_on_request_alone(text: str) -> None:
    portion = of(ORIGIN._replace(pod=text))
    plain, safe = (next(csv.reader(io.StringIO(csv_rows(portion, safe=safe)[0], newline=""))) for safe in (False, True))
    assert plain[CSV_COLUMNS.index("pod")] == text
    assert safe[CSV_COLUMNS.index("pod")] == f"'{text}"
    assert safe[CSV_COLUMNS.index("value")] == "63.0"


def test_a_negative_value_is_no_formula() -> None:
    portion = RowBatch([TIME], [-1.5], [0], [ORIGIN])
    assert ",-1.5," in csv_rows(portion, safe=True)[0]
