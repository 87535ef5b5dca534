"""How far each subscriber says it has stored everything: its committed offset.

Losing it costs a second delivery, never a message; so it is saved once in a while, in one piece.
"""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock

from broker.log import sidefile
from broker.log.clock import Clock
from broker.log.disk import Disk

logger = logging.getLogger(__name__)

COMMITS_NAME = "commits"
MOST_SUBSCRIBERS = 10_000
FORGET_AFTER_MS = 30 * 24 * 3600 * 1000

# subscriber, committed offset, when it committed (Unix milliseconds)
CommitRow = tuple[str, int, int]


class CommitStore:
    """Committed offsets by subscriber id; a commit means all up to and with that offset. Any thread may use it."""

    def __init__(self, directory: Path, disk: Disk, clock: Clock, end: int) -> None:
        """Loads what was saved. ``end`` is the log's next offset: no commit may be at or past it."""
        self._path = directory / COMMITS_NAME
        self._disk = disk
        self._clock = clock
        self._lock = Lock()
        # The one that committed longest ago first.
        self._commits: dict[str, tuple[int, int]] = {}
        self._changed = False
        for subscriber_id, offset, when_ms in sidefile.load(self._path, list[CommitRow]) or []:
            if offset >= end:
                logger.warning("commit of %s at offset %d is past the log: set to %d", subscriber_id, offset, end - 1)
                offset, self._changed = end - 1, True
            if offset >= 0:
                self._commits[subscriber_id] = (offset, when_ms)

    def get(self, subscriber_id: str) -> int | None:
        """The subscriber's committed offset, or None when it has none."""
        commit = self._commits.get(subscriber_id)
        return commit[0] if commit else None

    def set(self, subscriber_id: str, offset: int) -> None:
        """Commits; an offset below the committed one changes nothing but that the subscriber was heard."""
        with self._lock:
            before = self._commits.pop(subscriber_id, None)
            if before is not None and before[0] > offset:
                offset = before[0]
            self._commits[subscriber_id] = (offset, self._clock.now_ms())
            while len(self._commits) > MOST_SUBSCRIBERS:
                del self._commits[next(iter(self._commits))]
            self._changed = True

    def items(self) -> list[tuple[str, int]]:
        """All subscribers and their committed offsets."""
        with self._lock:
            return [(subscriber_id, offset) for subscriber_id, (offset, _) in self._commits.items()]

    def save(self) -> None:
        """Forgets the long idle and writes what has changed since the last save. Raises OSError, and will try again."""
        with self._lock:
            self._forget_idle()
            if not self._changed:
                return
            rows = [(subscriber_id, offset, when_ms) for subscriber_id, (offset, when_ms) in self._commits.items()]
            # Cleared here: a commit made while the file is written is saved by the next call.
            self._changed = False
        try:
            sidefile.save(self._disk, self._path, rows)
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
