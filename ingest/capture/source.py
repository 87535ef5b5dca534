"""The CSV source: a capture file, read in chunks that a thread can fetch one by one."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import stat
from collections import Counter
from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import BinaryIO, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from ingest.capture.arrow import ColumnReader, Parsed
from ingest.capture.compression import STDIN, Ahead, is_truncated, open_capture, packed_share
from ingest.capture.header import Header, parse_header
from ingest.capture.position import ResumeState
from ingest.capture.rows import BadRecord, CsvRecords, Record, RowReader
from ingest.errors import SourceError
from ingest.samples import RefusedRow, Sample
from ingest.shard import WHOLE, Shard
from readings.checks import BAD_FIELD, LABEL_CONFLICT, Refused
from readings.columns import Columns, Ints, join
from readings.times import parse_time
from readings.units import SourceUnits

UTF8_BOM = b"\xef\xbb\xbf"
# What is read by column at once, and how many rows by themselves where that cannot be.
BLOCK_BYTES = 2 << 20  # as much as the caches of a core hold; twice that is slower
CAREFUL_ROWS = 1000
# Rows in a row that are of one shard, so that the metrics of a GPU mostly stay together.
SHARD_LINES = 100
# Captures are sorted by metric: of a fleet's first sample this much holds all metrics, in all but the largest.
_UNITS_BYTES = 8 << 20
_UNITS_STEP = 1 << 20
_OTHER_FORMATS = {
    b"\xff\xfe": "is UTF-16 text",
    b"\xfe\xff": "is UTF-16 text",
    b"PK\x03\x04": "is a zip archive or a spreadsheet",
}


class Chunk(NamedTuple):
    """Some rows. ``position`` and ``line`` say where the next row begins; ``counts`` are rows by reason, refused or remarkable."""

    samples: list[Sample]
    refused: list[RefusedRow]
    counts: Counter[str]
    position: int
    line: int
    done: bool
    columns: Columns | None = None  # where the rows were read by column; then ``samples`` is empty

    @property
    def size(self) -> int:
        """How many readings."""
        return len(self.samples) if self.columns is None else self.columns.size


class CsvSource:
    """One open capture. Not safe for several threads at once; any one at a time will do.

    Every method may raise SourceError, with the path in its text.
    """

    def __init__(
        self,
        path: str,
        file: BinaryIO,
        *,
        needs_timestamp: bool,
        zone: tzinfo = UTC,
        shard: Shard = WHOLE,
        follow: bool = False,
    ) -> None:
        self.path = path
        self._file = Ahead(file, whole_lines=follow)
        self._records: CsvRecords
        self._shard = shard
        # Captures with one beginning, as those of a rotated log, are shared out evenly too.
        self._shard_start = crc32(os.fsencode(os.path.basename(path)))
        self._needs_timestamp = needs_timestamp
        with _naming(path):
            status = os.fstat(file.fileno())
            self.size = 0 if path == STDIN else status.st_size
            self.inode = status.st_ino
            self._header = self._read_header()
            self._zone = zone
            self._rows = RowReader(self._header, needs_timestamp=needs_timestamp, units=self._find_units(), zone=zone)
            self._columns = ColumnReader(
                self._header, self._rows, (lambda text: parse_time(text, zone)) if needs_timestamp else None
            )
            self._start = self._records.position, self._records.line
            self._buffer = bytearray()

    @classmethod
    def open(
        cls,
        path: str,
        *,
        needs_timestamp: bool,
        zone: tzinfo = UTC,
        shard: Shard = WHOLE,
        follow: bool = False,
    ) -> CsvSource:
        """Open a capture and read its header. Raises SourceError, in one line, for whatever is not one."""
        if not path:
            raise SourceError("CSV_PATH (--csv-path): no capture given: name a CSV file of DCGM metrics")
        with _naming(path):
            # Looked at before it is opened: opening a named pipe would wait for a writer.
            if path != STDIN:
                mode = os.stat(path).st_mode
                if stat.S_ISDIR(mode):
                    raise SourceError("is a directory: name one CSV file")
                if not stat.S_ISREG(mode):
                    raise SourceError("is not a regular file")
            file = open_capture(path)
        try:
            return cls(path, file, needs_timestamp=needs_timestamp, zone=zone, shard=shard, follow=follow)
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
    def header_line(self) -> str:
        """Its header, as one line of CSV."""
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(self._header.names)
        return line.getvalue()

    @property
    def position(self) -> int:
        """The byte where the next row begins."""
        return self._records.position

    @property
    def line(self) -> int:
        """The number of the line of the next row, from 1."""
        return self._records.line

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
                self._take(record, records, samples, refused)
            if done and is_truncated(self._file):
                refused.append(RefusedRow(records.line, BAD_FIELD, "the compressed file ends before its end", ""))
        counts = Counter(row.reason for row in refused)
        if self._rows.conflicts > conflicts:
            counts[LABEL_CONFLICT] += self._rows.conflicts - conflicts
        return Chunk(samples, refused, counts, records.position, records.line, done)

    def read_block(self) -> Chunk:
        """Further rows, as many as a block of bytes holds, by column; ``done`` when there are no more."""
        records = self._records
        start, first_line = records.position, records.line
        with _naming(self.path):
            if not records.is_at_rest:
                return self._read_carefully(1)
            block = self._read_lines()
            parsed = self._columns.read(block) if len(block) else None
            if parsed is None:
                raw = bytes(block)
                self._file.push(raw)
                return self._read_carefully(raw.count(b"\n"))
            careful = self._read_odd(block, parsed, first_line)
            self._records = CsvRecords(self._file, line=first_line + parsed.line_count)
        counts = careful.counts
        if parsed.conflicts:
            counts[LABEL_CONFLICT] += parsed.conflicts
        columns = parsed.columns
        if self._shard.total > 1:
            columns = columns.where(self._are_ours(parsed.lines + first_line))
        if careful.samples:
            columns = join([columns, Columns.of(careful.samples)])
        return Chunk([], careful.refused, counts, start + len(block), self._records.line, False, columns)

    def _read_lines(self) -> memoryview:
        """A block's worth of whole lines, in the one buffer there is: fresh memory for each block would cost a copy and its page faults."""
        if len(self._buffer) != BLOCK_BYTES:
            self._buffer = bytearray(BLOCK_BYTES)
        buffer = memoryview(self._buffer)
        size = self._read_some_lines(buffer) if self.path == STDIN else self._file.readinto(buffer)
        end = self._buffer.rfind(b"\n", 0, size) + 1
        if not end and size < BLOCK_BYTES and not self._file.whole_lines:
            end = size
        self._file.push(bytes(buffer[end:size]))
        return buffer[:end]

    def _read_some_lines(self, buffer: memoryview) -> int:
        """What has come through a pipe, at least one line unless it ends: a line may come in pieces."""
        size = 0
        while size < len(buffer):
            some = self._file.read_some(len(buffer) - size)
            buffer[size : size + len(some)] = some
            size += len(some)
            if not some or b"\n" in some:
                break
        return size

    def _is_ours(self, line: int) -> bool:
        return self._shard.has_number(line // SHARD_LINES + self._shard_start)

    def _are_ours(self, lines: Ints) -> npt.NDArray[np.bool_]:
        return np.equal((lines // SHARD_LINES + self._shard_start) % self._shard.total, self._shard.place)

    def _read_carefully(self, lines: int) -> Chunk:
        """Some rows one by one; of a pipe no more than the lines that have come, since the next ones may be long in coming."""
        chunk = self.read(CAREFUL_ROWS if self.path != STDIN else max(1, min(lines, CAREFUL_ROWS)))
        return chunk._replace(samples=[], columns=Columns.of(chunk.samples))

    def _read_odd(self, block: memoryview, parsed: Parsed, first_line: int) -> Chunk:
        """The rows of a block that are to be read by themselves."""
        samples: list[Sample] = []
        refused: list[RefusedRow] = []
        conflicts = self._rows.conflicts
        for number, start, end in parsed.odd:
            records = CsvRecords(io.BytesIO(block[start:end]), line=first_line + number)
            for record in records:
                self._take(record, records, samples, refused)
        counts = Counter(row.reason for row in refused)
        if self._rows.conflicts > conflicts:
            counts[LABEL_CONFLICT] += self._rows.conflicts - conflicts
        return Chunk(samples, refused, counts, 0, 0, False)

    def _take(
        self, record: Record | BadRecord, records: CsvRecords, samples: list[Sample], refused: list[RefusedRow]
    ) -> None:
        if isinstance(record, BadRecord):
            if self._is_ours(record.line):
                refused.append(RefusedRow(*record))
            return
        if not self._is_ours(record.line):
            return
        try:
            samples.append(self._rows.read(record.fields))
        except Refused as error:
            if not self._repeats_header(record):
                refused.append(RefusedRow(record.line, error.reason, error.detail, records.raw()))

    def bytes_after(self, position: int) -> int | None:
        """How many bytes of the file come after a position that was read, as it is now; None where nobody knows.

        Of a compressed file these are its own, in proportion.
        """
        if self.path == STDIN:
            return None
        return max(0, os.fstat(self._file.fileno()).st_size - round(position * packed_share(self._file)))

    def has_ended(self) -> bool:
        """Whether nothing more will come to a file that is followed: another one has its name, and all of it is read."""
        if not self._file.whole_lines:
            return True
        try:
            now = os.stat(self.path)
        except OSError:
            now = None
        then = os.fstat(self._file.fileno())
        if now is None or now.st_ino != then.st_ino or now.st_size < self.position:
            self._file.whole_lines = False  # one more look: it may have grown before it was moved away
        return False

    @property
    def can_resume(self) -> bool:
        """Whether a later run can go on where this one was: standard input is over then."""
        return self.path != STDIN

    def rewind(self) -> None:
        """Go back to the first row."""
        self._seek(*self._start)

    def resume(self, state: ResumeState, timestamps: str) -> bool:
        """Go on where ``state`` says, if it speaks of this file as it is and of these timestamps; says whether it does."""
        if not self.can_resume:
            return False
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
        newest: int | None = None
        newest_of_all: int | None = None
        self.rewind()
        with _naming(self.path):
            while not stopped():
                block = self._read_lines()
                times = self._columns.times(block) if len(block) else None
                if times is None:
                    self._file.push(bytes(block))
                    times = self._some_times()
                if times is None:
                    break
                newest_of_all = _newest(newest_of_all, times)
                newest = _newest(newest, times[times <= latest_ns])
        self._seek(*back)
        return newest_of_all if newest is None else newest

    def _some_times(self) -> Ints | None:
        """The times of some further rows, read one by one; None when there are no more rows."""
        column = self._header.columns["timestamp"][0]
        records = CsvRecords(self._file)
        times: list[int] = []
        count = 0
        while count < CAREFUL_ROWS or not records.is_at_rest:
            record = next(records, None)
            if record is None:
                break
            count += 1
            if isinstance(record, Record) and len(record.fields) > column:
                with contextlib.suppress(ValueError):
                    times.append(parse_time(record.fields[column], self._zone))
        return np.array(times, np.int64) if count else None

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
                raise SourceError(f"{problem}: give a CSV file in UTF-8")
        if b"\0" in start:
            raise SourceError("is UTF-16 or binary: give a CSV file in UTF-8")
        self._file.push(start.removeprefix(UTF8_BOM))
        self._records = CsvRecords(self._file)
        first = next(self._records, None)
        if first is None:
            raise SourceError("is empty: a capture begins with a header line")
        if isinstance(first, BadRecord):
            raise SourceError(f"line {first.line} is no CSV header: {first.problem}")
        header = parse_header(first.fields, needs_timestamp=self._needs_timestamp)
        some = self._file.read_some(4096)
        while some and not some.strip():
            some = self._file.read_some(4096)
        if not some and not self._file.whole_lines:
            raise SourceError("has a header and no rows")
        self._file.push(some)
        self._records = CsvRecords(self._file, line=self._records.line)
        return header

    def _find_units(self) -> SourceUnits:
        """What the beginning of the capture tells of its units, before any row of it is read."""
        units = SourceUnits()
        start = self._file.read_some(_UNITS_BYTES) if self.path == STDIN else self._file.read(_UNITS_BYTES)
        for at in range(0, len(start), _UNITS_STEP):  # names are ASCII, and shorter than what the pieces share
            units.note_text(start[at : at + _UNITS_STEP + 256].decode("latin-1"))
        self._file.push(start)
        return units

    def _repeats_header(self, record: Record) -> bool:
        """Captures that were appended to each other have a header in the middle. It is never a reading: its value is a word."""
        return tuple(field.strip().lstrip("\ufeff") for field in record.fields) == self._header.names


def _newest(known: int | None, times: Ints) -> int | None:
    if not len(times):
        return known
    newest = int(times.max())
    return newest if known is None else max(known, newest)


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
