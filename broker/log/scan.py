"""Walking a segment's bytes from record to record, past damage, without ever losing a good record.

A stretch is good records with dense offsets that lie one after the other. Where the bytes stop being that, the next
good record is searched by its literal head (broker.log.record says why no payload can forge one).
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple, Protocol

from broker.errors import CorruptRecord
from broker.log.record import (
    CHECKSUMS,
    CRC_END,
    CRC_START,
    HEAD,
    MAX_LENGTH,
    OFFSET_END,
    OVERHEAD,
    PREFIX_SIZE,
    decode_record,
)

# The length, the end of the checksum's name, its digits and the offset's, in one look.
_LOOK = Struct(">I20x2s3x8s11x16s")
_WINDOW = 1 << 20
_SEARCH_OVERLAP = PREFIX_SIZE + len(HEAD) - 1


class Source(Protocol):
    """Bytes of a known size that can be read at any place."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def read(self, position: int, size: int) -> bytes:
        """The bytes at ``position``, fewer than ``size`` only at the end."""
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
    """How far ``data`` holds whole good records numbered from ``expected`` on, below ``stop``.

    Returns the position after the last one and the offset that would follow.
    """
    position, last = 0, len(data) - OFFSET_END
    while expected < stop and position <= last:
        length, name, digits, offset = _LOOK.unpack_from(data, position)
        end = position + PREFIX_SIZE + length
        if end > len(data) or length <= OVERHEAD - PREFIX_SIZE:
            break
        checksum = CHECKSUMS.get(name)
        if checksum is None or b"%16d" % expected != offset:
            break
        crc = checksum(checksum(0, data[position : position + CRC_START]), data[position + CRC_END : end])
        if b"%08x" % crc != digits:
            break
        position = end
        expected += 1
    return position, expected


def next_stretch(source: Source, position: int, expected: int, stop: int, most: int) -> Stretch | None:
    """The first good stretch at or after ``position`` whose offsets are from ``expected`` on and below ``stop``.

    It has at most ``most`` bytes, or one record. Where it does not begin at ``position`` with ``expected``, what lies
    between is damaged. None: nothing good follows.
    """
    if expected >= stop:
        return None
    data = source.read(position, most)
    size, next_offset = good_records(data, expected, stop)
    if size:
        # A view: most reads end within a record, and a copy of so much is a fifth of the work.
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
    """Where each record of good ``data`` begins."""
    starts = []
    while position < len(data):
        starts.append(position)
        position += PREFIX_SIZE + int.from_bytes(data[position : position + PREFIX_SIZE], "big")
    return starts


def _frame_at(source: Source, position: int) -> bytes | None:
    """The good record that begins there, if one does."""
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


def _find_head(source: Source, position: int) -> int | None:
    """Where, from ``position`` on, the next thing begins that looks like a record."""
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
