"""Scanning a segment's bytes record by record, past damage, without losing a good record.

A stretch is a run of good records with dense offsets. Where a stretch ends early, the scan searches for the next good
record by its literal head (broker.log.record explains why no payload can forge one).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple, Protocol

from broker.errors import CorruptRecord
from broker.log.record import (
    CRC_END,
    CRC_START,
    HEAD,
    MAX_LENGTH,
    OFFSET_END,
    OVERHEAD,
    PREFIX_SIZE,
    crc_of,
    decode_record,
)

NO_STOP = 1 << 62
READ_SIZE = 1 << 20
# Reads the length, the checksum's digits and the offset's in one call.
_unpack_head = Struct(">I25x8s11x16s").unpack_from
_WINDOW = 1 << 20
_SEARCH_OVERLAP = PREFIX_SIZE + len(HEAD) - 1


class ByteSource(Protocol):
    """Bytes of a known size that can be read at any position."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def read(self, position: int, size: int) -> bytes:
        """Returns the bytes at ``position``; fewer than ``size`` only at the end."""
        ...


class Stretch(NamedTuple):
    """Whole good records: ``data`` lies at ``position`` and holds the offsets from ``offset`` up to ``next_offset``."""

    position: int
    offset: int
    next_offset: int
    data: bytes | memoryview

    @property
    def end(self) -> int:
        """The position after its last byte."""
        return self.position + len(self.data)


def good_records(data: bytes, expected: int, stop: int) -> tuple[int, int]:
    """Finds how far ``data`` holds whole good records, numbered from ``expected`` and below ``stop``.

    Returns the position after the last one and the offset that would follow.
    """
    position, last = 0, len(data) - OFFSET_END
    while expected < stop and position <= last:
        length, digits, offset = _unpack_head(data, position)
        end = position + PREFIX_SIZE + length
        if end > len(data) or length <= OVERHEAD - PREFIX_SIZE or b"%16d" % expected != offset:
            break
        if crc_of(data[position : position + CRC_START], data[position + CRC_END : end]) != digits:
            break
        position = end
        expected += 1
    return position, expected


def stretches(
    source: ByteSource, position: int, expected: int, stop: int = NO_STOP, most: int = READ_SIZE
) -> Iterator[Stretch]:
    """Yields every good stretch from ``position`` on, as ``next_stretch`` finds them."""
    while stretch := next_stretch(source, position, expected, stop, most):
        yield stretch
        position, expected = stretch.end, stretch.next_offset


def next_stretch(source: ByteSource, position: int, expected: int, stop: int, most: int) -> Stretch | None:
    """Returns the first good stretch at or after ``position`` with offsets from ``expected`` on and below ``stop``.

    It has at most ``most`` bytes, or one record. If it does not begin at ``position`` with ``expected``, the bytes in
    between are damaged. None: nothing good follows.
    """
    if expected >= stop:
        return None
    data = source.read(position, most)
    size, next_offset = good_records(data, expected, stop)
    if size:
        # A view: most reads end within a record, and copying that much would be a fifth of the work.
        return Stretch(position, expected, next_offset, data if size == len(data) else memoryview(data)[:size])
    at: int | None = position
    while at is not None:
        frame = _frame_at(source, at)
        if frame is not None:
            offset = decode_record(frame).offset
            if expected <= offset < stop:
                return Stretch(at, offset, offset + 1, frame)
        at = _find_head(source, at + 1)
    return None


def frame_starts(data: bytes | memoryview, position: int = 0) -> list[int]:
    """Returns where each record of good ``data`` begins."""
    starts = []
    while position < len(data):
        starts.append(position)
        position += PREFIX_SIZE + int.from_bytes(data[position : position + PREFIX_SIZE], "big")
    return starts


def _frame_at(source: ByteSource, position: int) -> bytes | None:
    """Returns the good record that begins at ``position``, if one does."""
    head = source.read(position, CRC_START)
    length = int.from_bytes(head[:PREFIX_SIZE], "big")
    if not head.startswith(HEAD, PREFIX_SIZE) or length > MAX_LENGTH or position + PREFIX_SIZE + length > source.size:
        return None
    frame = source.read(position, PREFIX_SIZE + length)
    try:
        decode_record(frame)
    except CorruptRecord:
        return None
    return frame


def _find_head(source: ByteSource, position: int) -> int | None:
    """Returns the first position, from ``position`` on, where something looks like a record."""
    while position < source.size:
        data = source.read(position, _WINDOW)
        found = data.find(HEAD, PREFIX_SIZE)
        while found >= 0:
            if data[found - PREFIX_SIZE] <= MAX_LENGTH >> 24:
                return position + found - PREFIX_SIZE
            found = data.find(HEAD, found + 1)
        if len(data) <= _SEARCH_OVERLAP:
            return None
        position += len(data) - _SEARCH_OVERLAP
    return None
