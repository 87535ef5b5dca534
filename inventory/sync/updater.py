"""Updates hosts, GPUs, residences and placements in the database: what is new about them in one flush."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from inventory.models import ASSET_FIELDS, GPU, Host, Placement, Residence
from inventory.sync.bulk import fetch, fetch_locked, make_missing, update_rows
from inventory.sync.merging import merge_seen
from inventory.sync.placements import RESUME_WITHIN, pod_of, update_placements
from inventory.sync.residences import HostAssignment, host_assignments, slot_of, update_residences
from inventory.sync.seen import NOTHING, Pod, Seen

logger = logging.getLogger(__name__)

_FIELDS = {field.name for field in GPU._meta.concrete_fields} - {"id", "uuid", "mig_id", "latest"} - ASSET_FIELDS
# Often nothing else has changed.
_TIME_FIELDS = {"first_seen", "last_seen"}


class _Move(NamedTuple):
    """Where a GPU was seen, and when it was last seen before."""

    assignments: Sequence[HostAssignment]
    last_seen: datetime


class TrulySeen(NamedTuple):
    """When a GPU was last seen, and when a reading last said whether a pod runs there (None: never)."""

    gpu: datetime
    pod: datetime | None


class Saved(NamedTuple):
    """The rows after a save: all of the GPUs seen, those that are new, and those with pods that share them."""

    rows: Mapping[str, GPU]
    new: Set[str]
    shared: Set[str]


def save_seen(seen: Mapping[str, Seen], known: Mapping[str, TrulySeen]) -> Saved:
    """Saves what was seen of each GPU, by id, with few statements. Call it in a transaction that holds ``lock_inventory``.

    The newest reading wins, by its own time: an older one never replaces a newer one. Shares make placements. They change
    the GPU's row only by creating it if it is missing. The rows' ``last_seen`` is behind: ``known`` has the true ones of
    those GPUs that have one. Raises django.db.Error.
    """
    times = _host_times(seen.values())
    new_hosts = make_missing(Host.objects, "name", times, lambda name: _host(name, times))
    hosts = fetch_locked(Host.objects, "name", times)

    def bare(gpu_id: str) -> GPU:
        each = seen[gpu_id]
        return GPU(id=gpu_id, uuid=each.uuid, mig_id=each.mig_id, first_seen=each.first, last_seen=each.first)

    new = frozenset(make_missing(GPU.objects, "id", seen, bare))
    rows = fetch_locked(GPU.objects.defer("latest"), "id", seen)
    if new_hosts:
        logger.info("new hosts: %s", ", ".join(new_hosts) if len(new_hosts) <= 10 else len(new_hosts))
    if new:
        logger.info("new GPUs: %d", len(new))
    known = {gpu_id: each for gpu_id, each in known.items() if gpu_id not in new}
    for gpu_id, last in known.items():
        rows[gpu_id].last_seen = max(rows[gpu_id].last_seen, last.gpu)
    pods = {gpu_id: pod_of(row) for gpu_id, row in rows.items()}
    _save_hosts(hosts, times)
    _save_gpus(seen, rows, new, hosts)
    return Saved(rows, new, _save_placements(seen, rows, pods, known))


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


def _save_gpus(seen: Mapping[str, Seen], rows: Mapping[str, GPU], new: Set[str], hosts: Mapping[str, Host]) -> None:
    read: list[GPU] = []
    described: list[GPU] = []
    moves: dict[str, _Move] = {}
    for gpu_id, each in seen.items():
        row = rows[gpu_id]
        if not each.observations and gpu_id not in new:
            continue
        slot = slot_of(row)
        assignments = host_assignments(each.observations or each.shares, hosts, slot)
        is_covered = gpu_id not in new and row.first_seen <= each.first
        if not is_covered or any(assignment.slot != slot for assignment in assignments):
            moves[gpu_id] = _Move(assignments, row.last_seen)
        changed = merge_seen(row, each, hosts)
        if changed:
            (read if changed <= _TIME_FIELDS else described).append(row)
    update_rows(read, _TIME_FIELDS)
    update_rows(described, _FIELDS)
    _save_residences(moves, rows)


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


def _save_placements(
    seen: Mapping[str, Seen], rows: Mapping[str, GPU], pods: Mapping[str, Pod], known: Mapping[str, TrulySeen]
) -> Set[str]:
    """Saves the placements; returns the GPUs with open shares. ``pods`` is what ran on each GPU before."""
    existing: dict[str, dict[int, Placement]] = defaultdict(dict)
    for placement in chain(
        fetch(Placement.objects.filter(ended=None), "gpu_id", list(seen)),
        _placements_near([each for each in seen.values() if _names_pods(each)]),
    ):
        existing[placement.gpu_id].setdefault(placement.pk, placement)
    changed: list[Placement] = []
    shared: set[str] = set()
    for gpu_id, each in seen.items():
        of_gpu = list(existing[gpu_id].values())
        if not of_gpu and not _names_pods(each):
            continue
        if gpu_id in known:
            _extend_to(of_gpu, pods[gpu_id], known[gpu_id])
        saved = update_placements(rows[gpu_id], of_gpu, each.observations, each.shares)
        changed += saved
        if any(placement.share and placement.ended is None for placement in (*of_gpu, *saved)):
            shared.add(gpu_id)
    Placement.objects.bulk_create([each for each in changed if each.pk is None])
    update_rows([each for each in changed if each.pk is not None], ("share", "started", "last_seen", "ended"))
    return shared


def _extend_to(placements: Iterable[Placement], pod: Pod, last: TrulySeen) -> None:
    """The pod that runs on the GPU has run until a reading last said so: its row is behind, as the GPU's is."""
    for each in placements:
        if each.ended is None and not each.share and last.pod is not None and pod_of(each) == pod:
            each.last_seen = max(each.last_seen, last.pod)


def _placements_near(seen: list[Seen]) -> Iterator[Placement]:
    """Placements that the pods seen may extend, open or not."""
    if not seen:
        return
    observed = [each for row in seen for each in (*row.observations, *row.shares)]
    oldest, newest = min(each.first for each in observed), max(each.last for each in observed)
    near = Placement.objects.filter(last_seen__gte=oldest - RESUME_WITHIN, started__lte=newest + RESUME_WITHIN)
    yield from fetch(near, "gpu_id", [each.id for each in seen])


def _names_pods(seen: Seen) -> bool:
    return bool(seen.shares) or any(each.pod not in (None, NOTHING) for each in seen.observations)
