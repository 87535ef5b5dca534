"""The CSV source: a capture file, read in chunks that a thread can fetch one by one."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ingest.csv_header import Header, parse_header
from ingest.csv_records import BadRecord, CsvRecords, Record
from ingest.csv_rows import RowReader, Sample
from ingest.errors import SourceError
from ingest.resume import ResumeState
from readings.checks import Refused
from readings.reasons import LABEL_CONFLICT
from readings.times import parse_time

UTF8_BOM = b"\xef\xbb\xbf"
_SCAN_STEP = 10_000
_OTHER_FORMATS = {
    b"\xff\xfe": "is UTF-16 text",
    b"\xfe\xff": "is UTF-16 text",
    b"\x1f\x8b": "is compressed (gzip)",
    b"\x28\xb5\x2f\xfd": "is compressed (zstd)",
    b"PK\x03\x04": "is a zip archive or a spreadsheet",
}


class RefusedRow(NamedTuple):
    """A row that gave no reading: its line, reason, detail and text."""

    line: int
    reason: str
    detail: str
    raw: str


class Chunk(NamedTuple):
    """Some rows. ``position`` and ``line`` say where the next row begins; ``counts`` are rows by reason, refused or remarkable."""

    samples: list[Sample]
    refused: list[RefusedRow]
    counts: Counter[str]
    position: int
    line: int
    done: bool


class CsvSource:
    """One open capture. Not safe for several threads at once; any one at a time will do.

    Every method may raise SourceError, with the path in its text.
    """

    def __init__(self, path: str, file: BinaryIO, *, needs_timestamp: bool) -> None:
        self.path = path
        self._file = file
        self._needs_timestamp = needs_timestamp
        with _naming(path):
            self.size = os.fstat(file.fileno()).st_size
            self._header = self._read_header()
            self._rows = RowReader(self._header, needs_timestamp=needs_timestamp)
            self._start = self._records.position, self._records.line

    @classmethod
    def open(cls, path: str, *, needs_timestamp: bool) -> CsvSource:
        """Open a capture and read its header. Raises SourceError, in one line, for whatever is not one."""
        if not path:
            raise SourceError("CSV_PATH (--csv-path): no capture given: name a CSV file of DCGM metrics")
        with _naming(path):
            # Looked at before it is opened: opening a named pipe would wait for a writer.
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                raise SourceError("is a directory: name one CSV file")
            if not stat.S_ISREG(mode):
                raise SourceError("is not a regular file")
            file = Path(path).open("rb")  # noqa: SIM115 - closed by close()
        try:
            return cls(path, file, needs_timestamp=needs_timestamp)
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    @property
    def name(self) -> str:
        """The file's name, for people."""
        return os.path.basename(self.path)

    @property
    def position(self) -> int:
        """The byte where the next row begins."""
        return self._records.position

    def read(self, max_rows: int) -> Chunk:
        """Up to ``max_rows`` further rows; ``done`` when there are no more."""
        samples: list[Sample] = []
        refused: list[RefusedRow] = []
        conflicts = self._rows.conflicts
        records = self._records
        done = False
        with _naming(self.path):
            for _ in range(max_rows):
                record = next(records, None)
                if record is None:
                    done = True
                    break
                if isinstance(record, BadRecord):
                    refused.append(RefusedRow(*record))
                    continue
                try:
                    samples.append(self._rows.read(record.fields))
                except Refused as error:
                    if not self._repeats_header(record):
                        refused.append(RefusedRow(record.line, error.reason, error.detail, records.raw()))
        counts = Counter(row.reason for row in refused)
        if self._rows.conflicts > conflicts:
            counts[LABEL_CONFLICT] += self._rows.conflicts - conflicts
        return Chunk(samples, refused, counts, records.position, records.line, done)

    def rewind(self) -> None:
        """Go back to the first row."""
        self._seek(*self._start)

    def resume(self, state: ResumeState, timestamps: str) -> bool:
        """Go on where ``state`` says, if it speaks of this file as it is and of these timestamps; says whether it does."""
        with _naming(self.path):
            if state.position < self._start[0] or not state.fits(self.path, self._file, timestamps):
                return False
        self._seek(state.position, state.line)
        return True

    def state_at(self, *, position: int, line: int, timestamps: str, shift_ns: int) -> ResumeState:
        """What a later run needs to go on at ``position``. May be called while another thread reads."""
        with _naming(self.path):
            return ResumeState.at(
                self.path, self._file, position=position, line=line, timestamps=timestamps, shift_ns=shift_ns
            )

    def last_time(self, latest_ns: int, stopped: Callable[[], bool]) -> int | None:
        """The newest time in the whole capture, in ns; None without any. Reads it once, and comes back to where it was.

        Times after ``latest_ns`` (a clock that was wrong) count only where there are no others: one of them would
        otherwise move all good readings into the past.
        """
        back = self._records.position, self._records.line
        column = self._header.columns["timestamp"][0]
        newest: int | None = None
        newest_of_all: int | None = None
        last_text = ""
        self.rewind()
        with _naming(self.path):
            for number, record in enumerate(self._records):
                if number % _SCAN_STEP == 0 and stopped():
                    break
                # Most rows have the time of the row before.
                if isinstance(record, BadRecord) or len(record.fields) <= column or record.fields[column] == last_text:
                    continue
                last_text = record.fields[column]
                try:
                    time_ns = parse_time(last_text)
                except ValueError:
                    continue
                newest_of_all = time_ns if newest_of_all is None else max(newest_of_all, time_ns)
                if time_ns <= latest_ns:
                    newest = time_ns if newest is None else max(newest, time_ns)
        self._seek(*back)
        return newest_of_all if newest is None else newest

    def _seek(self, position: int, line: int) -> None:
        with _naming(self.path):
            self._file.seek(position)
            self._records = CsvRecords(self._file, line=line)

    def _read_header(self) -> Header:
        start = self._file.read(4)
        if not start:
            raise SourceError("is empty: a capture begins with a header line")
        for magic, problem in _OTHER_FORMATS.items():
            if start.startswith(magic):
                raise SourceError(f"{problem}: give an uncompressed CSV file in UTF-8")
        if b"\0" in start:
            raise SourceError("is UTF-16 or binary: give an uncompressed CSV file in UTF-8")
        self._file.seek(len(UTF8_BOM) if start.startswith(UTF8_BOM) else 0)
        self._records = CsvRecords(self._file)
        first = next(self._records, None)
        if first is None:
            raise SourceError("is empty: a capture begins with a header line")
        if isinstance(first, BadRecord):
            raise SourceError(f"line {first.line} is no CSV header: {first.problem}")
        header = parse_header(first.fields, needs_timestamp=self._needs_timestamp)
        if next(self._records, None) is None:
            raise SourceError("has a header and no rows")
        self._file.seek(len(UTF8_BOM) if start.startswith(UTF8_BOM) else 0)
        self._records = CsvRecords(self._file)
        next(self._records)
        return header

    def _repeats_header(self, record: Record) -> bool:
        """Captures that were appended to each other have a header in the middle. It is never a reading: its value is a word."""
        return tuple(field.strip().lstrip("\ufeff") for field in record.fields) == self._header.names


class _naming:
    """Puts the path before what went wrong inside."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise SourceError(f"{self._path!r}: no such file") from None
        if isinstance(error, OSError):
            raise SourceError(f"{self._path!r}: cannot be read: {error.strerror}") from error
        if isinstance(error, ValueError) and "null byte" in str(error):
            raise SourceError(f"{self._path!r}: is not a file name") from None
        if isinstance(error, SourceError) and not str(error).startswith(repr(self._path)):
            raise SourceError(f"{self._path!r}: {error}") from None
