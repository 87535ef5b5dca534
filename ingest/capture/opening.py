"""Opens a capture: which kind of file it is, its header, and the units that its first rows show."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, tzinfo
from typing import BinaryIO

from ingest.capture.compression import STDIN, PeekableFile, open_capture
from ingest.capture.form import fields_of, find_separator, is_header, recognise, separator_line
from ingest.capture.header import CaptureHeader, Dialect
from ingest.capture.rows import MAX_LINE_BYTES, CsvRecords, RowReader
from ingest.capture.smi import SmiHeader, SmiRows
from ingest.errors import SourceError
from ingest.parts import Parts
from ingest.samples import RefusedRow
from readings.units import SourceUnits

UTF8_BOM = b"\xef\xbb\xbf"
# Captures are sorted by metric. In all but the largest, this much of a fleet's first sample holds every metric.
_UNITS_BYTES = 8 << 20
_UNITS_STEP = 1 << 20
_OTHER_FORMATS = {
    b"\xff\xfe": "is UTF-16 text",
    b"\xfe\xff": "is UTF-16 text",
    b"PK\x03\x04": "is a zip archive or a spreadsheet",
}


def open_checked(path: str) -> BinaryIO:
    """Open a capture for reading. Raises SourceError, with the path, for anything that is not a file."""
    if not path:
        raise SourceError("CSV_PATH (--csv-path): no capture given: name a CSV file of DCGM metrics")
    with named_errors(path):
        # Checked before it is opened: opening a named pipe would wait for a writer.
        if path != STDIN:
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                raise SourceError("is a directory: name one CSV file")
            if not stat.S_ISREG(mode):
                raise SourceError("is not a regular file")
        return open_capture(path)


def read_header(file: PeekableFile, *, needs_timestamp: bool, columns: Sequence[str] = ()) -> tuple[CaptureHeader, int]:
    """Read the header; returns it and the number of the line after it. Raises SourceError, OSError.

    ``columns`` are the names for a capture without a header; where there is one, that counts.
    """
    start = file.read(4)
    if not start:
        raise SourceError("is empty: a capture begins with a header line")
    for magic, problem in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise SourceError(f"{problem}: give a CSV file in UTF-8")
    if b"\0" in start:
        raise SourceError("is UTF-16 or binary: give a CSV file in UTF-8")
    file.push(start.removeprefix(UTF8_BOM))
    line, number = _first_line(file, 1)
    delimiter = separator_line(line)
    if delimiter is not None:
        file.readline(MAX_LINE_BYTES)
        line, number = _first_line(file, number + 1)
    delimiter = delimiter or find_separator(line)
    if columns and not is_header(fields_of(line, delimiter)):
        return recognise(columns, needs_timestamp=needs_timestamp, delimiter=delimiter), number
    records = CsvRecords(file, line=number, dialect=Dialect(delimiter, blanks_after=True))
    first = next(records, None)
    if first is None:
        raise SourceError("is empty: a capture begins with a header line")
    if isinstance(first, RefusedRow):
        raise SourceError(f"line {first.line} is no CSV header: {first.detail}")
    header = recognise(first.fields, needs_timestamp=needs_timestamp, delimiter=delimiter)
    some = file.read_some(4096)
    while some and not some.strip():
        some = file.read_some(4096)
    if not some and not file.whole_lines:
        raise SourceError("has a header and no rows")
    file.push(some)
    return header, records.line


def _first_line(file: PeekableFile, number: int) -> tuple[str, int]:
    """The next line that is not blank, and its number. The file stays before it."""
    while (line := file.readline(MAX_LINE_BYTES)) and not line.strip():
        number += 1
    file.push(line)
    return line.decode("utf-8", "replace"), number


def find_units(file: PeekableFile) -> SourceUnits:
    """The units that the beginning of the capture shows; the file stays where it is. Raises OSError."""
    units = SourceUnits()
    start = file.read_some(_UNITS_BYTES) if file.is_pipe else file.read(_UNITS_BYTES)
    for at in range(0, len(start), _UNITS_STEP):  # names are ASCII, and shorter than the overlap of two pieces
        units.note_text(start[at : at + _UNITS_STEP + 256].decode("latin-1"))
    file.push(start)
    return units


def rows_under(
    header: CaptureHeader,
    *,
    needs_timestamp: bool,
    units: SourceUnits | None = None,
    zone: tzinfo = UTC,
    hostname: str = "",
    parts: Parts | None = None,
) -> SmiRows | RowReader:
    """The reader of rows for this header. ``hostname`` is that of captures that do not say it; empty: this machine's."""
    if isinstance(header, SmiHeader):
        return SmiRows(header, needs_timestamp=needs_timestamp, hostname=hostname or socket.gethostname(), zone=zone)
    return RowReader(header, needs_timestamp=needs_timestamp, units=units, zone=zone, parts=parts)


@contextmanager
def named_errors(path: str) -> Iterator[None]:
    """Prefixes errors raised inside the block with the file's path, and turns them into SourceError."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"{path!r}: no such file") from None
    except OSError as error:
        raise SourceError(f"{path!r}: cannot be read: {error.strerror}") from error
    except SourceError as error:
        if str(error).startswith(repr(path)):
            raise
        raise SourceError(f"{path!r}: {error}") from None
    except ValueError as error:
        if "null byte" in str(error):
            raise SourceError(f"{path!r}: is not a file name") from None
        raise
