"""Updates hosts, GPUs and placements in the database from the readings of one flush."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from django.db import transaction

from inventory.models import ASSET_FIELDS, GPU, Host, Placement, Residence
from inventory.sync.bulk import fetch, fetch_locked, make_missing, update_rows
from inventory.sync.merging import counter_resets, merge_seen
from inventory.sync.placements import RESUME_WITHIN, update_placements
from inventory.sync.residences import HostAssignment, host_assignments, slot_of, update_residences
from inventory.sync.seen import NOTHING, Seen, gather
from inventory.sync.sightings import Sightings

logger = logging.getLogger(__name__)

# A row that is read, merged and written takes some kilobytes.
MOST_AT_ONCE = 10_000

_FIELDS = {field.name for field in GPU._meta.concrete_fields} - {"id", "uuid", "mig_id"} - ASSET_FIELDS
# These change with every reading. Most rows need nothing else written.
_READING_FIELDS = {"last_seen", "latest"}


class _Move(NamedTuple):
    """Where a GPU was seen, and when it was last seen before."""

    assignments: Sequence[HostAssignment]
    last_seen: datetime


def save_sightings(sightings: Sightings) -> int:
    """Updates the inventory, in one transaction for some thousand GPUs; the number of its statements does not grow with theirs.

    The newest reading wins, by its own time: an older one never replaces a newer one, whichever collector saves it and
    however often. Shares make placements. They change the GPU's row only by creating it if it is missing.
    ``sightings`` is not changed. Returns how many counters restarted. Raises django.db.Error if the database cannot be
    written; the part in hand is not saved then, and the restarts of those before it are not counted again.
    """
    return sum(_save_part(part) for part in sightings.parts(MOST_AT_ONCE)) if sightings else 0


def _save_part(sightings: Sightings) -> int:
    seen = gather(sightings)
    with transaction.atomic():
        resets = _save(seen)
    if resets is None:
        with transaction.atomic():
            resets = _save(seen, make=True)
    return resets or 0


def _save(seen: Mapping[str, Seen], *, make: bool = False) -> int | None:
    """Saves and returns how many counters restarted, or None if a host or GPU is missing. ``make`` creates those first.

    Rows are created before any is locked, and both in one order. Otherwise two collectors could deadlock, each waiting
    for a row that the other is creating.
    """
    times = _host_times(seen.values())
    new_hosts = make_missing(Host.objects, "name", times, lambda name: _host(name, times)) if make else []
    hosts = fetch_locked(Host.objects, "name", times)
    if len(hosts) < len(times):
        return None

    def bare(gpu_id: str) -> GPU:
        each = seen[gpu_id]
        return GPU(id=gpu_id, uuid=each.uuid, mig_id=each.mig_id, first_seen=each.first, last_seen=each.first)

    new = make_missing(GPU.objects, "id", seen, bare) if make else []
    rows = fetch_locked(GPU.objects, "id", seen)
    if len(rows) < len(seen):
        return None
    if new_hosts:
        logger.info("new hosts: %s", ", ".join(new_hosts) if len(new_hosts) <= 10 else len(new_hosts))
    if new:
        logger.info("new GPUs: %d", len(new))
    _save_hosts(hosts, times)
    resets = _save_gpus(seen, rows, set(new), hosts)
    _save_placements(seen, rows)
    return resets


_Times = Mapping[str, tuple[datetime, datetime]]


def _host_times(seen: Iterable[Seen]) -> _Times:
    """When each host was first and last seen."""
    times: dict[str, tuple[datetime, datetime]] = {}
    for each in chain.from_iterable((*row.observations, *row.shares) for row in seen):
        if each.hostname:
            first, last = times.get(each.hostname, (each.first, each.last))
            times[each.hostname] = min(first, each.first), max(last, each.last)
    return times


def _host(name: str, times: _Times) -> Host:
    first, last = times[name]
    return Host(name=name, first_seen=first, last_seen=last)


def _save_hosts(hosts: Mapping[str, Host], times: _Times) -> None:
    changed = []
    for name, (first, last) in times.items():
        host = hosts[name]
        if first < host.first_seen or last > host.last_seen:
            host.first_seen, host.last_seen = min(first, host.first_seen), max(last, host.last_seen)
            changed.append(host)
    update_rows(changed, ("first_seen", "last_seen"))


def _save_gpus(seen: Mapping[str, Seen], rows: Mapping[str, GPU], new: Set[str], hosts: Mapping[str, Host]) -> int:
    read: list[GPU] = []
    described: list[GPU] = []
    moves: dict[str, _Move] = {}
    resets = 0
    for gpu_id, each in seen.items():
        row = rows[gpu_id]
        if not each.observations and gpu_id not in new:
            continue
        slot = slot_of(row)
        assignments = host_assignments(each.observations or each.shares, hosts, slot)
        is_covered = gpu_id not in new and row.first_seen <= each.first
        if not is_covered or any(assignment.slot != slot for assignment in assignments):
            moves[gpu_id] = _Move(assignments, row.last_seen)
        resets += counter_resets(row, each)
        changed = merge_seen(row, each, hosts)
        if changed:
            (read if changed <= _READING_FIELDS else described).append(row)
    update_rows(read, _READING_FIELDS)
    update_rows(described, _FIELDS)
    _save_residences(moves, rows)
    return resets


def _save_residences(moves: Mapping[str, _Move], rows: Mapping[str, GPU]) -> None:
    """Saves those of GPUs that are new, have moved, or were seen earlier than known so far."""
    existing: dict[str, list[Residence]] = defaultdict(list)
    for residence in fetch(Residence.objects.all(), "gpu_id", list(moves)):
        existing[residence.gpu_id].append(residence)
    changed: list[Residence] = []
    for gpu_id, (assignments, last_seen) in moves.items():
        changed += update_residences(rows[gpu_id], existing[gpu_id], assignments, last_seen)
    Residence.objects.bulk_create([each for each in changed if each.pk is None])
    update_rows([each for each in changed if each.pk is not None], ("since", "until"))


def _save_placements(seen: Mapping[str, Seen], rows: Mapping[str, GPU]) -> None:
    existing: dict[str, dict[int, Placement]] = defaultdict(dict)
    for placement in chain(
        fetch(Placement.objects.filter(ended=None), "gpu_id", list(seen)),
        _placements_near([each for each in seen.values() if _names_pods(each)]),
    ):
        existing[placement.gpu_id].setdefault(placement.pk, placement)
    changed: list[Placement] = []
    for gpu_id, each in seen.items():
        if existing[gpu_id] or _names_pods(each):
            changed += update_placements(rows[gpu_id], list(existing[gpu_id].values()), each.observations, each.shares)
    Placement.objects.bulk_create([each for each in changed if each.pk is None])
    update_rows([each for each in changed if each.pk is not None], ("share", "started", "last_seen", "ended"))


def _placements_near(seen: list[Seen]) -> Iterator[Placement]:
    """Placements that the pods seen may extend, open or not."""
    if not seen:
        return
    oldest, newest = min(each.first for each in seen), max(each.last for each in seen)
    near = Placement.objects.filter(last_seen__gte=oldest - RESUME_WITHIN, started__lte=newest + RESUME_WITHIN)
    yield from fetch(near, "gpu_id", [each.id for each in seen])


def _names_pods(seen: Seen) -> bool:
    return bool(seen.shares) or any(each.pod not in (None, NOTHING) for each in seen.observations)
