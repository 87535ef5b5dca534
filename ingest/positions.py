"""Which part of a source is answered for, and keeping that on disk for the next start."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ingest.errors import StateError
from ingest.resume import ResumeStore

if TYPE_CHECKING:
    from ingest.csv_source import CsvSource  # numpy and pyarrow: nothing for a live source

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Gathering:
    """What was gathered and published together: where in the source it ends, and how many of its batches are unanswered."""

    position: int
    line: int
    shift_ns: int
    unanswered: int = 0
    since: float = field(default_factory=time.monotonic)


class Positions:
    """Gatherings in the order of the source; the position moves over those that are answered, never past one that is not."""

    def __init__(self, store: ResumeStore, source: CsvSource, timestamps: str) -> None:
        self._store = store
        self._source = source
        self._timestamps = timestamps
        self._open: deque[Gathering] = deque()
        self._reached: Gathering | None = None
        self._moved = asyncio.Event()
        # A save goes on in its thread when its task is cancelled: it must not come after the last word.
        self._lock = threading.Lock()
        self._finished = False
        self._failing = False

    @property
    def reached(self) -> Gathering | None:
        """The last gathering up to which everything is answered."""
        return self._reached

    @property
    def oldest(self) -> Gathering | None:
        """The first gathering that is not answered."""
        return self._open[0] if self._open else None

    def add(self, gathering: Gathering) -> None:
        """A gathering is about to be published."""
        self._open.append(gathering)

    def check(self) -> None:
        """Move over all gatherings that are answered by now."""
        while self._open and self._open[0].unanswered == 0:
            self._reached = self._open.popleft()
            self._moved.set()

    async def keep(self) -> None:
        """Save the position whenever it has moved, until cancelled. A disk that is full is said once and costs nothing else."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                await asyncio.to_thread(self._save)
            except StateError as error:
                if not self._failing:
                    logger.error("%s: until that is mended, a restart sends more than needed", error)
                self._failing = True
            else:
                self._failing = False

    def finish(self, *, done: bool) -> None:
        """The last word: forget the position when the run is done, else keep where it came to. Raises StateError."""
        try:
            if done:
                with self._lock:
                    self._finished = True
                    self._store.clear()
            else:
                self._save()
        finally:
            self._finished = True

    def _save(self) -> None:
        with self._lock:
            reached = self._reached
            if reached is None or self._finished or not self._source.can_resume:
                return
            self._store.save(
                self._source.state_at(
                    position=reached.position,
                    line=reached.line,
                    timestamps=self._timestamps,
                    shift_ns=reached.shift_ns,
                )
            )
