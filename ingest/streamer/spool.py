"""The spool: a live source's batches, kept on disk until the broker has answered them. It uses the broker's log as a library.

A batch is on disk before it is sent, together with the producer id of the run that made it. It is sent under that id and the
number of its record. So after any crash the same batch is sent again under the same number, and the broker takes it once. A
run has a new id, so what it makes is never taken for batches that another run sent from a copy of the folder.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from broker.errors import WRITE_REFUSED, BrokerError, LogLocked
from broker.log.log import Entries, Log, LogConfig
from broker.log.record import OVERHEAD, PREFIX_SIZE, decode_record
from ingest.errors import StateError
from ingest.streamer.sender import OutgoingBatch, UnansweredBatch

logger = logging.getLogger(__name__)

COMMIT_ID = "broker"
READ_BYTES = 1 << 20
_SEGMENTS = 16
_MIB = 1 << 20


class Spool:
    """A BatchQueue in a folder. It stays below ``max_bytes`` if ``give_up`` is called before each ``append``.

    ``append``, ``read``, ``tick`` and ``close`` are for one worker thread, the rest for the event loop.
    Raises StateError when the folder cannot be used.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        segment = min(max(max_bytes // _SEGMENTS, 64 * 1024), 8 * _MIB)
        self._segment_bytes = segment
        self._group_bytes = segment // 2  # a group lies in one segment, and space is freed segment by segment
        try:
            self._log = Log.open(
                directory,
                LogConfig(segment_bytes=segment, fsync="always", buffer_messages=1000, buffer_bytes=8 * _MIB),
            )
        except LogLocked as error:
            raise StateError(f"INSTANCE_ID (--instance-id): another streamer has this spool: {error}") from error
        except (BrokerError, OSError) as error:
            raise StateError(f"STATE_DIR (--state-dir): cannot keep the spool in {directory}: {error}") from error
        self.producer = secrets.token_hex(8)
        answered = self._log.commits.get(COMMIT_ID)
        self._next_answer = max(self._log.oldest_offset, 0 if answered is None else answered + 1)
        self._unanswered: deque[UnansweredBatch] = deque(
            UnansweredBatch(0, time.time()) for _ in range(self._log.next_offset - self._next_answer)
        )
        if self.waiting:
            logger.info("%d batches of the last run are in the spool: sending them first", self.waiting)

    @property
    def waiting(self) -> int:
        """Batches that the broker has not answered."""
        return self._log.next_offset - self._next_answer

    @property
    def next_unanswered(self) -> int:
        """The number of the oldest unanswered batch, or of the next one when all are answered."""
        return self._next_answer

    @property
    def end(self) -> int:
        """The number that the next new batch will get."""
        return self._log.next_offset

    @property
    def oldest_since(self) -> float | None:
        """When the oldest unanswered batch was spooled; None when all are answered."""
        return self._unanswered[0].since if self._unanswered else None

    @property
    def size_bytes(self) -> int:
        """Its size on disk."""
        return self._log.stats().bytes

    def append(self, batches: list[tuple[bytes, int]]) -> None:
        """Append payloads, each with its number of readings. They are on disk when this returns.

        Raises one of WRITE_REFUSED; the batches that are then left in ``batches`` were not written.
        """
        while batches:
            size, count = 0, 0
            while count < len(batches) and (size < self._group_bytes or not count):
                size += len(batches[count][0])
                count += 1
            self._append_group(batches[:count])
            del batches[:count]

    def _append_group(self, batches: Sequence[tuple[bytes, int]]) -> None:
        first = self._log.next_offset
        group = self._log.prepare([Entries([payload for payload, _ in batches], self.producer, first)])
        try:
            self._log.commit(group)
        except WRITE_REFUSED:
            self._log.abort(group)
            raise
        now = time.time()
        self._unanswered.extend(UnansweredBatch(readings, now) for _, readings in batches)
        self._log.finish(group)

    def read(self, number: int) -> tuple[list[OutgoingBatch], int]:
        """Some batches from ``number`` on (none at the end), and the number after them. Skips damaged batches."""
        number = max(number, self._next_answer)
        while number < self._log.next_offset:
            chunk = self._log.read(number, READ_BYTES)
            if chunk.gap is not None:
                logger.error("batches %d to %d of the spool cannot be read (%s)", *chunk.gap)
            batches = _batches(bytes(chunk.data))
            if batches:
                return batches, chunk.next_offset
            number = chunk.next_offset
        return [], number

    def answered(self, number: int) -> int:
        """Remove all batches up to ``number``; returns how many readings they held."""
        readings = 0
        while self._next_answer <= number:
            readings += self._unanswered.popleft().readings
            self._next_answer += 1
        self._log.commits.set(COMMIT_ID, number)
        return readings

    def tick(self) -> None:
        """Housekeeping, about once a second: frees the space of batches that were answered or given up."""
        self._log.tick()
        self._log.drop_before(self._next_answer)

    def excess(self, coming: Sequence[tuple[bytes, int]]) -> int:
        """By how many bytes the spool would be too large with the ``coming`` batches; 0 or less: it has room."""
        return (
            self.size_bytes
            + sum(len(payload) + OVERHEAD for payload, _ in coming)
            - self.max_bytes
            + self._segment_bytes
        )

    def give_up(self, coming: Sequence[tuple[bytes, int]] = (), *, at_least: int = 0) -> tuple[int, int]:
        """Give up the oldest batches if the spool would be too large with the ``coming`` ones. Returns how many batches and
        readings it gave up. ``tick`` frees their space, except for the segment that also holds other batches."""
        size, excess = self.size_bytes, self.excess(coming)
        # Assumes that all batches are about equally large.
        surplus = self.waiting * min(excess, size) // size + 1 if size and excess > 0 else 0
        number = min(self._next_answer + max(surplus, at_least), self._log.next_offset)
        batches = number - self._next_answer
        return batches, self.answered(number - 1) if batches else 0

    def close(self) -> None:
        """Close the spool; the next run goes on with it."""
        try:
            self._log.tick()
            self._log.close()
        except BrokerError as error:
            logger.error("cannot close the spool cleanly: %s", error)


def _batches(data: bytes) -> list[OutgoingBatch]:
    batches = []
    position = 0
    while position < len(data):
        end = position + PREFIX_SIZE + int.from_bytes(data[position : position + PREFIX_SIZE], "big")
        record = decode_record(data[position:end])
        batches.append(OutgoingBatch(record.offset, record.payload, record.producer))
        position = end
    return batches
