"""What ran on one GPU and when: placements grown from stays. Pure: rows come in, changed rows come out.

Readings that were told before change nothing, so a message may be delivered again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from inventory.models import GPU, Placement
from inventory.sync.seen import NOTHING, Pod, Stay

# Pod labels flap in practice: a pod that is back on its GPU within this time was never gone.
RESUME_WITHIN = timedelta(minutes=10)
# A share says nothing when it ends: it has ended when its GPU has readings this much newer.
SHARE_ENDS_AFTER = timedelta(minutes=5)


def update_placements(
    gpu: GPU, known: Sequence[Placement], stays: Sequence[Stay], shares: Sequence[Stay]
) -> list[Placement]:
    """The placements that are new (no primary key yet) or changed.

    ``gpu`` is the row after it took in the stays; ``known`` are its open placements and those within RESUME_WITHIN of
    the stays; ``stays`` come in the order of their last readings.
    """
    before = {id(each): _state(each) for each in known}
    placements = list(known)
    for stay in stays:
        if stay.pod is None:
            continue
        if stay.pod != NOTHING:
            _see(placements, gpu, stay)
        for each in placements:
            if each.ended is None and not each.share and pod_of(each) != stay.pod and each.last_seen < stay.last:
                each.ended = each.last_seen
    for stay in shares:
        _see(placements, gpu, stay).share = True
    _settle(placements, gpu)
    return [each for each in placements if before.get(id(each)) != _state(each)]


def pod_of(placement: Placement | GPU) -> Pod:
    """What the row says runs there."""
    return Pod(placement.namespace, placement.pod, placement.container)


def _see(placements: list[Placement], gpu: GPU, stay: Stay) -> Placement:
    same = [each for each in placements if pod_of(each) == stay.pod]
    near = [
        each
        for each in same
        if each.started - RESUME_WITHIN <= stay.last and each.last_seen + RESUME_WITHIN >= stay.first
    ]
    # An open one went on all the time, however rarely readings come.
    near = near or [each for each in same if each.ended is None and each.started <= stay.first]
    if not near:
        namespace, pod, container = stay.pod or NOTHING
        new = Placement(
            gpu=gpu, namespace=namespace, pod=pod, container=container, started=stay.first, last_seen=stay.last
        )
        placements.append(new)
        return new
    placement = min(near, key=lambda each: each.started)
    placement.started = min(placement.started, stay.first)
    placement.last_seen = max(placement.last_seen, stay.last)
    if placement.ended is not None:
        placement.ended = placement.last_seen
    return placement


def _settle(placements: Sequence[Placement], gpu: GPU) -> None:
    """Say of each placement whether it is open."""
    now = pod_of(gpu)
    current = max((each for each in placements if pod_of(each) == now), key=lambda each: each.last_seen, default=None)
    for each in placements:
        lasts = each is current or (each.share and gpu.last_seen - each.last_seen <= SHARE_ENDS_AFTER)
        each.ended = None if lasts else each.last_seen


def _state(placement: Placement) -> tuple[object, ...]:
    return placement.started, placement.last_seen, placement.ended, placement.share
