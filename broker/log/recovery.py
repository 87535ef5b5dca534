"""Recovery: what a log does at a start to find out what it holds.

Recovery does not read again what the checkpoint vouches for. It checks every record after that:

- Broken bytes at the very end, with nothing good after them, are a torn tail: a write that never ended and was never
  answered. Recovery moves them to a file of their own and cuts the log back to its last whole record.
- Broken bytes before anything good, or below the checkpoint, are damage. They stay, the good records around them are
  served, and the lost offsets are known and reported.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from broker.log.clock import Clock
from broker.log.dedup import ProducerRow, ProducerStates
from broker.log.disk import Disk, load_side_file, save_side_file
from broker.log.record import (
    NO_PRODUCER,
    PRODUCER_END,
    PRODUCER_START,
    SEQUENCE_END,
    SEQUENCE_START,
    TIMESTAMP_END,
    TIMESTAMP_START,
)
from broker.log.scan import Stretch, frame_starts, stretches
from broker.log.segment import Marks, Segment, find_segments

CHECKPOINT_NAME = "checkpoint"


class Checkpoint(msgspec.Struct, forbid_unknown_fields=True):
    """``segment`` (its first offset) is on the disk up to ``position``, where ``next_offset`` would begin.

    ``clean``: nothing was written after it.
    """

    segment: int
    position: int
    next_offset: int
    last_timestamp: int
    clean: bool
    # The segment's, as its index holds them once it is sealed.
    marks: list[tuple[int, int, int]]
    gaps: list[tuple[int, int]]
    # All producers, least recently heard first.
    producers: list[ProducerRow]

    @classmethod
    def load(cls, directory: Path) -> Checkpoint | None:
        """Returns the directory's checkpoint, or None if there is none that can be trusted."""
        return load_side_file(directory / CHECKPOINT_NAME, cls)

    def save(self, disk: Disk, directory: Path) -> None:
        """Replaces the last checkpoint. Raises OSError; the last one then stays."""
        save_side_file(disk, directory / CHECKPOINT_NAME, self)


logger = logging.getLogger(__name__)

_NO_PRODUCER = NO_PRODUCER.encode()
_MOST_TORN_FILES = 20


@dataclass
class Recovery:
    """What recovery read and found."""

    clean: bool = False
    # Read and checked, in segments without an index or after the checkpoint.
    records: int = 0
    bytes: int = 0
    seconds: float = 0.0
    torn_bytes: int = 0
    indexes_rebuilt: int = 0
    # Offsets, first and last, lost to damage.
    damage: list[tuple[int, int]] = field(default_factory=list)


