"""The time a log goes by, as an object so that a test can set it."""

from __future__ import annotations

import time

_HOUR_S = 3600.0


class Clock:
    """Wall clock and steady clock, and whether they have parted."""

    def __init__(self) -> None:
        self._parted = self._difference()

    def now_ms(self) -> int:
        """Unix milliseconds; may go backwards."""
        return time.time_ns() // 1_000_000

    def steady(self) -> float:
        """Seconds from some start; never goes backwards."""
        return time.monotonic()

    def jumped(self) -> bool:
        """Whether the wall clock was set by more than an hour since the start: nothing may be expired by age then."""
        return abs(self._difference() - self._parted) > _HOUR_S

    def _difference(self) -> float:
        return self.now_ms() / 1000 - self.steady()
