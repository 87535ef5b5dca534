"""The sparse index of a segment: where a record lies, about every 64 KiB.

A sealed segment has it in a file (``%020d.idx``) with what else a start needs to know of the segment without reading
it. It is a cache: missing or damaged, it is made again from the segment.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from broker.producers import ProducerRow

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
