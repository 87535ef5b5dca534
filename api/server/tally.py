"""Tells in the log of what happens often: at once, and then at most once in a while, with its number."""

from __future__ import annotations

import logging
from collections import Counter

from api.server import limits


class Tally:
    """Counts events by their text."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._counts: Counter[str] = Counter()
        self._last_client: dict[str, str] = {}
        self._next = float("-inf")

    def add(self, text: str, client: str) -> None:
        """Count one event, which that client caused."""
        self._counts[text] += 1
        self._last_client[text] = client

    def tell(self, now: float) -> None:
        """Log what was counted, if it is time to."""
        if not self._counts or now < self._next:
            return
        self._next = now + limits.TELL_SECONDS
        for text, count in self._counts.items():
            self._logger.warning("%s: %d connections (the last from %s)", text, count, self._last_client[text])
        self._counts.clear()
        self._last_client.clear()
