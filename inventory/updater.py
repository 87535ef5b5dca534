"""Saves what a flush of readings says about hosts, GPUs and placements."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from django.db import transaction

from inventory.merging import counter_resets, merge_seen
from inventory.models import GPU, Host, Placement, Residence
from inventory.placing import RESUME_WITHIN, update_placements
from inventory.residing import Visit, place_of, update_residences, visits_of
from inventory.rows import fetch, fetch_locked, update_rows
from inventory.seen import NOTHING, Seen, gather
from inventory.sightings import Sightings

logger = logging.getLogger(__name__)

_FIELDS = {field.name for field in GPU._meta.concrete_fields} - {"id", "uuid", "mig_id"}
# What changes with every reading: most rows need no more than these written.
_READING_FIELDS = {"last_seen", "latest"}


class _Move(NamedTuple):
    """Where a GPU was seen, and when it was last seen before."""

    visits: Sequence[Visit]
    last_seen: datetime


def save_sightings(sightings: Sightings) -> int:
    """Bring the inventory up to what was seen, in one transaction and a number of statements that does not grow with GPUs.

    The newest reading decides, by its own time: an older one never replaces a newer one, whichever collector saves it
    and however often. Shares make placements; they leave the GPU's row alone, but for making one that is not there.
    ``sightings`` stays as it is. Returns how many counters began again. Raises django.db.Error when the database cannot be written; nothing is saved then.
    """
    if not sightings:
        return 0
    seen = gather(sightings)
    with transaction.atomic():
        hosts = _save_hosts(seen.values())
        rows, new = _lock_gpus(seen)
        resets = _save_gpus(seen, rows, new, hosts)
        _save_placements(seen, rows)
    return resets


def _save_hosts(seen: Iterable[Seen]) -> dict[str, Host]:
    """The hosts by name, made and brought up to date."""
    times: dict[str, tuple[datetime, datetime]] = {}
    for stay in chain.from_iterable((*each.stays, *each.shares) for each in seen):
        if stay.hostname:
            first, last = times.get(stay.hostname, (stay.first, stay.last))
            times[stay.hostname] = min(first, stay.first), max(last, stay.last)
    names = sorted(times)
    hosts = fetch_locked(Host.objects, "name", names)
    missing = [name for name in names if name not in hosts]
    if missing:
        Host.objects.bulk_create(
            [Host(name=name, first_seen=times[name][0], last_seen=times[name][1]) for name in missing],
            ignore_conflicts=True,  # another collector may make the same one at this moment
        )
        hosts |= fetch_locked(Host.objects, "name", missing)
        logger.info("new hosts: %s", ", ".join(missing) if len(missing) <= 10 else len(missing))
    changed = []
    for name, (first, last) in times.items():
        host = hosts[name]
        if first < host.first_seen or last > host.last_seen:
            host.first_seen, host.last_seen = min(first, host.first_seen), max(last, host.last_seen)
            changed.append(host)
    update_rows(changed, ("first_seen", "last_seen"))
    return hosts


def _lock_gpus(seen: Mapping[str, Seen]) -> tuple[dict[str, GPU], set[str]]:
    """The rows by id, locked until the transaction ends, and which are new: made bare, to be filled like the others."""
    rows = fetch_locked(GPU.objects, "id", list(seen))
    missing = [each for each in seen.values() if each.id not in rows]
    if missing:
        GPU.objects.bulk_create(
            [
                GPU(id=each.id, uuid=each.uuid, mig_id=each.mig_id, first_seen=each.first, last_seen=each.first)
                for each in missing
            ],
            ignore_conflicts=True,
        )
        rows |= fetch_locked(GPU.objects, "id", [each.id for each in missing])
        logger.info("new GPUs: %d", len(missing))
    return rows, {each.id for each in missing}


def _save_gpus(seen: Mapping[str, Seen], rows: Mapping[str, GPU], new: Set[str], hosts: Mapping[str, Host]) -> int:
    read: list[GPU] = []
    described: list[GPU] = []
    moves: dict[str, _Move] = {}
    resets = 0
    for gpu_id, each in seen.items():
        row = rows[gpu_id]
        if not each.stays and gpu_id not in new:
            continue
        visits = visits_of(each.stays or each.shares, hosts, place_of(row))
        known = gpu_id not in new and row.first_seen <= each.first
        if not known or any(visit.place != place_of(row) for visit in visits):
            moves[gpu_id] = _Move(visits, row.last_seen)
        resets += counter_resets(row, each)
        changed = merge_seen(row, each, hosts)
        if changed:
            (read if changed <= _READING_FIELDS else described).append(row)
    update_rows(read, _READING_FIELDS)
    update_rows(described, _FIELDS)
    _save_residences(moves, rows)
    return resets


def _save_residences(moves: Mapping[str, _Move], rows: Mapping[str, GPU]) -> None:
    """Only of GPUs that are new, moved, or were seen before the time they were known from."""
    known: dict[str, list[Residence]] = defaultdict(list)
    for residence in fetch(Residence.objects.all(), "gpu_id", list(moves)):
        known[residence.gpu_id].append(residence)
    changed: list[Residence] = []
    for gpu_id, (visits, last_seen) in moves.items():
        changed += update_residences(rows[gpu_id], known[gpu_id], visits, last_seen)
    Residence.objects.bulk_create([each for each in changed if each.pk is None])
    update_rows([each for each in changed if each.pk is not None], ("since", "until"))


def _save_placements(seen: Mapping[str, Seen], rows: Mapping[str, GPU]) -> None:
    known: dict[str, dict[int, Placement]] = defaultdict(dict)
    for placement in chain(
        fetch(Placement.objects.filter(ended=None), "gpu_id", list(seen)),
        _placements_near([each for each in seen.values() if _names_pods(each)]),
    ):
        known[placement.gpu_id].setdefault(placement.pk, placement)
    changed: list[Placement] = []
    for gpu_id, each in seen.items():
        if known[gpu_id] or _names_pods(each):
            changed += update_placements(rows[gpu_id], list(known[gpu_id].values()), each.stays, each.shares)
    Placement.objects.bulk_create([each for each in changed if each.pk is None])
    update_rows([each for each in changed if each.pk is not None], ("share", "started", "last_seen", "ended"))


def _placements_near(seen: list[Seen]) -> Iterator[Placement]:
    """Placements that the pods seen may prolong, open or not."""
    if not seen:
        return
    oldest, newest = min(each.first for each in seen), max(each.last for each in seen)
    near = Placement.objects.filter(last_seen__gte=oldest - RESUME_WITHIN, started__lte=newest + RESUME_WITHIN)
    yield from fetch(near, "gpu_id", [each.id for each in seen])


def _names_pods(seen: Seen) -> bool:
    return bool(seen.shares) or any(stay.pod not in (None, NOTHING) for stay in seen.stays)
