"""Updates one GPU's placements (the pods that ran on it, and when). Pure: rows come in, changed rows come out.

Readings seen before change nothing, so a message may be delivered twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import chain

from inventory.models import GPU, Placement
from inventory.sync.seen import NOTHING, Observation, Pod

# Pod labels flap in practice: a pod that returns to its GPU within this time never left.
RESUME_WITHIN = timedelta(minutes=10)
# Nothing marks the end of a share: it has ended when its GPU has readings this much newer.
SHARE_ENDS_AFTER = timedelta(minutes=5)


def update_placements(
    gpu: GPU, existing: Sequence[Placement], observations: Sequence[Observation], shares: Sequence[Observation]
) -> list[Placement]:
    """Returns the placements that are new (no primary key yet) or changed.

    ``gpu`` is the row after the merge. ``existing`` are its open placements and those within RESUME_WITHIN of the
    observations, which come in the order of their last readings.
    """
    before = {id(each): _state(each) for each in existing}
    by_pod: dict[Pod, list[Placement]] = {}  # thousands of pods may follow each other, or share a GPU
    for each in existing:
        by_pod.setdefault(pod_of(each), []).append(each)
    open_ones = _Open(each for each in existing if each.ended is None and not each.share)
    for seen in observations:
        if seen.pod is None:
            continue
        if seen.pod != NOTHING:
            of_pod = by_pod.setdefault(seen.pod, [])
            count = len(of_pod)
            extended = _extend(of_pod, gpu, seen)
            if len(of_pod) > count:
                open_ones.add(extended)
        open_ones.end_others(seen)
    for seen in shares:
        _extend(by_pod.setdefault(seen.pod or NOTHING, []), gpu, seen).share = True
    placements = list(chain.from_iterable(by_pod.values()))
    _close(placements, gpu)
    return [each for each in placements if before.get(id(each)) != _state(each)]


class _Open:
    """The open placements, shares excepted, by their last reading."""

    def __init__(self, placements: Iterable[Placement]) -> None:
        self._added = 0
        self._heap: list[tuple[datetime, int, Placement]] = []
        for each in placements:
            self.add(each)

    def add(self, placement: Placement) -> None:
        self._added += 1
        heappush(self._heap, (placement.last_seen, self._added, placement))

    def end_others(self, seen: Observation) -> None:
        """End those of other pods that the observation has replaced."""
        kept = []
        while self._heap and self._heap[0][0] < seen.last:
            _, _, placement = heappop(self._heap)
            if placement.ended is not None:
                continue
            if pod_of(placement) == seen.pod or placement.last_seen >= seen.last:
                kept.append(placement)
            else:
                placement.ended = placement.last_seen
        for placement in kept:
            self.add(placement)


def pod_of(placement: Placement | GPU) -> Pod:
    """The pod that the row names."""
    return Pod(placement.namespace, placement.pod, placement.container)


def _extend(same: list[Placement], gpu: GPU, seen: Observation) -> Placement:
    """Extend one of the pod's placements, or add one to them."""
    near = [
        each
        for each in same
        if each.started - RESUME_WITHIN <= seen.last and each.last_seen + RESUME_WITHIN >= seen.first
    ]
    # An open placement continued all the time, however rare the readings.
    near = near or [each for each in same if each.ended is None and each.started <= seen.first]
    if not near:
        namespace, pod, container = seen.pod or NOTHING
        new = Placement(
            gpu=gpu, namespace=namespace, pod=pod, container=container, started=seen.first, last_seen=seen.last
        )
        same.append(new)
        return new
    placement = min(near, key=lambda each: each.started)
    placement.started = min(placement.started, seen.first)
    placement.last_seen = max(placement.last_seen, seen.last)
    if placement.ended is not None:
        placement.ended = placement.last_seen
    return placement


def _close(placements: Sequence[Placement], gpu: GPU) -> None:
    """Closes every placement but the current ones."""
    now = pod_of(gpu)
    current = max((each for each in placements if pod_of(each) == now), key=lambda each: each.last_seen, default=None)
    for each in placements:
        is_open = each is current or (each.share and gpu.last_seen - each.last_seen <= SHARE_ENDS_AFTER)
        each.ended = None if is_open else each.last_seen


def _state(placement: Placement) -> tuple[object, ...]:
    return placement.started, placement.last_seen, placement.ended, placement.share
