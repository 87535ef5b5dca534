"""Committed offsets: up to where each subscriber has stored everything.

Losing one costs a second delivery, never a message, so the file is written whole, about once a second.
"""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock

from broker.log.clock import Clock
from broker.log.disk import Disk, load_side_file, save_side_file

logger = logging.getLogger(__name__)

COMMITS_NAME = "commits"
MOST_SUBSCRIBERS = 10_000
FORGET_AFTER_MS = 30 * 24 * 3600 * 1000

# subscriber, committed offset, when it committed (Unix milliseconds)
CommitRow = tuple[str, int, int]


class CommittedOffsets:
    """Committed offsets by subscriber id. A commit covers every message up to and including its offset. Thread-safe."""

    def __init__(self, directory: Path, disk: Disk, clock: Clock, end: int) -> None:
        """Loads the saved offsets. ``end`` is the log's next offset: no commit may be at or past it."""
        self._path = directory / COMMITS_NAME
        self._disk = disk
        self._clock = clock
        self._lock = Lock()
        # Least recently committed first.
        self._commits: dict[str, tuple[int, int]] = {}
        self._changed = False
        for subscriber_id, offset, when_ms in load_side_file(self._path, list[CommitRow]) or []:
            if offset >= end:
                logger.warning(
                    "subscriber %s had committed offset %d, past the end of the log: set to %d",
                    subscriber_id,
                    offset,
                    end - 1,
                )
                offset, self._changed = end - 1, True
            if offset >= 0:
                self._commits[subscriber_id] = (offset, when_ms)

    def get(self, subscriber_id: str) -> int | None:
        """Returns the subscriber's committed offset, or None if it has none."""
        commit = self._commits.get(subscriber_id)
        return commit[0] if commit else None

    def set(self, subscriber_id: str, offset: int) -> None:
        """Commits an offset. One below the committed offset only renews the subscriber's last activity."""
        with self._lock:
            before = self._commits.pop(subscriber_id, None)
            if before is not None and before[0] > offset:
                offset = before[0]
            self._commits[subscriber_id] = (offset, self._clock.now_ms())
            while len(self._commits) > MOST_SUBSCRIBERS:
                del self._commits[next(iter(self._commits))]
            self._changed = True

    def items(self) -> list[tuple[str, int]]:
        """Returns all subscribers and their committed offsets."""
        with self._lock:
            return [(subscriber_id, offset) for subscriber_id, (offset, _) in self._commits.items()]

    def save(self) -> None:
        """Drops long idle subscribers and saves if anything changed. Raises OSError; the next call then tries again."""
        with self._lock:
            self._forget_idle()
            if not self._changed:
                return
            rows = [(subscriber_id, offset, when_ms) for subscriber_id, (offset, when_ms) in self._commits.items()]
            # Cleared before the write: a commit made during the write is saved by the next call.
            self._changed = False
        try:
            save_side_file(self._disk, self._path, rows)
        except OSError:
            self._changed = True
            raise

    def _forget_idle(self) -> None:
        if self._clock.jumped():
            return
        oldest_ms = self._clock.now_ms() - FORGET_AFTER_MS
        for subscriber_id, (_, when_ms) in list(self._commits.items()):
            if when_ms >= oldest_ms:
                break
            del self._commits[subscriber_id]
            self._changed = True
