"""What held each GPU at any time, of occupancies that may overlap."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from stores.aggregate.buckets import Ints
from stores.base import PodAssignment

_LAST_NS = (1 << 63) - 1

Pod = tuple[str, str, str]  # namespace, pod, container


class AssignmentTimeline:
    """Which holder one GPU has at a time: the one that came last of those that are there."""

    def __init__(self, occupancies: Sequence[PodAssignment]) -> None:
        self.holders: list[Pod] = []
        starts: list[int] = []
        numbers: list[int] = []
        for start, occupancy in _stretches(occupancies):
            holder = None if occupancy is None else (occupancy.namespace, occupancy.pod, occupancy.container)
            if holder is not None and holder not in self.holders:
                self.holders.append(holder)
            starts.append(start)
            numbers.append(-1 if holder is None else self.holders.index(holder))
        self._starts = np.array(starts, dtype=np.int64)
        self._numbers = np.array([-1, *numbers], dtype=np.int64)

    def at(self, times: Ints) -> Ints:
        """The places among ``holders`` of who was there at these times; -1 for nobody."""
        return self._numbers[np.searchsorted(self._starts, times, side="right")]

    def throughout(self, start_ns: int, end_ns: int) -> Pod | None:
        """Who has it in all of [start, end); None if nobody or not one alone does."""
        first, last = np.searchsorted(self._starts, [start_ns, end_ns - 1], side="right").tolist()
        number = int(self._numbers[first])
        return self.holders[number] if first == last and number >= 0 else None

    def changes(self, start_ns: int, end_ns: int) -> bool:
        """Whether it may come to another holder, or to nobody, within [start, end)."""
        first, last = np.searchsorted(self._starts, [start_ns, end_ns - 1], side="right").tolist()
        return bool(first != last)


def tenancies(occupancies: Sequence[PodAssignment]) -> dict[str, AssignmentTimeline]:
    """The tenancy of each GPU that has any."""
    by_gpu: dict[str, list[PodAssignment]] = defaultdict(list)
    for each in occupancies:
        by_gpu[each.gpu].append(each)
    return {gpu: AssignmentTimeline(found) for gpu, found in by_gpu.items()}


def _stretches(occupancies: Sequence[PodAssignment]) -> list[tuple[int, PodAssignment | None]]:
    """When the GPU comes to another holder, and whom; None is nobody."""
    waiting = sorted(occupancies, key=lambda each: (each.start_ns, each[1:4]))
    edges = sorted({each.start_ns for each in waiting} | {_end(each) for each in waiting})
    there: list[tuple[int, int]] = []  # the one that came last first
    place = 0
    stretches: list[tuple[int, PodAssignment | None]] = []
    for edge in edges:
        while place < len(waiting) and waiting[place].start_ns <= edge:
            heapq.heappush(there, (-place, _end(waiting[place])))
            place += 1
        while there and there[0][1] <= edge:
            heapq.heappop(there)
        stretches.append((edge, waiting[-there[0][0]] if there else None))
    return stretches


def _end(occupancy: PodAssignment) -> int:
    return _LAST_NS if occupancy.end_ns is None else occupancy.end_ns
