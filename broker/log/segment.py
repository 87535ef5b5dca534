"""A segment: one file of the log, records and nothing else from its first byte on.

    00000000000000000000.log   the records from the offset that its name tells
    00000000000000000000.idx   its index, once it is sealed (broker.log.segment)

Only the last segment is written to. A segment's offsets end where the next one's begin, so that what is missing at the
end of a damaged file is missed, too.
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

from broker.log import sidefile
from broker.log.dedup import ProducerRow
from broker.log.disk import Disk
from broker.log.scan import frame_starts, next_stretch

SPACING = 64 << 10


class Mark(NamedTuple):
    """A record's offset, its place in the segment and its time (Unix milliseconds)."""

    offset: int
    position: int
    timestamp_ms: int


class Marks:
    """Marks in rising order, in arrays: a 10 GiB log has 160,000 of them."""

    def __init__(self, rows: Sequence[tuple[int, int, int]] = ()) -> None:
        self._offsets = array("Q", [row[0] for row in rows])
        self._positions = array("Q", [row[1] for row in rows])
        self._timestamps = array("Q", [row[2] for row in rows])

    def __len__(self) -> int:
        return len(self._timestamps)

    def __getitem__(self, number: int) -> Mark:
        return Mark(self._offsets[number], self._positions[number], self._timestamps[number])

    def add(self, offset: int, start: int, positions: Sequence[int], timestamp_ms: int) -> None:
        """Marks what is due among new records: dense offsets from ``offset``, at ``positions`` counted from ``start``."""
        due = self._positions[-1] + SPACING if self._positions else 0
        number = bisect_left(positions, due - start)
        while number < len(positions):
            position = start + positions[number]
            # A reader in another thread looks for offsets: what belongs to one is there before it.
            self._timestamps.append(timestamp_ms)
            self._positions.append(position)
            self._offsets.append(offset + number)
            number = bisect_left(positions, position + SPACING - start)

    def before(self, offset: int) -> Mark | None:
        """The last mark at or before the offset."""
        number = bisect_right(self._offsets, offset)
        return self[number - 1] if number else None

    def rows(self) -> list[tuple[int, int, int]]:
        """All of them, to be saved."""
        return list(zip(self._offsets, self._positions, self._timestamps, strict=False))


class SegmentIndex(msgspec.Struct, forbid_unknown_fields=True):
    """What the index file of a sealed segment holds."""

    base: int
    next_offset: int
    size: int
    last_timestamp: int
    marks: list[tuple[int, int, int]]
    # Offsets, first and last, that were found damaged.
    gaps: list[tuple[int, int]]
    # The last state of every producer that has a record in the segment.
    producers: list[ProducerRow]


logger = logging.getLogger(__name__)

_NAME = re.compile(r"(\d{20})\.log")
_MOST_CURSORS = 256


class Gap(NamedTuple):
    """Offsets that cannot be read any more, both included. Reason: "retention" or "corrupt"."""

    first: int
    last: int
    reason: str


class Chunk(NamedTuple):
    """What a read gives: whole frames, or the gap that lies there, and the offset to read on from.

    Neither data nor gap: the end of the log.
    """

    data: bytes | memoryview
    next_offset: int
    gap: Gap | None


class OpenSegment:
    """A segment's bytes for as long as one reader looks at them."""

    def __init__(self, disk: Disk, fd: int, size: int) -> None:
        self.size = size
        self.disk = disk
        self._fd = fd

    def read(self, position: int, size: int) -> bytes:
        """The bytes at ``position``, never past the size."""
        return self.disk.read(self._fd, max(0, min(size, self.size - position)), position)


class Segment:
    """What is known of one segment file. Any thread may read; one thread appends to ``marks`` and ``size``."""

    def __init__(self, directory: Path, base: int, disk: Disk) -> None:
        self.base = base
        self.path = directory / f"{base:020d}.log"
        self.index_path = self.path.with_suffix(".idx")
        # The bytes that readers may see.
        self.size = 0
        self.marks = Marks()
        self.gaps: list[tuple[int, int]] = []
        self.disk = disk
        # Where readers will go on: offset -> position.
        self._cursors: dict[int, int] = {}

    @property
    def first_timestamp(self) -> int | None:
        """The time of its first record in Unix milliseconds, None when it has none."""
        return self.marks[0].timestamp_ms if self.marks else None

    @contextmanager
    def open(self, size: int | None = None) -> Iterator[OpenSegment]:
        """Its bytes, up to ``size`` where readers may not see that many yet. Raises OSError."""
        # Opened for each read: nothing to close when retention drops the segment under a reader.
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield OpenSegment(self.disk, fd, self.size if size is None else size)
        finally:
            os.close(fd)

    def read(self, offset: int, stop: int, most: int) -> Chunk:
        """The good frames from ``offset`` on, below ``stop``: at most ``most`` bytes, or one frame.

        Where the record is damaged: the gap up to the next good one, or to ``stop``. Raises OSError.
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
                    return Chunk(stretch.data, stretch.next_offset, None)
                # Still before the offset: past this stretch, or to where the offset begins in it.
                position, expected = stretch.end, stretch.next_offset
                if expected > offset:
                    position = stretch.position + frame_starts(stretch.data)[offset - stretch.offset]
                    expected = offset
        return self._gap(offset, stop - 1)

    def load_index(self, next_base: int) -> SegmentIndex | None:
        """The saved index, when there is one and it fits the file and the next segment."""
        index = sidefile.load(self.index_path, SegmentIndex)
        if index is None or index.base != self.base or index.next_offset > next_base:
            return None
        return index if index.size == self.path.stat().st_size else None

    def save_index(self, next_offset: int, last_timestamp: int, producers: list[ProducerRow]) -> None:
        """Saves the index; the segment is sealed. Without the file a later start reads the whole segment: no harm."""
        index = SegmentIndex(
            self.base, next_offset, self.size, last_timestamp, self.marks.rows(), list(self.gaps), producers
        )
        try:
            sidefile.save(self.disk, self.index_path, index)
        except OSError as error:
            logger.warning("the index %s is not saved: %s", self.index_path, error)

    def remove(self) -> None:
        """Deletes its files. Raises OSError."""
        self.index_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def note_gap(self, first: int, last: int) -> None:
        """Keeps in mind, and says once, that these offsets are damaged."""
        if not any(known <= first and last <= known_last for known, known_last in self.gaps):
            self.gaps.append((first, last))
            logger.error("damage in %s: offsets %d to %d cannot be read", self.path, first, last)

    def _gap(self, first: int, last: int) -> Chunk:
        self.note_gap(first, last)
        return Chunk(b"", last + 1, Gap(first, last, "corrupt"))

    def _locate(self, offset: int) -> tuple[int, int]:
        """A place to begin from: a position and the offset to expect there, at or before ``offset``."""
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
    """The directory's segments, oldest first. Raises OSError."""
    names = (_NAME.fullmatch(path.name) for path in directory.iterdir())
    return [Segment(directory, base, disk) for base in sorted(int(name[1]) for name in names if name)]
