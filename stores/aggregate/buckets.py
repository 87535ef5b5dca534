"""The windows of a range: aligned to 1970, so that the same window is the same in every question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Buckets:
    """The windows of ``every`` ns that [start, end) touches."""

    start_ns: int
    end_ns: int
    every_ns: int

    @property
    def origin_ns(self) -> int:
        """The beginning of the first window: at or before the range's."""
        return self.start_ns // self.every_ns * self.every_ns

    @property
    def count(self) -> int:
        """How many windows there are."""
        return -((self.origin_ns - self.end_ns) // self.every_ns)

    def times(self) -> list[int]:
        """When each window begins."""
        return [self.origin_ns + number * self.every_ns for number in range(self.count)]

    def slabs(self, windows: int) -> Iterator[Buckets]:
        """The same windows in parts of so many, in order of time."""
        for first in range(self.origin_ns, self.end_ns, max(1, windows) * self.every_ns):
            yield self.part(first, windows)

    def part(self, first_ns: int, windows: int) -> Buckets:
        """So many windows from the one that begins at ``first_ns``, as far as the range goes."""
        start = max(first_ns, self.start_ns)
        return Buckets(start, min(first_ns + max(1, windows) * self.every_ns, self.end_ns), self.every_ns)

    def place_of(self, slab: Buckets) -> int:
        """Which window is a slab's first."""
        return (slab.origin_ns - self.origin_ns) // self.every_ns
