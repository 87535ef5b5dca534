"""A log's directory looked at without a broker: what is in it, whether it is whole, and putting it right.

Looking changes nothing and may be done while a broker runs; what the broker is just writing may then look torn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from broker.errors import LogUnusable
from broker.log.clock import Clock
from broker.log.disk import Disk
from broker.log.lock import DirectoryLock
from broker.log.record import Record, decode_record
from broker.log.recovery import recover
from broker.log.scan import frame_starts, next_stretch
from broker.log.segment import Segment, SegmentIndex, find_segments

_READ_SIZE = 1 << 20
_NO_END = 1 << 62


@dataclass
class SegmentReport:
    """What a segment file holds. ``lost`` are offsets, first and last, that cannot be read; ``torn`` the bytes after the
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
        """Whether all that should be there is."""
        return not self.lost and not self.torn


def verify(directory: Path) -> Iterator[SegmentReport]:
    """Reads every record of every segment, oldest first. Raises LogUnusable where there is no log, OSError."""
    segments = _segments(directory)
    for number, segment in enumerate(segments):
        last = number + 1 == len(segments)
        stop = _NO_END if last else segments[number + 1].base
        report = SegmentReport(segment.path, segment.base, segment.base)
        report.bytes = segment.path.stat().st_size
        end = 0
        with segment.open(report.bytes) as source:
            while stretch := next_stretch(source, end, report.next_offset, stop, _READ_SIZE):
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
    """The records that can be read with offsets from ``first`` to ``last``. Raises LogUnusable, OSError."""
    segments = _segments(directory)
    for number, segment in enumerate(segments):
        stop = _NO_END if number + 1 == len(segments) else segments[number + 1].base
        if stop <= first or segment.base > last:
            continue
        position, expected = 0, segment.base
        with segment.open(segment.path.stat().st_size) as source:
            while stretch := next_stretch(source, position, expected, min(stop, last + 1), _READ_SIZE):
                starts = [*frame_starts(stretch.data), len(stretch.data)]
                for offset in range(max(stretch.offset, first), stretch.next_offset):
                    at = offset - stretch.offset
                    yield decode_record(stretch.data[starts[at] : starts[at + 1]])
                position, expected = stretch.end, stretch.next_offset


def repair(directory: Path) -> list[SegmentReport]:
    """Makes the directory one that a broker starts on as if it had been stopped in order, and says what it holds then.

    What a start does by itself is done now: a torn tail is set aside in a file of its own. Indexes and the checkpoint are
    made again from the records. No good record is touched; what is lost stays lost, and told as a gap.
    Raises LogLocked while a broker has the directory, LogUnusable where there is no log, OSError.
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
