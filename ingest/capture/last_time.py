"""Finds the newest time in a capture, in one pass over its time column alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np

from ingest.capture.arrow import ColumnReader
from ingest.capture.compression import PeekableFile
from ingest.capture.rows import CAREFUL_ROWS, CsvRecord, CsvRecords
from readings.columns import Ints

_NO_TIME = -(1 << 63)


def last_time(
    file: PeekableFile,
    columns: ColumnReader | None,
    records: Callable[[], CsvRecords],
    time_column: int,
    parse_time: Callable[[str], int],
    latest_ns: int,
    stopped: Callable[[], bool],
) -> int | None:
    """The newest time from here to the end, in ns; None if there is none.

    Times after ``latest_ns`` come from a clock that was wrong. They count only if there are no others: a shift by one of them
    would move all good readings into the past.
    """
    newest = newest_good = _NO_TIME
    while not stopped():
        block = file.read_lines()
        times = columns.times(block) if columns is not None and len(block) else None
        if times is None:
            file.push(bytes(block))
            times = _times_by_row(records(), time_column, parse_time)
        if times is None:
            break
        newest = max(newest, int(times.max(initial=_NO_TIME)))
        newest_good = max(newest_good, int(times[times <= latest_ns].max(initial=_NO_TIME)))
    result = newest if newest_good == _NO_TIME else newest_good
    return None if result == _NO_TIME else result


def _times_by_row(records: CsvRecords, column: int, parse_time: Callable[[str], int]) -> Ints | None:
    """The times of some further rows, read one by one; None when there are no more rows."""
    times: list[int] = []
    count = 0
    while count < CAREFUL_ROWS or not records.is_at_rest:
        record = next(records, None)
        if record is None:
            break
        count += 1
        if isinstance(record, CsvRecord) and len(record.fields) > column:
            with contextlib.suppress(ValueError):
                times.append(parse_time(record.fields[column]))
    return np.array(times, np.int64) if count else None
