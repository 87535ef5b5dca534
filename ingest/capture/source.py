"""The CSV source: one open capture, read in blocks that a thread can fetch one by one."""

from __future__ import annotations

import csv
import io
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, tzinfo
from typing import BinaryIO, NamedTuple
from zlib import crc32

import numpy as np

from ingest.capture.arrow import ColumnReader, Parsed
from ingest.capture.compression import STDIN, PeekableFile, is_truncated, packed_share
from ingest.capture.header import shown_names
from ingest.capture.last_time import last_time
from ingest.capture.opening import find_units, named_errors, open_checked, read_header, rows_under
from ingest.capture.position import ResumeState, SourcePosition
from ingest.capture.rows import CAREFUL_ROWS, MAX_RAW_CHARACTERS, SECOND_ROW, CsvRecord, CsvRecords, RowReader
from ingest.capture.smi import SmiHeader, SmiRows
from ingest.parts import Parts
from ingest.samples import RefusedRow, Sample
from ingest.shard import WHOLE, Shard
from readings.checks import BAD_FIELD, DUPLICATE_ROW, PASSED_OVER, Refused
from readings.columns import Columns, join
from readings.times import parse_time

# Shards alternate in runs of so many lines, so that the metrics of a GPU mostly stay together.
SHARD_LINES = 100
# All metrics of a fleet's first sample, in all but the largest captures.
_LOOK_AHEAD_BYTES = 8 << 20
_LOOK_AHEAD_PIECE = 1 << 20


class CaptureChunk(NamedTuple):
    """The readings of some rows, and the rows that gave none.

    The next row begins at byte ``position``, in line ``line``. ``shift_ns`` was added to the times. ``counts`` has rows by reason of any kind:
    refused, remarked on, passed over.
    """

    columns: Columns
    refused: list[RefusedRow]
    counts: Counter[str]
    position: int
    line: int
    done: bool
    shift_ns: int = 0


class _RowResults(NamedTuple):
    """Rows read one by one: the readings, the line of each, the refused rows, and counts by reason of any kind."""

    samples: list[Sample]
    lines: list[int]
    refused: list[RefusedRow]
    counts: Counter[str]


