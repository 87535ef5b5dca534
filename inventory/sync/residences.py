"""Where one GPU has sat: residences grown from stays. Pure: rows come in, changed rows come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from inventory.models import GPU, Host, Residence
from inventory.sync.seen import Stay


class Place(NamedTuple):
    """A slot of a host."""

    host_id: int | None
    slot: int | None


class Visit(NamedTuple):
    """A GPU seen in a place from one time to another."""

    place: Place
    first: datetime
    last: datetime


def place_of(row: GPU | Residence) -> Place:
    """Where the row says it is."""
    return Place(row.host_id, row.index)


def visits_of(stays: Iterable[Stay], hosts: Mapping[str, Host], known: Place) -> list[Visit]:
    """The places of the stays that name a host. What a stay leaves out is as in the one before, at first as ``known``."""
    visits = []
    host_id, slot = known
    for stay in stays:
        host_id = hosts[stay.hostname].pk if stay.hostname else host_id
        slot = slot if stay.slot is None else stay.slot
        if host_id is not None:
            visits.append(Visit(Place(host_id, slot), stay.first, stay.last))
    return visits


def update_residences(
    gpu: GPU, known: Iterable[Residence], visits: Sequence[Visit], last_seen: datetime
) -> list[Residence]:
    """The residences that are new (no primary key yet) or changed.

    ``gpu`` is the row after it took in the visits, ``known`` all its residences, ``last_seen`` when it was last seen before.
    """
    by_place = {place_of(each): each for each in known}
    before = {place: (each.since, each.until) for place, each in by_place.items()}
    for place, first, last in visits:
        residence = by_place.get(place)
        if residence is None:
            by_place[place] = Residence(gpu=gpu, host_id=place.host_id, index=place.slot, since=first, until=last)
            continue
        residence.since = min(residence.since, first)
        if residence.until is not None:
            residence.until = max(residence.until, last)
    for place, residence in by_place.items():
        if place == place_of(gpu):
            residence.until = None
        elif residence.until is None:
            residence.until = max([last_seen, *(visit.last for visit in visits if visit.place == place)])
    return [each for place, each in by_place.items() if before.get(place) != (each.since, each.until)]
