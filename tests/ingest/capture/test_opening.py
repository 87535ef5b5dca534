from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.capture.source import CsvSource
from ingest.errors import SourceError
from tests.ingest.captures import COLUMNS, line, read_capture, row

HEADER = ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (HEADER.encode(), "has a header and no rows"),
        (b"a,b\n1,2\n", "lacks the columns timestamp, metric_name, value, uuid (or labels_raw)"),
        (b"timestamp,metric_name,uuid,value,value\n1,2,3,4,5\n", "names the column 'value' twice"),
        ((HEADER + line(row())).encode("utf-16"), "is UTF-16 text: give a CSV file in UTF-8"),
        ((HEADER + line(row())).encode("utf-16-be"), "is UTF-16 or binary"),
        (b"\x1f\x8b\x08\x00rest", "is empty"),
        (b"\x28\xb5\x2f\xfdrest", "is empty"),
        (b"PK\x03\x04rest", "is a zip archive or a spreadsheet"),
        (b'"timestamp,metric_name\n', "line 1 is no CSV header"),
    ],
)
def test_what_is_no_capture_is_refused_in_one_line_that_names_it(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "capture.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        CsvSource(str(path), needs_timestamp=True)
    assert said in str(caught.value)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (str(tmp_path / "none.csv"), "no such file"),
        (str(tmp_path), "is a directory: name one CSV file"),
        (str(tmp_path / "pipe"), "is not a regular file"),
        ("a\0b", "is not a file name"),
        ("", "CSV_PATH (--csv-path): no capture given"),
        (str(tmp_path / "pipe" / "x"), "cannot be read: Not a directory"),
    ):
        with pytest.raises(SourceError, match=said.replace("(", r"\(").replace(")", r"\)")):
            CsvSource(path, needs_timestamp=True)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_byte_order_mark_and_either_line_ending_do_no_harm(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "capture.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + line(row()) + line(row(gpu=1))).replace("\n", ending).encode())
    read = read_capture(path)
    assert len(read.readings) == 2
    assert read.position == path.stat().st_size
