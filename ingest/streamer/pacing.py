"""Pacing: how many rows a streamer reads at once, and when the next ones are due."""

from __future__ import annotations

import time
from collections.abc import Callable

from readings.columns import Columns
from readings.times import SECOND

CHUNK_ROWS = 5000
TICKS_PER_SECOND = 10


class Pacer:
    """Spreads readings evenly: ``rate`` per second, 0 for as fast as possible.

    After an interruption (the broker was away) it goes on at the same rate, without catching up in a burst.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock()

    @property
    def chunk(self) -> int:
        """The rows to read at once: a tenth of a second's worth, at least one."""
        if self._rate <= 0:
            return CHUNK_ROWS
        return max(1, min(CHUNK_ROWS, int(self._rate / TICKS_PER_SECOND)))

    def took(self, columns: Columns) -> float:
        """Count the readings that were just read; returns the seconds to wait before the next."""
        if self._rate <= 0:
            return 0.0
        now = self._clock()
        self._due = max(self._due, now - 1.0) + columns.size / self._rate
        return max(0.0, self._due - now)


class SpeedPacer:
    """Paces readings by their own times, ``speed`` times as fast."""

    chunk = 200

    def __init__(self, speed: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._speed = speed
        self._clock = clock
        self._first_ns: int | None = None
        self._newest_ns = 0
        self._began = 0.0

    def took(self, columns: Columns) -> float:
        """Note the times of the readings that were just read; returns the seconds until the next are due."""
        if not columns.size:
            return 0.0
        if self._first_ns is None:
            self._first_ns = self._newest_ns = int(columns.time_ns.min())
            self._began = self._clock()
        self._newest_ns = max(self._newest_ns, int(columns.time_ns.max()))
        due = self._began + (self._newest_ns - self._first_ns) / SECOND / self._speed
        return max(0.0, due - self._clock())