class CsvSource:
    """One open capture. Any thread may use it, but only one at a time.

    Opening it reads its header. That and every method may raise SourceError, with the path in its text.
    """

    def __init__(
        self,
        path: str,
        *,
        needs_timestamp: bool,
        zone: tzinfo = UTC,
        shard: Shard = WHOLE,
        follow: bool = False,
        parts: Parts | None = None,
        columns: Sequence[str] = (),
        hostname: str = "",
    ) -> None:
        self.path = path
        self._names, self._hostname = columns, hostname
        self._parts = Parts() if parts is None else parts
        self._file = PeekableFile(open_checked(path), whole_lines=follow, is_pipe=path == STDIN)
        self._shard = shard
        self._zone = zone
        # Mixing in the name gives captures that begin alike, as those of a rotated log do, to different shards.
        self._shard_start = crc32(os.fsencode(os.path.basename(path)))
        try:
            self._begin(needs_timestamp=needs_timestamp)
        except BaseException:
            self.close()
            raise

    def _begin(self, *, needs_timestamp: bool) -> None:
        """Read the header and the units."""
        with named_errors(self.path):
            status = os.fstat(self._file.fileno())
            self.size = 0 if self.path == STDIN else status.st_size
            self.inode = status.st_ino
            self._header, line = read_header(self._file, needs_timestamp=needs_timestamp, columns=self._names)
            self._records = self._records_at(line)
            self._units, self._needs_timestamp, self._looked_ahead = find_units(self._file), needs_timestamp, False
            self._rows = self._row_reader(needs_timestamp=needs_timestamp)
            self._columns = (
                self._column_reader(self._rows, needs_timestamp=needs_timestamp)
                if isinstance(self._rows, RowReader)
                else None
            )
            self._start = self._records.position, self._records.line

    def _row_reader(self, *, needs_timestamp: bool) -> SmiRows | RowReader:
        return rows_under(
            self._header,
            needs_timestamp=needs_timestamp,
            units=self._units,
            zone=self._zone,
            hostname=self._hostname,
            parts=self._parts,
        )

    def _column_reader(self, rows: RowReader, *, needs_timestamp: bool) -> ColumnReader:
        parse = self._parse_time if needs_timestamp else None
        return ColumnReader(self._header, rows, parse, zone_is_utc=str(self._zone) == "UTC")

    def _records_at(self, line: int = 1, file: BinaryIO | None = None) -> CsvRecords:
        return CsvRecords(file or self._file, line=line, dialect=self._header.dialect)

    @property
    def notes(self) -> list[str]:
        """What a user should know of this capture's form."""
        if not isinstance(self._header, SmiHeader):
            return []
        notes = [f"{self.path!r} is nvidia-smi's output: its columns get DCGM's names"]
        if self._header.left_out:
            notes.append(f"columns that are no metrics here are left out: {shown_names(self._header.left_out)}")
        if "uuid" not in self._header.columns:
            notes.append(
                "without uuid GPUs are told apart by serial or pci.bus_id: they are others than those of other sources"
            )
        return notes

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return os.path.basename(self.path)

    @property
    def header_line(self) -> str:
        """The header as one line of CSV."""
        line = io.StringIO()
        csv.writer(line, lineterminator="", delimiter=self._header.dialect.delimiter).writerow(self._header.names)
        return line.getvalue()

    @property
    def origin(self) -> dict[str, str]:
        """What a row needs, beside itself, to be read again."""
        origin = {"source": self.path, "header": self.header_line}
        if self._zone is not UTC and str(self._zone) != "UTC":
            origin["zone"] = str(self._zone).removeprefix("UTC")
        if isinstance(self._header, SmiHeader):
            origin["hostname"] = self._hostname or socket.gethostname()
        return origin

    @property
    def position(self) -> int:
        """The byte where the next row begins."""
        return self._records.position

    @property
    def line(self) -> int:
        """The line number of the next row, from 1."""
        return self._records.line

    def read(self, max_rows: int | None = None) -> CaptureChunk:
        """Read the next block of rows, at most ``max_rows``; ``done`` when there are no more."""
        with named_errors(self.path):
            if not self._records.is_at_rest:
                return self._read_rows(1)
            self._look_ahead()
            block = self._file.read_lines(max_rows)
            parsed = self._columns.read(block) if self._columns and len(block) else None
            if parsed is not None:
                return self._take(block, parsed)
            raw = bytes(block)
            self._file.push(raw)
            most = min(max_rows or CAREFUL_ROWS, CAREFUL_ROWS)
            if self.path == STDIN:  # the lines after those that have come may take long
                most = max(1, min(most, raw.count(b"\n")))
            return self._read_rows(most)

    def _look_ahead(self) -> None:
        """Find the labels of parts before any row is read: what comes of a row is then the same at every pace.

        Where GPUs have one description each in the first piece, there is nothing to find.
        """
        if (
            self._looked_ahead
            or self._file.is_pipe
            or self._file.whole_lines
            or "timestamp" not in self._header.columns
        ):
            return
        self._looked_ahead = True
        rows, columns = self._rows, self._columns
        if columns is not None and not self._needs_timestamp:
            rows = self._row_reader(needs_timestamp=True)
            columns = self._column_reader(rows, needs_timestamp=True) if isinstance(rows, RowReader) else None
        if columns is None or not isinstance(rows, RowReader):
            return
        start = self._file.read(_LOOK_AHEAD_BYTES)
        self._file.push(start)
        view, at = memoryview(start), 0
        while at < len(start) and (at == 0 or columns.saw_several):
            end = start.rfind(b"\n", at, at + _LOOK_AHEAD_PIECE) + 1 or len(start)
            if columns.read(view[at:end]) is None:
                columns.saw_several = True
                for _ in range(2):  # the first time shows which rows to compare
                    for record in self._records_at(1, io.BytesIO(view[at:end])):
                        if isinstance(record, CsvRecord):
                            with suppress(Refused):
                                rows.read(record.fields)
            at = end
        rows.take_remarks()
        rows.twins.begin_anew()

    def _take(self, block: memoryview, parsed: Parsed) -> CaptureChunk:
        """A block that was read by column, with its odd lines read row by row."""
        first_line = self.line
        position = self.position + len(block)
        columns, lines = parsed.columns, parsed.lines + first_line
        if self._shard.total > 1:
            ours = np.equal((lines // SHARD_LINES + self._shard_start) % self._shard.total, self._shard.place)
            columns, lines = columns.where(ours), lines[ours]
        odd = _RowResults([], [], [], parsed.remarks)
        for number, start, end in parsed.seconds:
            line = first_line + number
            if self._shard.has_number(line // SHARD_LINES + self._shard_start):
                text = bytes(block[start:end]).decode("utf-8", "replace").rstrip("\r\n")
                odd.refused.append(RefusedRow(line, DUPLICATE_ROW, SECOND_ROW, text[:MAX_RAW_CHARACTERS]))
        for number, start, end in parsed.odd:
            self._read_each(self._records_at(first_line + number, io.BytesIO(block[start:end])), None, odd)
        if odd.samples:  # in the order of the file: of two rows for one reading the later one counts
            order = np.argsort(np.concatenate([lines, odd.lines]), kind="stable")
            columns = join([columns, Columns.of(odd.samples)]).where(order)
        self._records = self._records_at(first_line + parsed.line_count)
        return CaptureChunk(columns, odd.refused, self._counted(odd), position, self.line, False)

    def _read_rows(self, most: int) -> CaptureChunk:
        """Read up to ``most`` rows one by one."""
        rows = _RowResults([], [], [], Counter())
        done = self._read_each(self._records, most, rows)
        if done and is_truncated(self._file):
            rows.refused.append(RefusedRow(self.line, BAD_FIELD, "the compressed file ends before its end", ""))
        return CaptureChunk(Columns.of(rows.samples), rows.refused, self._counted(rows), self.position, self.line, done)

    def _counted(self, rows: _RowResults) -> Counter[str]:
        rows.counts.update(row.reason for row in rows.refused)
        rows.counts.update(self._rows.take_remarks())
        return rows.counts

    def _read_each(self, records: CsvRecords, most: int | None, results: _RowResults) -> bool:
        """Add what ``most`` rows give (None: all rows) to ``results``; says whether there are no more."""
        count = 0
        while most is None or count < most:
            record = next(records, None)
            if record is None:
                return True
            count += 1
            if not self._shard.has_number(record.line // SHARD_LINES + self._shard_start):
                continue
            if isinstance(record, RefusedRow):
                results.refused.append(record)
                continue
            try:
                samples, refused = self._rows.read_all(record.fields)
                results.samples.extend(samples)
                results.lines.extend([record.line] * len(samples))
                self._refuse(record.line, refused, records, results)
            except Refused as error:
                # Not the header again, as in captures that were appended to each other.
                if error.reason in PASSED_OVER:
                    results.counts[error.reason] += 1
                elif tuple(field.strip().lstrip("\ufeff") for field in record.fields) != self._header.names:
                    results.refused.append(RefusedRow(record.line, error.reason, error.detail, records.raw()))
        return False

    def _refuse(self, line: int, refused: Sequence[Refused], records: CsvRecords, results: _RowResults) -> None:
        """Count the refused values of a row; keep the row once for each reason."""
        details: dict[str, list[str]] = {}
        for error in refused:
            details.setdefault(error.reason, []).append(error.detail)
        for reason, each in details.items():
            results.counts[reason] += len(each) - 1
            results.refused.append(RefusedRow(line, reason, "; ".join(each), records.raw()))

    def bytes_after(self, position: int) -> int | None:
        """How many bytes the file has after a position that was read; None for standard input.

        For a compressed file this is in proportion, in compressed bytes.
        """
        if self.path == STDIN:
            return None
        return max(0, os.fstat(self._file.fileno()).st_size - round(position * packed_share(self._file)))

    def has_ended(self) -> bool:
        """Whether a followed file is over: another file has its name, and everything in it was read."""
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

    def rewind(self) -> None:
        """Go back to the first row."""
        self._seek(*self._start)

    def resume(self, state: ResumeState, timestamps: str) -> bool:
        """Go on where ``state`` says; returns False if it describes another file, or another choice of timestamps."""
        if self.path == STDIN:
            return False
        with named_errors(self.path):
            if state.position < self._start[0] or not state.fits(self.path, self._file, timestamps):
                return False
        self._seek(state.position, state.line)
        return True

    def state_at(self, position: SourcePosition, timestamps: str) -> ResumeState | None:
        """The state from which a later run goes on; None for standard input. May be called while another thread reads."""
        if self.path == STDIN:
            return None
        with named_errors(self.path):
            return ResumeState.at(self.path, self._file, position, timestamps)

    def last_time(self, latest_ns: int, stopped: Callable[[], bool]) -> int | None:
        """The newest time in the whole capture, in ns; None if it has none. Returns to the current row afterwards.

        See ``ingest.capture.last_time`` for ``latest_ns``.
        """
        position, line = self.position, self.line
        self.rewind()
        with named_errors(self.path):
            column = self._header.columns["timestamp"][0]
            newest = last_time(
                self._file, self._columns, self._records_at, column, self._parse_time, latest_ns, stopped
            )
        self._seek(position, line)
        return newest

    def _parse_time(self, text: str) -> int:
        return parse_time(text, self._zone)

    def _seek(self, position: int, line: int) -> None:
        with named_errors(self.path):
            self._file.seek(position)
            self._records = self._records_at(line)
