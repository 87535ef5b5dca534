"""The log: an append-only sequence of messages on disk. Offsets count from 0, without holes.

    directory/
      .lock                         held by the broker that has the directory
      format                        the layout's version
      00000000000000000000.log …    the segments (broker.log.segment) and their indexes
      checkpoint                    what is certainly on the disk (broker.log.recovery)
      commits                       committed offsets (broker.log.offsets)
      identity                      tells a log from another (broker.log.identity)
      *.torn-*                      torn tails: unfinished writes, set aside at a start

Appending takes three steps, so that an event loop never waits for the disk: ``prepare`` and ``finish`` run in the loop's
thread; ``commit`` runs between them in one writer thread, as do ``tick`` and ``probe``. Readers see a message once its
batch is finished, and so as durable as the fsync mode promises. This module knows neither asyncio nor sockets.
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
from prometheus_client import Histogram

from broker.errors import WRITE_REFUSED, BrokerError, CorruptRecord, LogFailed, LogUnusable, OffsetOutOfRange
from broker.log.batch import Entries, RecordBatch, build_batch
from broker.log.cache import RecentMessages
from broker.log.clock import Clock
from broker.log.dedup import FORGET_AFTER_MS, UNKNOWN_OFFSET
from broker.log.disk import (
    DirectoryLock,
    Disk,
    load_side_file,
    probe_lock,
    probe_space,
    probe_write,
    save_side_file,
)
from broker.log.identity import IDENTITY_NAME, LogIdentity
from broker.log.offsets import COMMITS_NAME, CommittedOffsets
from broker.log.record import CRC_END, CRC_START, Gap, decode_record, payload_checksum
from broker.log.recovery import CHECKPOINT_NAME, Checkpoint, Recovered, recover
from broker.log.segment import LogRead, Segment
from broker.log.writer import SegmentWriter, write_error

LAYOUT = 2
FORMAT_NAME = "format"


class _Format(msgspec.Struct):
    format: int


def check_layout(directory: Path, disk: Disk) -> None:
    """Marks a fresh directory. Raises LogUnusable for a directory of another layout, OSError if it cannot be marked."""
    path = directory / FORMAT_NAME
    found = load_side_file(path, _Format)
    if found is None:
        save_side_file(disk, path, _Format(LAYOUT))
    elif found.format != LAYOUT:
        raise LogUnusable(
            f"{directory} has layout {found.format}, this broker reads layout {LAYOUT}: let subscribers read it with the "
            "version that wrote it, then move it away"
        )


class Drop(NamedTuple):
    """What was deleted: offsets from ``first`` up to ``next_offset``, ``bytes`` in ``segments`` files."""

    first: int
    next_offset: int
    bytes: int
    segments: int


def count_expired(segments: Sequence[Segment], most_bytes: int, oldest_ms: int, last_timestamp: int) -> int:
    """Returns how many of the segments, oldest first, have expired.

    A segment expires while all of them together exceed ``most_bytes`` (0: no limit), or when its newest record is older
    than ``oldest_ms`` (Unix milliseconds; 0: no limit). ``last_timestamp`` is that of the log's newest record.
    """
    total = sum(segment.size for segment in segments)
    count = 0
    for segment, following in pairwise(segments):
        too_many = most_bytes and total > most_bytes
        # The next segment's first record is no older than this one's last. A segment without records has just begun.
        newest_ms = following.first_timestamp
        too_old = (last_timestamp if newest_ms is None else newest_ms) < oldest_ms
        if not (too_many or too_old):
            break
        total -= segment.size
        count += 1
    return count


logger = logging.getLogger(__name__)

__all__ = ["Entries", "Gap", "Log", "LogConfig", "LogRead", "LogStats", "RecordBatch"]

PROBE_BYTES = 8 << 20
MOST_CHECKSUMS = 4096
FSYNC_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
CHECKPOINT_EVERY_S = 5.0
SYNC_EVERY_S = 1.0
MIB = 1 << 20


@dataclass(frozen=True)
class LogConfig:
    """Settings of a log. ``fsync``: before a batch counts as committed, about once a second, or left to the system.

    A segment is sealed at ``segment_bytes`` or ``segment_age_s``, whichever comes first; a batch is never split.
    """

    segment_bytes: int = 64 * MIB
    segment_age_s: float = 3600.0
    fsync: Literal["always", "interval", "never"] = "always"
    # The newest messages, cached in memory.
    buffer_messages: int = 10_000
    buffer_bytes: int = 2 * MIB
    # The oldest segments are dropped while the log is larger, and when all their records are older; 0: no limit.
    retention_bytes: int = 0
    retention_age_s: float = 0.0
    # Less free space than this makes the broker unhealthy.
    free_space_reserve: int = 0


@dataclass(frozen=True)
class LogStats:
    """A log's figures; counters count since it was opened. ``bytes`` is the size of all segments."""

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
    """The log in one directory. Open it with ``Log.open``, and ``close`` it."""

    def __init__(
        self, directory: Path, config: LogConfig, disk: Disk, clock: Clock, lock: DirectoryLock, found: Recovered
    ) -> None:
        """Use ``Log.open``."""
        self.directory = directory
        self.config = config
        self.recovery = found.report
        self.next_offset = found.next_offset
        self.identity = LogIdentity(directory, disk)
        self.commits = CommittedOffsets(directory, disk, clock, found.next_offset)
        self._disk = disk
        self._clock = clock
        self._directory_lock = lock
        self._segments = tuple(found.segments)
        self._producers = found.producers
        self._last_timestamp = found.last_timestamp
        self._recent = RecentMessages(config.buffer_messages, config.buffer_bytes)
        # Held while a batch becomes visible, so that a checkpoint never sees half a batch.
        self._state_lock = Lock()
        self._fsyncs = Histogram(
            "broker_fsync_seconds", "Time an fsync of the log takes", buckets=FSYNC_BOUNDS, registry=None
        )
        self._writer = SegmentWriter(
            disk, clock, self._fsyncs, self._segments[-1].path, found.position, config.segment_bytes
        )
        # What recovery found may not be on the disk yet, and readers will see it.
        self._writer.dirty = True
        # A roll failed: nothing more may go to the old segment, since the next one's file may exist.
        self._roll_due = False
        # Of payloads that were published again, so that nobody can have a large record read over and over.
        self._checksums: dict[int, str] = {}
        self._in_flight: RecordBatch | None = None
        self._failed: LogFailed | None = None
        self._closed = False
        # Why the last refused write failed, and its size; empty once a write succeeds.
        self._trouble = ""
        self._refused_bytes = 0
        # Side files that could not be saved the last time, and why.
        self._side_troubles: dict[str, str] = {}
        self._last_checkpoint = self._last_sync = clock.steady()
        self._checkpointed = -1
        self._dropped = Drop(0, 0, 0, 0)
        self._appended_bytes = 0
        self._messages = self._groups = self._failed_groups = self._duplicates = self._producer_gaps = 0

    @classmethod
    def open(cls, directory: Path, config: LogConfig, *, disk: Disk | None = None, clock: Clock | None = None) -> Log:
        """Locks the directory, creating it if needed, and recovers what it holds.

        Raises LogLocked if another broker has it, LogUnusable if it cannot hold a log, LogFailed if the recovered records
        cannot be made durable.
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
            log._save_side_file(IDENTITY_NAME, log.identity.save)
        except BaseException:
            log._abandon()
            raise
        log._report_recovery()
        return log

    # Reading

    @property
    def oldest_offset(self) -> int:
        """The first offset still in the log; equal to ``next_offset`` if the log is empty."""
        return self._segments[0].base

    def read(self, offset: int, most: int) -> LogRead:
        """Reads whole good frames from ``offset`` on: at most ``most`` bytes, or one frame. Any thread may call it.

        Offsets that can no longer be read come as a gap, without data; continue from ``next_offset``. Raises
        OffsetOutOfRange past the end, OSError if the disk fails.
        """
        stop = self.next_offset
        if offset < 0 or offset > stop:
            raise OffsetOutOfRange(f"offset {offset} is not within 0 and {stop}, the next message's offset")
        if offset == stop:
            return LogRead(b"", stop, None)
        cached = self.read_cached(offset, most)
        if cached is not None:
            return cached
        segments = self._segments
        number = bisect_right(segments, offset, key=lambda segment: segment.base) - 1
        if number < 0:
            return LogRead(b"", segments[0].base, Gap(offset, segments[0].base - 1, "retention"))
        segment = segments[number]
        if number + 1 < len(segments):
            stop = segments[number + 1].base
        try:
            return segment.read(offset, stop, most)
        except FileNotFoundError:
            if segment not in self._segments:
                # Retention dropped it meanwhile: the next look finds the gap.
                return self.read(offset, most)
            segment.note_gap(offset, stop - 1)
            return LogRead(b"", stop, Gap(offset, stop - 1, "corrupt"))

    def read_cached(self, offset: int, most: int) -> LogRead | None:
        """Like ``read``, from the cache alone. Returns None if the file must be read; never waits for the disk."""
        cached = self._recent.read(offset, self.next_offset, most)
        return None if cached is None else LogRead(*cached, None)

    def checksum_at(self, offset: int) -> str | None:
        """Returns the checksum of the record at ``offset`` (``c32``), or None if it is not there or cannot be read. Any thread may
        call it; it may read the disk."""
        if not self.oldest_offset <= offset < self.next_offset:
            return None
        try:
            frame = bytes(self.read(offset, 1).data)
            decode_record(frame)
        except (CorruptRecord, OSError):
            return None
        return frame[CRC_START:CRC_END].decode()

    # Appending

    def prepare(self, published: Sequence[Entries]) -> RecordBatch:
        """Builds the next batch: skips duplicates, assigns offsets and times, encodes the frames. Uses the CPU only.

        One batch at a time: ``finish`` or ``abort`` it before the next. Raises LogFailed, or ValueError for a message that
        fits no record.
        """
        self._check_usable()
        if self._in_flight is not None:
            raise RuntimeError("a batch is in flight already")
        timestamp_ms = max(self._last_timestamp, self._clock.now_ms())
        self._in_flight = build_batch(published, self.next_offset, timestamp_ms, self._producers)
        return self._in_flight

    def commit(self, batch: RecordBatch) -> None:
        """Writes the batch and makes it as durable as the fsync mode says. Makes system calls only.

        Raises one of WRITE_REFUSED if nothing of the batch is left in the log: ``abort`` it; a later one may succeed.
        Raises LogFailed if the disk's content is unknown: stop, and recover by a restart.
        """
        self._check_usable()
        if batch.duplicates:
            self._read_checksums(batch)
        if not batch.size:
            return
        try:
            if self._is_segment_full(batch):
                self._roll(batch.first_offset)
            self._writer.append([block.data for block in batch.blocks])
            if self.config.fsync == "always":
                self._writer.sync()
        except LogFailed as error:
            self._failed = error
            raise
        except WRITE_REFUSED as error:
            self._trouble, self._refused_bytes = str(error), batch.size
            raise
        self._trouble = ""

    def _read_checksums(self, batch: RecordBatch) -> None:
        """Notes what the log holds in place of the batch's duplicates, so that their publishers can compare."""
        offsets = {place.offset for places in batch.places for place in places if place.duplicate}
        for offset in offsets - {UNKNOWN_OFFSET}:
            checksum = self._checksums.get(offset)
            if checksum is None:
                try:
                    frame = batch.frame(offset) if offset >= batch.first_offset else self.read(offset, 1).data
                    checksum = payload_checksum(decode_record(frame).payload)
                except (CorruptRecord, OSError):
                    continue  # dropped by retention, or damaged
                if offset < batch.first_offset:
                    if len(self._checksums) >= MOST_CHECKSUMS:
                        self._checksums.clear()
                    self._checksums[offset] = checksum
            batch.checksums[offset] = checksum

    def finish(self, batch: RecordBatch) -> None:
        """Makes the committed batch visible to readers. Its messages may now be answered."""
        self._in_flight = None
        if batch.size:
            with self._state_lock:
                segment = self._segments[-1]
                for block in batch.blocks:
                    segment.marks.add(block.first_offset, segment.size, block.positions, batch.timestamp_ms)
                    segment.size += len(block.data)
                self._producers.merge(batch.producers, batch.timestamp_ms)
                self._last_timestamp = batch.timestamp_ms
                self._recent.add(batch.blocks)
                # Last, because this makes the rest visible.
                self.next_offset = batch.next_offset
        self._messages += batch.next_offset - batch.first_offset
        self._appended_bytes += batch.size
        self._groups += 1
        self._duplicates += batch.duplicates
        self._producer_gaps += batch.producer_gaps

    def abort(self, batch: RecordBatch) -> None:
        """Discards a batch that was not committed; the next one reuses its offsets."""
        self._in_flight = None
        self._failed_groups += 1

    # Housekeeping, in the writer thread

    def tick(self) -> Drop | None:
        """Runs what is due: the fsync of the interval mode, the checkpoint, the committed offsets, retention. To be called
        about once a second. Returns what retention dropped.

        Raises LogFailed if an fsync fails. A side file that cannot be written is only logged.
        """
        self._check_usable()
        now = self._clock.steady()
        try:
            if self.config.fsync == "interval" and now - self._last_sync >= SYNC_EVERY_S:
                self._last_sync = now
                self._writer.sync()
            if now - self._last_checkpoint >= CHECKPOINT_EVERY_S:
                self._last_checkpoint = now
                # A checkpoint needs an fsync, which "never" leaves to the system. A roll makes one in any mode.
                if self.config.fsync != "never" and self._checkpointed != self.next_offset:
                    self._checkpoint(clean=False)
        except LogFailed as error:
            self._failed = error
            raise
        self._save_side_file(COMMITS_NAME, self.commits.save)
        self._save_side_file(IDENTITY_NAME, self.identity.save)
        return self._apply_retention()

    def probe(self) -> list[str]:
        """Probes whether the log can be written now. Returns the reasons why not, or an empty list.

        Once a write of the refused size succeeds, the refusal is over, even if nobody publishes.
        """
        failed = f"the log has failed: {self._failed}" if self._failed is not None else ""
        unwritable = probe_write(
            self.directory, self._disk, min(self._refused_bytes, PROBE_BYTES) if self._trouble else 1
        )
        if not unwritable:
            self._trouble = ""
        space = probe_space(self.directory, self._disk, self.config.free_space_reserve)
        reasons = (failed, self._trouble, unwritable, space, probe_lock(self._directory_lock))
        return [reason for reason in reasons if reason]

    @property
    def degraded(self) -> list[str]:
        """What is wrong although the log works: damage found so far, side files that cannot be saved."""
        reasons = [
            f"offsets {first} to {last} are damaged" for segment in self._segments for first, last in segment.gaps
        ]
        return reasons + [f"the {name} cannot be saved: {why}" for name, why in list(self._side_troubles.items())]

    def stats(self) -> LogStats:
        """Returns the current figures."""
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
        """Deletes the segments that hold only offsets below ``offset``, never the active one. Returns how many.

        Readers that are behind get a gap. Raises OSError if a file cannot be deleted.
        """
        count = max(0, bisect_right(self._segments, offset, key=lambda segment: segment.base) - 1)
        self._drop(count)
        return count

    def _apply_retention(self) -> Drop | None:
        config, segments = self.config, self._segments
        oldest_ms = 0
        # After the clock was set by hours, ages are unknown.
        if config.retention_age_s and not self._clock.jumped():
            oldest_ms = self._clock.now_ms() - int(config.retention_age_s * 1000)
        count = count_expired(segments, config.retention_bytes, oldest_ms, self._last_timestamp)
        if not count:
            return None
        try:
            return self._drop(count)
        except OSError as error:
            logger.warning("%s: a dropped segment could not be deleted: %s", self.directory, error)
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
        # Hidden before it is deleted: a reader that misses the file looks again and finds the gap.
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
        """Makes everything durable, saves a clean checkpoint unless the log has failed, and unlocks the directory.

        Raises LogFailed if the last fsync fails.
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

    def _is_segment_full(self, batch: RecordBatch) -> bool:
        if self._roll_due:
            return True
        if not self._writer.position:
            return False
        if self._writer.position + batch.size > self.config.segment_bytes:
            return True
        first_ms = self._segments[-1].first_timestamp
        return first_ms is not None and batch.timestamp_ms - first_ms >= self.config.segment_age_s * 1000

    def _roll(self, base: int) -> None:
        """Seals the active segment and starts the next one at ``base``. If that fails, the active segment stays."""
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
        logger.info("segment %s is sealed, the log continues in %s", sealed.path.name, fresh.path.name)
        self._checkpoint(clean=False)

    def _checkpoint(self, *, clean: bool) -> None:
        """Makes everything visible to readers durable, then records it in the checkpoint."""
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
        """Saves a file that only saves work. If that fails, logs it once and continues."""
        try:
            save()
        except OSError as error:
            why = error.strerror or str(error)
            if self._side_troubles.get(name) != why:
                logger.warning("the %s cannot be saved, the broker continues without it: %s", name, why)
            self._side_troubles[name] = why
            return False
        self._side_troubles.pop(name, None)
        return True

    def _report_recovery(self) -> None:
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
