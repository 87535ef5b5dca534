"""Counts of durations by upper bound, as Prometheus histograms have them."""

from __future__ import annotations

from bisect import bisect_left
from typing import ClassVar


class Histogram:
    """Durations in seconds."""

    BOUNDS: ClassVar[tuple[float, ...]] = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)

    def __init__(self) -> None:
        self._counts = [0] * (len(self.BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Counts one duration."""
        self._counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self._counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper bound, how many were at most that), the last bound being infinite."""
        rows: list[tuple[float, int]] = []
        so_far = 0
        for bound, count in zip((*self.BOUNDS, float("inf")), self._counts, strict=True):
            so_far += count
            rows.append((bound, so_far))
        return rows
