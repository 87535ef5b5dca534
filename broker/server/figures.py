"""Keeps the result of a costly function for a short time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# Figures are computed again after a second, or earlier if they cost little: at most this share of the time.
MOST_KEPT_S = 1.0
MOST_SHARE = 0.05


class CachedFigures(Generic[T]):
    """The last result of a costly function, so that nobody can keep the loop busy by asking for it."""

    def __init__(self, build: Callable[[], T]) -> None:
        self._build = build
        self._until = 0.0
        self._last: T | None = None

    def get(self) -> T:
        """Returns a result that is at most MOST_KEPT_S old."""
        began = time.monotonic()
        if self._last is None or began >= self._until:
            self._last = self._build()
            ended = time.monotonic()
            self._until = ended + min((ended - began) / MOST_SHARE, MOST_KEPT_S)
        return self._last
