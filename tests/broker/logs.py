"""What the tests of the log share: a disk that fails on request, a clock that stands still, short ways to append and read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import Histogram

from broker.log.clock import Clock
from broker.log.disk import Buffer, Disk
from broker.log.log import Entries, Gap, Log, LogConfig, RecordBatch
from broker.log.record import Record, decode_record
from broker.log.scan import frame_starts

PRODUCER = "00112233aabbccdd"
OTHER = "ffeeddccbbaa0099"


class StillClock(Clock):
    """Stands until it is moved; the wall clock may be set apart from the steady one."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self.wall_ms = wall_ms
        self.steady_s = 100.0
        super().__init__()

    def now_ms(self) -> int:
        return self.wall_ms

    def steady(self) -> float:
        return self.steady_s

    def pass_time(self, seconds: float) -> None:
        self.steady_s += seconds
        self.wall_ms += int(seconds * 1000)


class LazyDisk(Disk):
    """Syncs nothing: for tests that open hundreds of logs and pull no plug."""

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, directory: Path) -> None:
        pass


class FaultyDisk(Disk):
    """Fails as it is told: an errno per kind of call, a number of bytes that still fit, a size of the longest write."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.longest_write: int | None = None
        self.failing: dict[str, int] = {}
        self.syncs = 0

    def _maybe_fail(self, call: str) -> None:
        if call in self.failing:
            raise OSError(self.failing[call], os.strerror(self.failing[call]))

    def open(self, path: Path) -> int:
        self._maybe_fail("open")
        return super().open(path)

    def write(self, fd: int, pieces: Sequence[Buffer], position: int) -> int:
        self._maybe_fail("write")
        if self.longest_write is not None:
            pieces = [b"".join(pieces)[: self.longest_write]]
        if self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            pieces = [b"".join(pieces)[: self.room]]
            self.room -= len(pieces[0])
        return super().write(fd, pieces, position)

    def sync(self, fd: int) -> None:
        self._maybe_fail("sync")
        self.syncs += 1
        super().sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._maybe_fail("truncate")
        super().truncate(fd, size)

    def sync_directory(self, directory: Path) -> None:
        self._maybe_fail("sync_directory")
        super().sync_directory(directory)

    def replace(self, path: Path, data: bytes) -> None:
        self._maybe_fail("replace")
        super().replace(path, data)

    def free_bytes(self, directory: Path) -> int:
        self._maybe_fail("free_bytes")
        return super().free_bytes(directory)


@contextmanager
def opened(directory: Path, *, disk: Disk | None = None, clock: Clock | None = None, **config: Any) -> Iterator[Log]:
    """An open log, closed at the end; nothing is kept in memory unless asked, so that reads come from the disk."""
    log = Log.open(directory, LogConfig(**{"buffer_messages": 0, **config}), disk=disk, clock=clock)
    try:
        yield log
    finally:
        log.close()


def crash(log: Log) -> None:
    """Leaves the log as kill -9 does: no checkpoint, no commits, the lock free."""
    log._abandon()


def single(payload: bytes, producer: str = "", sequence: int = 0) -> Entries:
    """One message by itself."""
    return Entries([payload], producer, sequence)


def append(log: Log, *messages: bytes | Entries) -> list[Answer]:
    """Appends one group; every answer."""
    group = log.prepare([one if isinstance(one, Entries) else single(one) for one in messages])
    log.commit(group)
    log.finish(group)
    return answers_of(group)


class Answer(NamedTuple):
    """Where a message of a group lies, and whether it was there before."""

    offset: int
    duplicate: bool


def answers_of(group: RecordBatch) -> list[Answer]:
    """One for each message of a group, in order."""
    return [
        Answer(place.offset + number, place.duplicate)
        for places in group.places
        for place in places
        for number in range(place.messages)
    ]


def count_of(histogram: Histogram) -> float:
    """How many values a histogram has observed."""
    return next(one.value for family in histogram.collect() for one in family.samples if one.name.endswith("_count"))


def frames_of(group: RecordBatch) -> list[bytes]:
    """The frames of a group, one by one."""
    return [frame for block in group.blocks for frame in split(block.data)]


def split(data: bytes | memoryview) -> list[bytes]:
    """The frames in good data."""
    starts = [*frame_starts(data), len(data)]
    return [bytes(data[start:end]) for start, end in pairwise(starts)]


def read_all(log: Log, offset: int | None = None, most: int = 1 << 20) -> tuple[list[Record], list[Gap]]:
    """All records and gaps from an offset on, the log's oldest unless told."""
    records: list[Record] = []
    gaps: list[Gap] = []
    offset = log.oldest_offset if offset is None else offset
    while True:
        chunk = log.read(offset, most)
        if chunk.gap:
            assert not chunk.data
            assert chunk.gap.first == offset
            assert chunk.next_offset == chunk.gap.last + 1
            gaps.append(chunk.gap)
        elif not chunk.data:
            assert chunk.next_offset == offset == log.next_offset
            return records, gaps
        frames = [decode_record(frame) for frame in split(chunk.data)]
        assert [record.offset for record in frames] == list(range(offset, chunk.next_offset)) or chunk.gap
        records += frames
        offset = chunk.next_offset


def payloads(log: Log, offset: int | None = None) -> list[bytes]:
    """All payloads of a log without damage."""
    records, gaps = read_all(log, offset)
    assert gaps == []
    return [record.payload for record in records]


def segment_files(directory: Path) -> list[Path]:
    """The segment files, oldest first."""
    return sorted(directory.glob("*.log"))


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flips one bit of a file, in its place."""
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))
