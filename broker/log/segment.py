"""A segment: one file of the log, which holds records and nothing else.

    00000000000000000000.log   the records, beginning with the offset in the name
    00000000000000000000.idx   the segment's index, once it is sealed

Only the last segment is written to. A segment's offsets end where the next one's begin, so that records missing at the
end of a damaged file are noticed too.
"""

from __future__ import annotations

import logging
import os
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from broker.log.dedup import ProducerRow
from broker.log.disk import Disk, load_side_file, save_side_file
from broker.log.record import Gap
from broker.log.scan import frame_starts, next_stretch

SPACING = 64 << 10


class Mark(NamedTuple):
    """A record's offset, its position in the segment and its time (Unix milliseconds)."""

    offset: int
    position: int
    timestamp_ms: int


class Marks:
    """Marks in rising order, kept in arrays: a 10 GiB log has 160,000 of them."""

    def __init__(self, rows: Sequence[tuple[int, int, int]] = ()) -> None:
        self._offsets = array("Q", [row[0] for row in rows])
        self._positions = array("Q", [row[1] for row in rows])
        self._timestamps = array("Q", [row[2] for row in rows])

    def __len__(self) -> int:
        return len(self._timestamps)

    def __getitem__(self, number: int) -> Mark:
        return Mark(self._offsets[number], self._positions[number], self._timestamps[number])

    def add(self, offset: int, start: int, positions: Sequence[int], timestamp_ms: int) -> None:
        """Adds the marks due among new records: dense offsets from ``offset``, at ``positions`` relative to ``start``."""
        due = self._positions[-1] + SPACING if self._positions else 0
        number = bisect_left(positions, due - start)
        while number < len(positions):
            position = start + positions[number]
            # The offset goes last: a reader in another thread searches the offsets and needs the rest to be there.
            self._timestamps.append(timestamp_ms)
            self._positions.append(position)
            self._offsets.append(offset + number)
            number = bisect_left(positions, position + SPACING - start)

    def before(self, offset: int) -> Mark | None:
        """Returns the last mark at or before the offset."""
        number = bisect_right(self._offsets, offset)
        return self[number - 1] if number else None

    def rows(self) -> list[tuple[int, int, int]]:
        """Returns all marks as they are saved."""
        return list(zip(self._offsets, self._positions, self._timestamps, strict=False))


