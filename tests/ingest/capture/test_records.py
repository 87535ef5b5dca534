from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from ingest.capture.rows import MAX_LINE_BYTES, MAX_LINES_PER_RECORD, CsvRecord, CsvRecords
from ingest.samples import RefusedRow
from readings.checks import BAD_FIELD, SHORT_ROW


def read(data: bytes) -> list[CsvRecord | RefusedRow]:
    return list(CsvRecords(io.BytesIO(data)))


def fields(data: bytes) -> list[list[str]]:
    return [each.fields for each in read(data) if isinstance(each, CsvRecord)]


def test_records_come_with_their_line_numbers() -> None:
    assert read(b'a,b\n"1","x ""y"""\n') == [CsvRecord(1, ["a", "b"]), CsvRecord(2, ["1", 'x "y"'])]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_either_line_ending_will_do_and_the_last_may_be_missing(ending: bytes) -> None:
    assert fields(ending.join([b"a,b", b"1,2"])) == [["a", "b"], ["1", "2"]]
    assert fields(ending.join([b"a,b", b"1,2", b""])) == [["a", "b"], ["1", "2"]]


def test_blank_lines_are_passed_over_and_still_counted() -> None:
    assert read(b"\na\n\r\n\nb\n") == [CsvRecord(2, ["a"]), CsvRecord(5, ["b"])]


def test_a_quoted_field_may_span_lines() -> None:
    assert read(b'"a\nb",1\nc,2\n') == [CsvRecord(1, ["a\nb", "1"]), CsvRecord(3, ["c", "2"])]


def test_a_cut_line_costs_no_other() -> None:
    """The quote that the cut left open closes at the next row's first quote: that row must not be swallowed."""
    first, second, third = read(b'"T","UTIL","0","nvid\n"T","UTIL","1","x"\n"T","UTIL","2","x"\n')
    assert isinstance(first, RefusedRow)
    assert first.line == 1
    assert first.raw == '"T","UTIL","0","nvid'
    assert second == CsvRecord(2, ["T", "UTIL", "1", "x"])
    assert third == CsvRecord(3, ["T", "UTIL", "2", "x"])


def test_a_quote_that_nothing_closes_costs_one_line() -> None:
    plain = b"a,b\n" * 200
    records = read(b'"never closed,1\n' + plain)
    assert [each for each in records if isinstance(each, RefusedRow)] == [
        RefusedRow(1, SHORT_ROW, "a quote is opened and not closed", '"never closed,1')
    ]
    assert len(records) == 201
    assert records[-1] == CsvRecord(201, ["a", "b"])


def test_a_file_that_ends_in_a_quoted_field_refuses_that_line() -> None:
    good, bad = read(b'a,b\n"T","UT')
    assert good == CsvRecord(1, ["a", "b"])
    assert isinstance(bad, RefusedRow)
    assert (bad.line, bad.reason) == (2, SHORT_ROW)


def test_a_record_of_too_many_lines_is_given_up_line_by_line() -> None:
    lines = [b'"open'] + [b"x"] * MAX_LINES_PER_RECORD + [b'close",1']
    records = read(b"\n".join(lines) + b"\n")
    assert isinstance(records[0], RefusedRow)
    assert records[1] == CsvRecord(2, ["x"])


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (b"a," + b"x" * (2 * MAX_LINE_BYTES + 17) + b"\n", f"the line is longer than {MAX_LINE_BYTES} bytes"),
    ],
)
def test_a_bad_line_is_refused_with_what_is_wrong(bad: bytes, problem: str) -> None:
    before, refused, after = read(b"1,2\n" + bad + b"3,4\n")
    assert before == CsvRecord(1, ["1", "2"])
    assert isinstance(refused, RefusedRow)
    assert (refused.line, refused.reason, refused.detail) == (2, BAD_FIELD, problem)
    assert len(refused.raw) <= 4096
    assert after == CsvRecord(3, ["3", "4"])


@pytest.mark.parametrize(
    ("line", "field"),
    [(b"a,\0b\n", "\0b"), (b"a,\xff\xfe\n", "\ufffd\ufffd"), (b"a," + b"x" * 200_000 + b"\n", "x" * 200_000)],
)
def test_a_line_is_read_whatever_characters_are_in_it(line: bytes, field: str) -> None:
    """Whether a field may have them is for its reader to say: one that a reading does not need refuses nothing."""
    assert read(b"1,2\n" + line + b"3,4\n")[1:] == [CsvRecord(2, ["a", field]), CsvRecord(3, ["3", "4"])]


def test_an_overlong_last_line_ends_the_file() -> None:
    assert [type(each) for each in read(b"a\n" + b"x" * (MAX_LINE_BYTES + 5))] == [CsvRecord, RefusedRow]


def test_the_raw_text_of_the_last_record_is_at_hand() -> None:
    records = CsvRecords(io.BytesIO(b'"a","b"\r\n"c\nd"\n'))
    next(records)
    assert records.raw() == '"a","b"'
    next(records)
    assert records.raw() == '"c\nd"'


def test_reading_can_go_on_from_every_position(tmp_path: Path) -> None:
    """Also after bad lines, in the middle of which nothing may be read twice or passed over."""
    data = (
        b'h,i\n1,"two\nlines"\n\n"cut,3\n4,5\r\n\xff,6\n7,8\n'
        + b"y" * (MAX_LINE_BYTES + 9)
        + b'\n9,10\n"11",12\n"open,13'
    )
    whole = read(data)
    records = CsvRecords(io.BytesIO(data))
    given: list[CsvRecord | RefusedRow] = []
    for record in records:
        given.append(record)
        later = io.BytesIO(data)
        later.seek(records.position)
        assert given + list(CsvRecords(later, line=records.line)) == whole
    assert records.position == len(data)


def test_random_bytes_raise_nothing_and_lose_no_byte() -> None:
    chance = random.Random(7)
    for _ in range(300):
        data = bytes(chance.choice(b'a1,"\n\r\0\xff ') for _ in range(chance.randrange(120)))
        records = CsvRecords(io.BytesIO(data))
        for _record in records:
            pass
        assert records.position == len(data) or not data[records.position :].strip(b"\r\n")
