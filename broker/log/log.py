"""The log: an append-only sequence of messages on disk, each with an offset from 0 on and no holes.

    directory/
      .lock                         held by the broker that has the directory
      format                        the layout's version
      00000000000000000000.log …    the segments (broker.log.segment) and their indexes
      checkpoint                    what is surely on the disk (broker.log.recovery)
      commits                       committed offsets (broker.log.offsets)
      *.torn-*                      ends of writes that never ended, set aside at a start

Appending takes three steps, so that an event loop never waits for the disk: ``prepare`` and ``finish`` run in the
loop's thread, ``commit`` between them in one writer thread, as do ``tick`` and ``probe``. Readers see a message when
its group is finished: as durable as the mode promises. Nothing here knows asyncio or sockets.
"""

from __future__ import annotations

import errno
import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

import msgspec

from broker.errors import BrokerError, DiskFull, LogFailed, LogUnusable, OffsetOutOfRange, ReadOnly
from broker.log import sidefile
from broker.log.batch import Entries, Group, build_group
from broker.log.cache import Tail
from broker.log.clock import Clock
from broker.log.dedup import FORGET_AFTER_MS
from broker.log.disk import Disk
from broker.log.lock import DirectoryLock
from broker.log.offsets import COMMITS_NAME, CommitStore
from broker.log.probe import check_lock, check_space, try_write
from broker.log.recovery import CHECKPOINT_NAME, Checkpoint, Recovered, recover
from broker.log.segment import Chunk, Gap, Segment
from broker.log.writer import SegmentWriter, write_error
from broker.server.histogram import Histogram

LAYOUT = 1
FORMAT_NAME = "format"


class _Format(msgspec.Struct):
    format: int


def check_layout(directory: Path, disk: Disk) -> None:
    """Marks a fresh directory. Raises LogUnusable for one of a newer layout, OSError when it cannot be marked."""
    path = directory / FORMAT_NAME
    found = sidefile.load(path, _Format)
    if found is None:
        sidefile.save(disk, path, _Format(LAYOUT))
    elif found.format > LAYOUT:
        raise LogUnusable(f"{directory} is of layout {found.format}; this broker knows layouts up to {LAYOUT}")


class Drop(NamedTuple):
    """What was deleted: the offsets from ``first`` up to ``next_offset``, ``bytes`` in ``segments`` files."""

    first: int
    next_offset: int
    bytes: int
    segments: int


def count_expired(segments: Sequence[Segment], most_bytes: int, oldest_ms: int, last_timestamp: int) -> int:
    """How many of the segments, oldest first, are to be deleted.

    A segment goes while all of them have more than ``most_bytes`` (0: no limit), and when its newest record is from
    before ``oldest_ms`` (Unix milliseconds; 0: no limit). ``last_timestamp`` is that of the log's newest record.
    """
    total = sum(segment.size for segment in segments)
    count = 0
    for segment, following in pairwise(segments):
        too_many = most_bytes and total > most_bytes
        # The next segment's first record is no older than this one's last. One without records was just begun.
        newest_ms = following.first_timestamp
        too_old = (last_timestamp if newest_ms is None else newest_ms) < oldest_ms
        if not (too_many or too_old):
            break
        total -= segment.size
        count += 1
    return count


logger = logging.getLogger(__name__)

__all__ = ["Chunk", "Entries", "Gap", "Group", "Log", "LogConfig", "LogStats"]

PROBE_BYTES = 8 << 20
CHECKPOINT_EVERY_S = 5.0
SYNC_EVERY_S = 1.0
MIB = 1 << 20


@dataclass(frozen=True)
class LogConfig:
    """How a log is kept. ``fsync``: before a group counts as committed, about once a second, or when the system likes.

    A segment is sealed at ``segment_bytes`` or ``segment_age_s``, whichever comes first; a group is never split.
    """

    segment_bytes: int = 64 * MIB
    segment_age_s: float = 3600.0
    fsync: Literal["always", "interval", "never"] = "always"
    # The newest messages that are kept in memory.
    buffer_messages: int = 10_000
    buffer_bytes: int = 2 * MIB
    # The oldest segments go while the log is larger, and when all in them is older; 0: no limit.
    retention_bytes: int = 0
    retention_age_s: float = 0.0
    # Less free space than this is bad health.
    free_space_reserve: int = 0


