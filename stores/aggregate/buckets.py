"""The windows of a range. They are aligned to 1970, so that every query has the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buckets:
    """The windows of ``every`` ns that [start, end) touches. The first and the last may reach beyond it."""

    start_ns: int
    end_ns: int
    every_ns: int

    @property
    def origin_ns(self) -> int:
        """The beginning of the first window, at or before the range's."""
        return self.start_ns // self.every_ns * self.every_ns

    @property
    def count(self) -> int:
        """The number of windows."""
        return -((self.origin_ns - self.end_ns) // self.every_ns)

    def times(self) -> list[int]:
        """The beginning of each window."""
        return [self.origin_ns + number * self.every_ns for number in range(self.count)]

    def batches(self, windows: int) -> Iterator[Buckets]:
        """The same windows in batches of this many, in order of time."""
        for first in range(self.origin_ns, self.end_ns, max(1, windows) * self.every_ns):
            yield self.part(first, windows)

    def part(self, first_ns: int, windows: int) -> Buckets:
        """This many windows from the one that begins at ``first_ns``, within the range."""
        start = max(first_ns, self.start_ns)
        return Buckets(start, min(first_ns + max(1, windows) * self.every_ns, self.end_ns), self.every_ns)

    def index_of(self, batch: Buckets) -> int:
        """The index of a batch's first window."""
        return (batch.origin_ns - self.origin_ns) // self.every_ns
