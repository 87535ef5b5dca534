"""Records of a CSV file, one at a time, in constant memory, with the byte position after each.

A broken line costs that line alone. A quote that is never closed would otherwise swallow the good lines after it: so when
a record that spans lines cannot be parsed, its first line is given up and the others are read again by themselves.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from readings.checks import BAD_FIELD, SHORT_ROW

MAX_LINE_BYTES = 1 << 20
MAX_LINES_PER_RECORD = 50
MAX_RAW_CHARACTERS = 4096


class BadRecord(NamedTuple):
    """A line that is no record: its number from 1, the reason (see readings.checks), what is wrong, its text (cut when long)."""

    line: int
    reason: str
    problem: str
    raw: str


class Record(NamedTuple):
    """A record: the number of its first line from 1, and its fields."""

    line: int
    fields: list[str]


class _BadLine(Exception):
    """Raised through csv.reader by the feed."""

    reason = BAD_FIELD


class _CutLine(_BadLine):
    reason = SHORT_ROW


class Lines(Protocol):
    """What lines are read from."""

    def readline(self, limit: int, /) -> bytes:
        """One line, of ``limit`` bytes at most; nothing at the end."""

    def tell(self) -> int:
        """Where the next one begins."""


class CsvRecords:
    """An iterator over the records of a UTF-8 file that is open in binary mode, from its current position.

    ``position`` is the byte after the last record given, ``line`` the number of the next line: a later reader that starts
    there goes on exactly where this one stopped. Blank lines are passed over. Raises OSError when the file cannot be read.
    """

    def __init__(self, file: Lines, *, line: int = 1) -> None:
        self.position = file.tell()
        self.line = line
        self._file = file
        self._taken: list[bytes] = []
        self._again: deque[bytes] = deque()
        self._reader = csv.reader(_Feed(self), strict=True)

    def __iter__(self) -> Iterator[Record | BadRecord]:
        return self

    def __next__(self) -> Record | BadRecord:
        while True:
            self._taken.clear()
            try:
                fields = next(self._reader)
            except (csv.Error, UnicodeDecodeError, _BadLine) as error:
                return self._give_up_first_line(error)
            first_line = self.line
            self.position += sum(map(len, self._taken))
            self.line += len(self._taken)
            if fields:
                return Record(first_line, fields)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing was taken from the file beyond ``position``."""
        return not self._again

    def raw(self) -> str:
        """The text of the record given last, cut when long."""
        return _text(b"".join(self._taken))

    def _next_text(self) -> str:
        """The next line for csv.reader, which asks for more while a quote is open."""
        if len(self._taken) == MAX_LINES_PER_RECORD:
            raise _CutLine("a quote is opened and not closed")
        raw = self._again.popleft() if self._again else self._file.readline(MAX_LINE_BYTES)
        if not raw:
            if self._taken:
                raise _CutLine("a quote is opened and not closed before the file ends")
            raise StopIteration
        self._taken.append(raw)
        if len(raw) >= MAX_LINE_BYTES and not raw.endswith(b"\n"):
            raise _BadLine(f"the line is longer than {MAX_LINE_BYTES} bytes")
        if b"\0" in raw:
            raise _BadLine("holds a NUL character")
        return raw.decode("utf-8")

    def _give_up_first_line(self, error: Exception) -> BadRecord:
        first, *others = self._taken
        self._again.extendleft(reversed(others))
        line = self.line
        self.line += 1
        self.position += len(first)
        if len(first) >= MAX_LINE_BYTES and not first.endswith(b"\n"):
            self.position += self._skip_rest_of_line()
        reason = error.reason if isinstance(error, _BadLine) else BAD_FIELD
        problem = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        return BadRecord(line, reason, problem, _text(first))

    def _skip_rest_of_line(self) -> int:
        skipped = 0
        while piece := self._file.readline(MAX_LINE_BYTES):
            skipped += len(piece)
            if piece.endswith(b"\n"):
                break
        return skipped


class _Feed:
    """The lines as csv.reader pulls them. A generator would be finished by the first exception that passes through it."""

    def __init__(self, records: CsvRecords) -> None:
        self._records = records

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return self._records._next_text()


def _text(raw: bytes) -> str:
    return raw[: 4 * MAX_RAW_CHARACTERS].decode("utf-8", "replace").rstrip("\r\n")[:MAX_RAW_CHARACTERS]