class SegmentIndex(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a sealed segment's index file."""

    base: int
    next_offset: int
    size: int
    last_timestamp: int
    marks: list[tuple[int, int, int]]
    # Damaged offsets, first and last.
    gaps: list[tuple[int, int]]
    # The last state of every producer that has a record in the segment.
    producers: list[ProducerRow]


logger = logging.getLogger(__name__)

_NAME = re.compile(r"(\d{20})\.log")
_MOST_CURSORS = 256


class LogRead(NamedTuple):
    """The result of a read: whole frames, or the gap at that offset, and the offset to continue from.

    Neither data nor a gap means the end of the log.
    """

    data: bytes | memoryview
    next_offset: int
    gap: Gap | None


class OpenSegment:
    """A segment's bytes while one reader has the file open."""

    def __init__(self, disk: Disk, fd: int, size: int) -> None:
        self.size = size
        self.disk = disk
        self._fd = fd

    def read(self, position: int, size: int) -> bytes:
        """Returns the bytes at ``position``, never past the size."""
        return self.disk.read(self._fd, max(0, min(size, self.size - position)), position)


class Segment:
    """One segment file. Any thread may read; one thread appends to ``marks`` and ``size``."""

    def __init__(self, directory: Path, base: int, disk: Disk) -> None:
        self.base = base
        self.path = directory / f"{base:020d}.log"
        self.index_path = self.path.with_suffix(".idx")
        # The bytes that readers may see.
        self.size = 0
        self.marks = Marks()
        self.gaps: list[tuple[int, int]] = []
        self.disk = disk
        # Where readers will continue: offset -> position.
        self._cursors: dict[int, int] = {}

    @property
    def first_timestamp(self) -> int | None:
        """The time of its first record in Unix milliseconds, or None if it has no record."""
        return self.marks[0].timestamp_ms if self.marks else None

    @contextmanager
    def open(self, size: int | None = None) -> Iterator[OpenSegment]:
        """Opens the file for reading, up to ``size`` bytes (default: those readers may see). Raises OSError."""
        # Opened for each read, so that nothing stays open when retention drops the segment under a reader.
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield OpenSegment(self.disk, fd, self.size if size is None else size)
        finally:
            os.close(fd)

    def read(self, offset: int, stop: int, most: int) -> LogRead:
        """Reads good frames from ``offset`` on, below ``stop``: at most ``most`` bytes, or one frame.

        If the record at ``offset`` is damaged, returns the gap up to the next good one or to ``stop``. Raises OSError.
        """
        with self.open() as source:
            position, expected = self._locate(offset)
            while stretch := next_stretch(
                source, position, expected, stop, most if expected == offset else max(most, SPACING)
            ):
                if stretch.offset > offset:
                    self._remember(stretch.offset, stretch.position)
                    return self._gap(offset, stretch.offset - 1)
                if stretch.offset == offset:
                    self._remember(stretch.next_offset, stretch.end)
                    return LogRead(stretch.data, stretch.next_offset, None)
                # Still before the offset: skip this stretch, or go to where the offset begins in it.
                position, expected = stretch.end, stretch.next_offset
                if expected > offset:
                    position = stretch.position + frame_starts(stretch.data)[offset - stretch.offset]
                    expected = offset
        return self._gap(offset, stop - 1)

    def load_index(self, next_base: int) -> SegmentIndex | None:
        """Returns the saved index if it fits the file and the next segment, else None."""
        index = load_side_file(self.index_path, SegmentIndex)
        if index is None or index.base != self.base or index.next_offset > next_base:
            return None
        return index if index.size == self.path.stat().st_size else None

    def save_index(self, next_offset: int, last_timestamp: int, producers: list[ProducerRow]) -> None:
        """Saves the index of a sealed segment. Without it, a later start reads the whole segment, which does no harm."""
        index = SegmentIndex(
            self.base, next_offset, self.size, last_timestamp, self.marks.rows(), list(self.gaps), producers
        )
        try:
            save_side_file(self.disk, self.index_path, index)
        except OSError as error:
            logger.warning("the index %s could not be saved: %s", self.index_path, error)

    def remove(self) -> None:
        """Deletes its files. Raises OSError."""
        self.index_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def note_gap(self, first: int, last: int) -> None:
        """Records that these offsets are damaged, and logs it once."""
        if not any(known <= first and last <= known_last for known, known_last in self.gaps):
            self.gaps.append((first, last))
            logger.error("damage in %s: offsets %d to %d cannot be read", self.path, first, last)

    def _gap(self, first: int, last: int) -> LogRead:
        self.note_gap(first, last)
        return LogRead(b"", last + 1, Gap(first, last, "corrupt"))

    def _locate(self, offset: int) -> tuple[int, int]:
        """Returns a position to start from, at or before ``offset``, and the offset to expect there."""
        position = self._cursors.get(offset)
        if position is not None:
            return position, offset
        mark = self.marks.before(offset)
        return (mark.position, mark.offset) if mark else (0, self.base)

    def _remember(self, offset: int, position: int) -> None:
        if len(self._cursors) >= _MOST_CURSORS:
            self._cursors.clear()
        self._cursors[offset] = position


def find_segments(directory: Path, disk: Disk) -> list[Segment]:
    """Returns the directory's segments, oldest first. Raises OSError."""
    names = (_NAME.fullmatch(path.name) for path in directory.iterdir())
    return [Segment(directory, base, disk) for base in sorted(int(name[1]) for name in names if name)]
