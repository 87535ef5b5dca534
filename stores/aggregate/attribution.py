"""Which pod owned a GPU at a given time.

Overlapping assignments resolve to the one that started last. What pods share belongs to the namespace that they have in common.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Sequence

import numpy as np

from stores.aggregate.arrays import Pod
from stores.aggregate.functions import Ints
from stores.base import PodAssignment

_LAST_NS = (1 << 63) - 1


class AssignmentTimeline:
    """The pod of one GPU at any time."""

    def __init__(self, assignments: Sequence[PodAssignment]) -> None:
        self.pods: list[Pod] = []
        starts: list[int] = []
        numbers: list[int] = []
        for start, pod in _changes(assignments):
            if pod is not None and pod not in self.pods:
                self.pods.append(pod)
            starts.append(start)
            numbers.append(-1 if pod is None else self.pods.index(pod))
        self._starts = np.array(starts, dtype=np.int64)
        self._numbers = np.array([-1, *numbers], dtype=np.int64)

    def at(self, times: Ints) -> Ints:
        """The pod at each time, as an index into ``pods``; -1 for none."""
        return self._numbers[np.searchsorted(self._starts, times, side="right")]

    def throughout(self, start_ns: int, end_ns: int) -> Pod | None:
        """The pod that has the GPU for all of [start, end); None if no single pod does."""
        first, last = np.searchsorted(self._starts, [start_ns, end_ns - 1], side="right").tolist()
        number = int(self._numbers[first])
        return self.pods[number] if first == last and number >= 0 else None

    def changes(self, start_ns: int, end_ns: int) -> bool:
        """Whether the GPU may change pods, or lose its pod, within [start, end)."""
        first, last = np.searchsorted(self._starts, [start_ns, end_ns - 1], side="right").tolist()
        return bool(first != last)


def timelines(assignments: Sequence[PodAssignment]) -> dict[str, AssignmentTimeline]:
    """The timeline of each GPU that has assignments."""
    by_gpu: dict[str, list[PodAssignment]] = defaultdict(list)
    for each in assignments:
        by_gpu[each.gpu].append(each)
    return {gpu: AssignmentTimeline(of_gpu) for gpu, of_gpu in by_gpu.items()}


def _changes(assignments: Sequence[PodAssignment]) -> list[tuple[int, Pod | None]]:
    """The times at which the GPU changes hands, and its pod from then on; None is no pod."""
    alone = sorted((each for each in assignments if not each.share), key=lambda each: (each.start_ns, each[1:4]))
    edges = sorted({each.start_ns for each in assignments} | {_end(each) for each in assignments})
    sharing = _Sharing([each for each in assignments if each.share])
    active: list[tuple[int, int]] = []  # a heap: the one that started last comes first
    place = 0
    changes: list[tuple[int, Pod | None]] = []
    for edge in edges:
        while place < len(alone) and alone[place].start_ns <= edge:
            heapq.heappush(active, (-place, _end(alone[place])))
            place += 1
        while active and active[0][1] <= edge:
            heapq.heappop(active)
        together = sharing.at(edge)
        changes.append((edge, _pod(alone[-active[0][0]]) if active else together))
    return changes


class _Sharing:
    """The pods that use a GPU together, from one time to the next."""

    def __init__(self, assignments: Sequence[PodAssignment]) -> None:
        starts = [(each.start_ns, 1, _pod(each)) for each in assignments]
        ends = [(_end(each), -1, _pod(each)) for each in assignments]
        self._steps = deque(sorted(starts + ends))
        self._pods: Counter[Pod] = Counter()

    def at(self, time_ns: int) -> Pod | None:
        """The pod that is alone, else the namespace that all have in common, as a pod without a name. Times ascend."""
        while self._steps and self._steps[0][0] <= time_ns:
            _, change, pod = self._steps.popleft()
            self._pods[pod] += change
            if not self._pods[pod]:
                del self._pods[pod]
        if len(self._pods) == 1:
            return next(iter(self._pods))
        namespaces = {namespace for namespace, _, _ in self._pods}
        return (namespaces.pop(), "", "") if len(namespaces) == 1 else None


def _pod(assignment: PodAssignment) -> Pod:
    return assignment.namespace, assignment.pod, assignment.container


def _end(assignment: PodAssignment) -> int:
    return _LAST_NS if assignment.end_ns is None else assignment.end_ns
