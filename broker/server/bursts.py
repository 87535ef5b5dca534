"""Log lines that clients can cause: a few of each kind at once, then only how many there were."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

WINDOW_S = 10.0


class BurstLog:
    """Writes at most ``most`` lines of a kind (a format string) in WINDOW_S, and counts the others.

    The first line of that kind after the window says how many were left out, so a client cannot fill the log's disk.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        # By kind: when the window began, lines written in it, lines left out.
        self._windows: dict[str, tuple[float, int, int]] = {}

    def say(self, level: int, text: str, *values: object, most: int = 10) -> None:
        """Log ``text % values``, or count it. As in logging, one mapping holds named values."""
        now = self._clock()
        began, written, left_out = self._windows.get(text, (now, 0, 0))
        if now - began >= WINDOW_S:
            if left_out:
                self._logger.log(level, "%d more lines like the next one within %.0f s", left_out, now - began)
            began, written, left_out = now, 0, 0
        if written < most:
            self._logger.log(level, text, *values)
            written += 1
        else:
            left_out += 1
        self._windows[text] = (began, written, left_out)
