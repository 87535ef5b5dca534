"""The log's clock, an object so that a test can set it."""

from __future__ import annotations

import time

_HOUR_S = 3600.0


class Clock:
    """The wall clock, the monotonic clock, and whether they have drifted apart."""

    def __init__(self) -> None:
        self._start_difference = self._difference()

    def now_ms(self) -> int:
        """Unix milliseconds; may go backwards."""
        return time.time_ns() // 1_000_000

    def steady(self) -> float:
        """Monotonic seconds; never goes backwards."""
        return time.monotonic()

    def jumped(self) -> bool:
        """Whether the wall clock was set by over an hour since the start. Nothing may expire by age then."""
        return abs(self._difference() - self._start_difference) > _HOUR_S

    def _difference(self) -> float:
        return self.now_ms() / 1000 - self.steady()
