"""Inspects a log's directory without a broker: what it holds, whether it is whole, and how to repair it.

Inspection changes nothing and may run beside a broker; what the broker is writing at that moment may then look torn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from broker.errors import LogUnusable
from broker.log.clock import Clock
from broker.log.disk import DirectoryLock, Disk
from broker.log.record import Record, decode_record
from broker.log.recovery import recover
from broker.log.scan import NO_STOP, frame_starts, stretches
from broker.log.segment import Segment, SegmentIndex, find_segments


@dataclass
class SegmentReport:
    """What a segment file holds. ``lost``: offsets, first and last, that cannot be read; ``torn``: the bytes after the
    last whole record."""

    path: Path
    first: int
    next_offset: int
    records: int = 0
    bytes: int = 0
    torn: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)
    index: str = ""  # what is wrong with the index file

    @property
    def whole(self) -> bool:
        """Whether nothing is lost or torn."""
        return not self.lost and not self.torn


def verify(directory: Path) -> Iterator[SegmentReport]:
    """Reads every record of every segment, oldest first. Raises LogUnusable if there is no log, OSError."""
    segments = _segments(directory)
    for number, segment in enumerate(segments):
        last = number + 1 == len(segments)
        stop = NO_STOP if last else segments[number + 1].base
        report = SegmentReport(segment.path, segment.base, segment.base)
        report.bytes = segment.path.stat().st_size
        end = 0
        with segment.open(report.bytes) as source:
            for stretch in stretches(source, end, report.next_offset, stop):
                if stretch.offset > report.next_offset:
                    report.lost.append((report.next_offset, stretch.offset - 1))
                report.records += stretch.next_offset - stretch.offset
                report.next_offset, end = stretch.next_offset, stretch.end
        if last:
            report.torn = report.bytes - end
        elif report.next_offset < stop:
            report.lost.append((report.next_offset, stop - 1))
            report.next_offset = stop
        if not last:
            report.index = _index_fault(segment, stop)
        yield report


def dump(directory: Path, first: int, last: int) -> Iterator[Record]:
    """Yields the readable records with offsets from ``first`` to ``last``. Raises LogUnusable, OSError."""
    segments = _segments(directory)
    for number, segment in enumerate(segments):
        stop = NO_STOP if number + 1 == len(segments) else segments[number + 1].base
        if stop <= first or segment.base > last:
            continue
        with segment.open(segment.path.stat().st_size) as source:
            for stretch in stretches(source, 0, segment.base, min(stop, last + 1)):
                starts = [*frame_starts(stretch.data), len(stretch.data)]
                for offset in range(max(stretch.offset, first), stretch.next_offset):
                    at = offset - stretch.offset
                    yield decode_record(stretch.data[starts[at] : starts[at + 1]])


def repair(directory: Path) -> list[SegmentReport]:
    """Leaves the directory as after a clean stop, and reports what it holds then.

    Does what a start would do: sets a torn tail aside and rebuilds the indexes from the records. No good record is
    touched; what is lost stays lost, as a gap. Raises LogLocked while a broker has the directory, LogUnusable if there is
    no log, OSError.
    """
    _segments(directory)
    lock = DirectoryLock(directory)
    try:
        for path in directory.glob("*.idx"):
            path.unlink()
        recover(directory, Disk(), Clock())
    finally:
        lock.release()
    return list(verify(directory))


def _segments(directory: Path) -> list[Segment]:
    try:
        segments = find_segments(directory, Disk())
    except (FileNotFoundError, NotADirectoryError):
        segments = []
    if not segments:
        raise LogUnusable(f"{directory} holds no log")
    return segments


def _index_fault(segment: Segment, next_base: int) -> str:
    if not segment.index_path.exists():
        return "missing"
    index: SegmentIndex | None = segment.load_index(next_base)
    return "damaged" if index is None else ""
