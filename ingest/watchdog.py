"""Which work hangs: calls that may wait for a disk or a server note their start here, and are stuck when they take too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """What is being done now, and since when. For one thread or several."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._doing: dict[object, tuple[str, float, float]] = {}

    @contextmanager
    def doing(self, what: str, most_seconds: float) -> Iterator[None]:
        """``what`` is done inside the block, and should take ``most_seconds`` at most."""
        mark = object()
        self._doing[mark] = (what, self._clock(), most_seconds)
        try:
            yield
        finally:
            del self._doing[mark]

    def stuck(self) -> list[str]:
        """What takes longer than it should, one text each."""
        now = self._clock()
        return [
            f"{what} has not ended for {now - began:.0f} s"
            for what, began, most_seconds in list(self._doing.values())
            if now - began > most_seconds
        ]