class Recovered:
    """The state from which a log continues. ``position`` is where the last segment's next record goes."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.position = 0
        self.next_offset = 0
        self.last_timestamp = 0
        self.producers = ProducerStates()
        self.report = Recovery()


def recover(directory: Path, disk: Disk, clock: Clock) -> Recovered:
    """Reads what must be read and cuts off a torn tail. Raises OSError when the disk refuses."""
    started = time.monotonic()
    checkpoint = Checkpoint.load(directory)
    state = Recovered()
    state.segments = find_segments(directory, disk)
    if checkpoint:
        state.producers = ProducerStates(checkpoint.producers)
        state.last_timestamp = checkpoint.last_timestamp
    # A directory without a log counts as stopped cleanly.
    state.report.clean = checkpoint.clean if checkpoint else not state.segments
    if not state.segments:
        state.segments = [Segment(directory, checkpoint.next_offset if checkpoint else 0, disk)]
        os.close(disk.open(state.segments[0].path))
        disk.sync_directory(directory)
    for segment, following in zip(state.segments, state.segments[1:], strict=False):
        _recover_sealed(segment, following.base, checkpoint, state)
    _recover_last(state.segments[-1], checkpoint, state, clock)
    state.report.seconds = time.monotonic() - started
    state.report.damage = [gap for segment in state.segments for gap in segment.gaps]
    return state


def _recover_sealed(segment: Segment, next_base: int, checkpoint: Checkpoint | None, state: Recovered) -> None:
    """Takes over what the index says, or reads the segment and rebuilds the index."""
    index = segment.load_index(next_base)
    if index is not None:
        segment.size = index.size
        segment.marks = Marks(index.marks)
        segment.gaps = list(index.gaps)
        # The checkpoint's producers cover every segment before its own.
        if checkpoint is None or checkpoint.segment <= segment.base:
            state.producers.restore(index.producers)
        state.last_timestamp = max(state.last_timestamp, index.last_timestamp)
        return
    size = segment.path.stat().st_size
    producers = ProducerStates()
    scan = _SegmentScan(segment, 0, segment.base, size, state, producers)
    state.producers.restore(producers.rows())
    if scan.next_offset < next_base:
        segment.note_gap(scan.next_offset, next_base - 1)
    segment.size = size
    state.report.indexes_rebuilt += 1
    segment.save_index(scan.next_offset, scan.last_timestamp, producers.rows())


def _recover_last(segment: Segment, checkpoint: Checkpoint | None, state: Recovered, clock: Clock) -> None:
    """Reads the active segment from the checkpoint on and sets a torn tail aside."""
    size = segment.path.stat().st_size
    start, expected = 0, segment.base
    keep = 0
    if checkpoint and checkpoint.segment == segment.base:
        segment.gaps = list(checkpoint.gaps)
        keep = min(checkpoint.position, size)
        if checkpoint.position <= size:
            start, expected = checkpoint.position, checkpoint.next_offset
            segment.marks = Marks(checkpoint.marks)
    scan = _SegmentScan(segment, start, expected, size, state, state.producers)
    state.position = size
    if scan.end < size:
        torn_from = max(scan.end, keep)
        if torn_from < size and _set_aside(segment, torn_from, size, clock):
            state.report.torn_bytes = size - torn_from
            state.position = torn_from
    segment.size = state.position
    state.next_offset = scan.next_offset
    if checkpoint and checkpoint.next_offset > scan.next_offset:
        segment.note_gap(scan.next_offset, checkpoint.next_offset - 1)
        state.next_offset = checkpoint.next_offset


class _SegmentScan:
    """Reads a segment from a position on for its marks, gaps, times and producers; ``end`` is where good records end."""

    def __init__(
        self, segment: Segment, start: int, expected: int, size: int, state: Recovered, producers: ProducerStates
    ) -> None:
        self.end = start
        self.next_offset = expected
        self.last_timestamp = 0
        self._segment = segment
        self._report = state.report
        self._producers = producers
        with segment.open(size) as source:
            for stretch in stretches(source, start, expected):
                self._take(stretch)
        state.last_timestamp = max(state.last_timestamp, self.last_timestamp)

    def _take(self, stretch: Stretch) -> None:
        if stretch.offset > self.next_offset:
            self._segment.note_gap(self.next_offset, stretch.offset - 1)
        data, positions = bytes(stretch.data), frame_starts(stretch.data)
        for offset, position in enumerate(positions, stretch.offset):
            producer = data[position + PRODUCER_START : position + PRODUCER_END]
            timestamp_ms = int(data[position + TIMESTAMP_START : position + TIMESTAMP_END])
            if producer != _NO_PRODUCER:
                sequence = int(data[position + SEQUENCE_START : position + SEQUENCE_END])
                self._producers.learn(producer.decode(), sequence, offset, timestamp_ms)
            self.last_timestamp = timestamp_ms
        first_ms = int(data[TIMESTAMP_START:TIMESTAMP_END])
        self._segment.marks.add(stretch.offset, stretch.position, positions, first_ms)
        self.end, self.next_offset = stretch.end, stretch.next_offset
        self._report.records += len(positions)
        self._report.bytes += len(data)


def _set_aside(segment: Segment, start: int, size: int, clock: Clock) -> bool:
    """Moves a torn tail to a file of its own. If that file cannot be written, the tail stays: readers skip it."""
    name = f"{segment.base:020d}.torn-{clock.now_ms()}"
    try:
        with segment.open(size) as source:
            segment.disk.replace(segment.path.with_name(name), source.read(start, size - start))
        fd = segment.disk.open(segment.path)
        try:
            segment.disk.truncate(fd, start)
        finally:
            os.close(fd)
    except OSError as error:
        logger.warning("a torn tail of %d bytes stays in %s: %s", size - start, segment.path, error)
        return False
    logger.warning(
        "torn tail: the %d bytes after position %d of %s are not a whole record; moved to %s",
        size - start,
        start,
        segment.path,
        name,
    )
    old_files = sorted(segment.path.parent.glob("*.torn-*"), key=lambda path: path.name.partition("-")[2])
    for old in old_files[:-_MOST_TORN_FILES]:
        old.unlink()
    return True
