"""Updates one GPU's residences (the host slots it was in, and when). Pure: rows come in, changed rows come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from inventory.models import GPU, Host, Residence
from inventory.sync.seen import Observation


class HostSlot(NamedTuple):
    """A slot of a host; None where unknown."""

    host_id: int | None
    slot: int | None


class HostAssignment(NamedTuple):
    """The GPU was seen in this slot from ``first`` to ``last``."""

    slot: HostSlot
    first: datetime
    last: datetime


def slot_of(row: GPU | Residence) -> HostSlot:
    """The slot that the row names."""
    return HostSlot(row.host_id, row.index)


def host_assignments(
    observations: Iterable[Observation], hosts: Mapping[str, Host], before: HostSlot
) -> list[HostAssignment]:
    """The slots of the observations. A missing host or index is taken from the previous one, at first from ``before``."""
    assignments = []
    host_id, slot = before
    for each in observations:
        host_id = hosts[each.hostname].pk if each.hostname else host_id
        slot = slot if each.slot is None else each.slot
        if host_id is not None:
            assignments.append(HostAssignment(HostSlot(host_id, slot), each.first, each.last))
    return assignments


def update_residences(
    gpu: GPU, existing: Iterable[Residence], assignments: Sequence[HostAssignment], last_seen: datetime
) -> list[Residence]:
    """Returns the residences that are new (no primary key yet) or changed.

    ``gpu`` is the row after the merge, ``existing`` all its residences, ``last_seen`` when it was last seen before.
    """
    by_slot = {slot_of(each): each for each in existing}
    before = {slot: (each.since, each.until) for slot, each in by_slot.items()}
    for slot, first, last in assignments:
        residence = by_slot.get(slot)
        if residence is None:
            by_slot[slot] = Residence(gpu=gpu, host_id=slot.host_id, index=slot.slot, since=first, until=last)
            continue
        residence.since = min(residence.since, first)
        if residence.until is not None:
            residence.until = max(residence.until, last)
    for slot, residence in by_slot.items():
        if slot == slot_of(gpu):
            residence.until = None
        elif residence.until is None:
            residence.until = max([last_seen, *(each.last for each in assignments if each.slot == slot)])
    return [each for slot, each in by_slot.items() if before.get(slot) != (each.since, each.until)]
