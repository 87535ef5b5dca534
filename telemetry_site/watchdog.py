"""Finds work that hangs: calls that may wait for a disk or a server are recorded here, and count as stuck after a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """The calls that are running now. Safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._doing: dict[object, tuple[str, float, float]] = {}

    @contextmanager
    def doing(self, what: str, most_seconds: float) -> Iterator[None]:
        """Record ``what`` for as long as the block runs; it is stuck after ``most_seconds``."""
        mark = object()
        self._doing[mark] = (what, self._clock(), most_seconds)
        try:
            yield
        finally:
            del self._doing[mark]

    def stuck(self) -> list[str]:
        """One text for each call that takes longer than it should."""
        now = self._clock()
        return [
            f"{what} has not ended for {now - began:.0f} s"
            for what, began, most_seconds in list(self._doing.values())
            if now - began > most_seconds
        ]