@dataclass(frozen=True)
class LogStats:
    """Figures of a log; counters since it was opened. ``bytes`` are those of the segments."""

    oldest_offset: int
    next_offset: int
    bytes: int
    segments: int
    messages: int
    groups: int
    failed_groups: int
    appended_bytes: int
    dropped_messages: int
    dropped_bytes: int
    dropped_segments: int
    clock_jumped: bool
    duplicates: int
    producers: int
    producer_gaps: int
    torn_bytes: int
    damaged_records: int
    fsyncs: Histogram


class Log:
    """One directory's log. ``open`` it; ``close`` it."""

    def __init__(
        self, directory: Path, config: LogConfig, disk: Disk, clock: Clock, lock: DirectoryLock, found: Recovered
    ) -> None:
        """Use ``open``."""
        self.directory = directory
        self.config = config
        self.recovery = found.report
        self.next_offset = found.next_offset
        self.commits = CommitStore(directory, disk, clock, found.next_offset)
        self._disk = disk
        self._clock = clock
        self._directory_lock = lock
        self._segments = tuple(found.segments)
        self._producers = found.producers
        self._last_timestamp = found.last_timestamp
        self._tail = Tail(config.buffer_messages, config.buffer_bytes)
        # Held while a group becomes visible, so that a checkpoint never sees half of one.
        self._state_lock = Lock()
        self._fsyncs = Histogram()
        self._writer = SegmentWriter(
            disk, clock, self._fsyncs, self._segments[-1].path, found.position, config.segment_bytes
        )
        # Found whole, but maybe not on the disk yet: it will be shown to readers.
        self._writer.dirty = True
        # A roll that failed: nothing may go to the old segment any more, the next one's file may be there.
        self._roll_due = False
        self._in_flight: Group | None = None
        self._failed: LogFailed | None = None
        self._closed = False
        # Why the last write that could be tried again failed, and its size; empty when it did not.
        self._trouble = ""
        self._refused_bytes = 0
        # Which side file could not be saved the last time, and why.
        self._side_troubles: dict[str, str] = {}
        self._last_checkpoint = self._last_sync = clock.steady()
        self._checkpointed = -1
        self._dropped = Drop(0, 0, 0, 0)
        self._appended_bytes = 0
        self._messages = self._groups = self._failed_groups = self._duplicates = self._producer_gaps = 0

    @classmethod
    def open(cls, directory: Path, config: LogConfig, *, disk: Disk | None = None, clock: Clock | None = None) -> Log:
        """Takes the directory (made where it is missing), recovers what is in it.

        Raises LogLocked when another broker has it, LogUnusable when it cannot hold a log, LogFailed when what was
        found cannot be made durable.
        """
        disk, clock = disk or Disk(), clock or Clock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = DirectoryLock(directory)
        except OSError as error:
            raise _unusable(directory, error) from error
        try:
            check_layout(directory, disk)
            log = cls(directory, config, disk, clock, lock, recover(directory, disk, clock))
        except OSError as error:
            lock.release()
            raise _unusable(directory, error) from error
        except BaseException:
            lock.release()
            raise
        try:
            log._checkpoint(clean=False)
        except BaseException:
            log._abandon()
            raise
        log._say_recovered()
        return log

    # The log as its readers see it

    @property
    def oldest_offset(self) -> int:
        """The first offset that is still there; equal to ``next_offset`` when nothing is."""
        return self._segments[0].base

    def read(self, offset: int, most: int) -> Chunk:
        """Whole good frames from ``offset`` on: at most ``most`` bytes, or one frame. Any thread may call it.

        What cannot be read any more comes as a gap, without data; read on from ``next_offset``. Raises
        OffsetOutOfRange past the end, OSError when the disk does not answer.
        """
        stop = self.next_offset
        if offset < 0 or offset > stop:
            raise OffsetOutOfRange(f"offset {offset} is not within 0 and {stop}, where the next message will be")
        if offset == stop:
            return Chunk(b"", stop, None)
        kept = self.read_kept(offset, most)
        if kept is not None:
            return kept
        segments = self._segments
        number = bisect_right(segments, offset, key=lambda segment: segment.base) - 1
        if number < 0:
            return Chunk(b"", segments[0].base, Gap(offset, segments[0].base - 1, "retention"))
        segment = segments[number]
        if number + 1 < len(segments):
            stop = segments[number + 1].base
        try:
            return segment.read(offset, stop, most)
        except FileNotFoundError:
            if segment not in self._segments:
                # Dropped meanwhile: look again, and find the gap.
                return self.read(offset, most)
            segment.note_gap(offset, stop - 1)
            return Chunk(b"", stop, Gap(offset, stop - 1, "corrupt"))

    def read_kept(self, offset: int, most: int) -> Chunk | None:
        """As ``read``, but only what is kept in memory; None when the file must be read. Never waits for the disk."""
        kept = self._tail.read(offset, self.next_offset, most)
        return None if kept is None else Chunk(*kept, None)

    # Appending

    def prepare(self, batch: Sequence[Entries]) -> Group:
        """Makes the next group: sorts out repetitions, gives offsets and times, lays out the frames. CPU only.

        One group at a time: ``finish`` or ``abort`` it before the next. Raises LogFailed, or ValueError for an entry
        that fits no record.
        """
        self._check_usable()
        if self._in_flight is not None:
            raise RuntimeError("a group is in flight already")
        timestamp_ms = max(self._last_timestamp, self._clock.now_ms())
        self._in_flight = build_group(batch, self.next_offset, timestamp_ms, self._producers)
        return self._in_flight

    def commit(self, group: Group) -> None:
        """Writes the group and makes it as durable as the mode says. System calls only.

        Raises DiskFull or ReadOnly with nothing of the group left in the log: ``abort`` it; a later one may succeed.
        Raises LogFailed when nobody can know what the disk has: stop, and recover by a restart.
        """
        self._check_usable()
        if not group.size:
            return
        try:
            if self._is_segment_full(group):
                self._roll(group.first_offset)
            self._writer.append([piece.data for piece in group.pieces])
            if self.config.fsync == "always":
                self._writer.sync()
            elif self.config.fsync == "interval":
                self._writer.start_sync()
        except LogFailed as error:
            self._failed = error
            raise
        except (DiskFull, ReadOnly) as error:
            self._trouble, self._refused_bytes = str(error), group.size
            raise
        self._trouble = ""

    def finish(self, group: Group) -> None:
        """Shows the committed group to readers; its entries may be answered."""
        self._in_flight = None
        if group.size:
            with self._state_lock:
                segment = self._segments[-1]
                for piece in group.pieces:
                    segment.marks.add(piece.first_offset, segment.size, piece.positions, group.timestamp_ms)
                    segment.size += len(piece.data)
                self._producers.merge(group.producers, group.timestamp_ms)
                self._last_timestamp = group.timestamp_ms
                self._tail.add(group.pieces)
                # Last: it is what makes the rest visible.
                self.next_offset = group.next_offset
        self._messages += group.next_offset - group.first_offset
        self._appended_bytes += group.size
        self._groups += 1
        self._duplicates += group.duplicates
        self._producer_gaps += group.producer_gaps

    def abort(self, group: Group) -> None:
        """Gives up a group that was not committed; its offsets go to the next one."""
        self._in_flight = None
        self._failed_groups += 1

    # Housekeeping, in the writer thread

    def tick(self) -> Drop | None:
        """Does what time asks for: fsync in the interval mode, the checkpoint, the commits, retention. Call it about
        each second; says what was dropped.

        Raises LogFailed when an fsync fails. That a side file cannot be written is only logged.
        """
        self._check_usable()
        now = self._clock.steady()
        try:
            if self.config.fsync == "interval" and now - self._last_sync >= SYNC_EVERY_S:
                self._last_sync = now
                self._writer.sync()
            if now - self._last_checkpoint >= CHECKPOINT_EVERY_S:
                self._last_checkpoint = now
                # A checkpoint needs an fsync, which "never" leaves to the system; a roll makes one all the same.
                if self.config.fsync != "never" and self._checkpointed != self.next_offset:
                    self._checkpoint(clean=False)
        except LogFailed as error:
            self._failed = error
            raise
        self._save_side_file(COMMITS_NAME, self.commits.save)
        return self._apply_retention()

    def probe(self) -> list[str]:
        """Tries whether the log could be written now; the reasons why not, none when it could.

        Once a write of the size that was refused goes through, the refusal is over, also when nobody publishes.
        """
        failed = f"the log has failed: {self._failed}" if self._failed is not None else ""
        unwritable = try_write(
            self.directory, self._disk, min(self._refused_bytes, PROBE_BYTES) if self._trouble else 1
        )
        if not unwritable:
            self._trouble = ""
        space = check_space(self.directory, self._disk, self.config.free_space_reserve)
        reasons = (failed, self._trouble, unwritable, space, check_lock(self._directory_lock))
        return [reason for reason in reasons if reason]

    @property
    def degraded(self) -> list[str]:
        """What is wrong with the log although it works: the damage it has found, a side file it cannot save."""
        reasons = [
            f"offsets {first} to {last} are damaged" for segment in self._segments for first, last in segment.gaps
        ]
        return reasons + [f"the {name} cannot be saved: {why}" for name, why in list(self._side_troubles.items())]

    def stats(self) -> LogStats:
        """Figures of now."""
        segments = self._segments
        return LogStats(
            oldest_offset=segments[0].base,
            next_offset=self.next_offset,
            bytes=sum(segment.size for segment in segments),
            segments=len(segments),
            messages=self._messages,
            groups=self._groups,
            failed_groups=self._failed_groups,
            appended_bytes=self._appended_bytes,
            dropped_messages=self._dropped.next_offset - self._dropped.first,
            dropped_bytes=self._dropped.bytes,
            dropped_segments=self._dropped.segments,
            clock_jumped=self._clock.jumped(),
            duplicates=self._duplicates,
            producers=len(self._producers),
            producer_gaps=self._producer_gaps,
            torn_bytes=self.recovery.torn_bytes,
            damaged_records=sum(last - first + 1 for segment in segments for first, last in segment.gaps),
            fsyncs=self._fsyncs,
        )

    def drop_before(self, offset: int) -> int:
        """Deletes the oldest segments that hold nothing from ``offset`` on, never the active one; says how many.

        Readers that are behind get a gap. Raises OSError when a file cannot be deleted.
        """
        count = max(0, bisect_right(self._segments, offset, key=lambda segment: segment.base) - 1)
        self._drop(count)
        return count

    def _apply_retention(self) -> Drop | None:
        config, segments = self.config, self._segments
        oldest_ms = 0
        # With a clock that was set by hours nobody knows what is old.
        if config.retention_age_s and not self._clock.jumped():
            oldest_ms = self._clock.now_ms() - int(config.retention_age_s * 1000)
        count = count_expired(segments, config.retention_bytes, oldest_ms, self._last_timestamp)
        if not count:
            return None
        try:
            return self._drop(count)
        except OSError as error:
            logger.warning("%s: a dropped segment stays: %s", self.directory, error)
            return None

    def _drop(self, count: int) -> Drop:
        """Deletes the ``count`` oldest segments. Raises OSError."""
        segments = self._segments
        dropped = Drop(segments[0].base, segments[count].base, sum(segment.size for segment in segments[:count]), count)
        so_far = self._dropped
        self._dropped = Drop(
            dropped.first - (so_far.next_offset - so_far.first),
            dropped.next_offset,
            so_far.bytes + dropped.bytes,
            so_far.segments + count,
        )
        # Out of sight first: a reader that finds the file gone looks again and finds the gap.
        self._segments = segments[count:]
        for segment in segments[:count]:
            segment.remove()
        if count:
            self._disk.sync_directory(self.directory)
            logger.info(
                "dropped %d segments: offsets %d to %d, %d bytes",
                count,
                dropped.first,
                dropped.next_offset - 1,
                dropped.bytes,
            )
        return dropped

    def close(self) -> None:
        """Makes all durable and leaves a clean checkpoint, unless the log has failed; gives the directory back.

        Raises LogFailed when the last fsync fails.
        """
        if self._closed:
            return
        try:
            if self._failed is None:
                self._writer.give_back()
                self._checkpoint(clean=True)
                self._save_side_file(COMMITS_NAME, self.commits.save)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        self._closed = True
        self._writer.close()
        self._directory_lock.release()

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise LogFailed(str(self._failed))
        if self._closed:
            raise LogFailed("the log is closed")

    def _is_segment_full(self, group: Group) -> bool:
        if self._roll_due:
            return True
        if not self._writer.position:
            return False
        if self._writer.position + group.size > self.config.segment_bytes:
            return True
        first_ms = self._segments[-1].first_timestamp
        return first_ms is not None and group.timestamp_ms - first_ms >= self.config.segment_age_s * 1000

    def _roll(self, base: int) -> None:
        """Seals the active segment and begins the next one at ``base``. The active one stays where that fails."""
        self._writer.sync()
        sealed, fresh = self._segments[-1], Segment(self.directory, base, self._disk)
        self._roll_due = True
        try:
            writer = SegmentWriter(self._disk, self._clock, self._fsyncs, fresh.path, 0, self.config.segment_bytes)
        except OSError as error:
            raise write_error(error, f"starting the segment {fresh.path}") from error
        try:
            self._disk.sync_directory(self.directory)
        except OSError as error:
            writer.close()
            raise write_error(error, f"starting the segment {fresh.path}") from error
        self._roll_due = False
        self._writer.give_back()
        self._writer.close()
        self._writer = writer
        with self._state_lock:
            producers = self._producers.rows(sealed.base)
        sealed.save_index(base, self._last_timestamp, producers)
        self._segments = (*self._segments, fresh)
        logger.info("segment %s is sealed, the log goes on in %s", sealed.path.name, fresh.path.name)
        self._checkpoint(clean=False)

    def _checkpoint(self, *, clean: bool) -> None:
        """Makes all that readers can see durable, then says so in the checkpoint."""
        with self._state_lock:
            if not self._clock.jumped():
                self._producers.forget_older_than(self._clock.now_ms() - FORGET_AFTER_MS)
            segment = self._segments[-1]
            checkpoint = Checkpoint(
                segment=segment.base,
                position=segment.size,
                next_offset=self.next_offset,
                last_timestamp=self._last_timestamp,
                clean=clean,
                marks=segment.marks.rows(),
                gaps=list(segment.gaps),
                producers=self._producers.rows(),
            )
        self._writer.sync()
        saved = self._save_side_file(CHECKPOINT_NAME, lambda: checkpoint.save(self._disk, self.directory))
        self._checkpointed = checkpoint.next_offset if saved else -1

    def _save_side_file(self, name: str, save: Callable[[], None]) -> bool:
        """Saves what only spares work; where it cannot, says so once and goes on."""
        try:
            save()
        except OSError as error:
            why = error.strerror or str(error)
            if self._side_troubles.get(name) != why:
                logger.warning("the %s cannot be saved, going on without: %s", name, why)
            self._side_troubles[name] = why
            return False
        self._side_troubles.pop(name, None)
        return True

    def _say_recovered(self) -> None:
        report, stats = self.recovery, self.stats()
        logger.info(
            "log %s: %d messages from offset %d on, %d bytes in %d segments; %s stop, read %d records (%d bytes) in %.2f s",
            self.directory,
            stats.next_offset - stats.oldest_offset,
            stats.oldest_offset,
            stats.bytes,
            stats.segments,
            "clean" if report.clean else "unclean",
            report.records,
            report.bytes,
            report.seconds,
        )


def _unusable(directory: Path, error: OSError) -> BrokerError:
    if error.errno in (errno.EIO,):
        return LogFailed(f"{directory}: {error.strerror}")
    return LogUnusable(f"{directory} cannot hold the log: {error.strerror or error}")
