"""The fleet now: which slots there are, what state each is in, and its newest readings.

A slot is a place for a GPU in a host. Its state is one of these, so that the counts of a fleet add up to what is expected:

- reporting: its GPU has a reading that is not stale (``inventory.newest.stale_mask``).
- stale: no GPU of the host reports, so the host or its exporter is away.
- missing: the host reports other GPUs, but not this one; or no GPU was ever seen in the slot.
- in maintenance: it does not report, and a person said that it need not.

Retired hosts and GPUs are no part of the fleet. A GPU that another one has replaced in its slot is no part of it either.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from inventory.expected import learned_counts
from inventory.models import GPU, AssetState, Host
from inventory.newest import fresh_since, newest_tables
from inventory.packing import HostReadings
from readings.mig import MEMORY_FREE, MEMORY_RESERVED, MEMORY_TOTAL, MEMORY_USED, UTILISATION, how_parts_combine
from readings.times import to_ns

# An idle GPU with more than this in use is held: somebody's process has it, and does nothing with it.
HELD_MIB = 1024.0
_MOST_KEYS = 10_000
# Of the metrics that were asked for, those that a fleet keeps: a URL may name any.
_MOST_KEPT = 64

_Values = NDArray[np.float64]
_Times = NDArray[np.int64]
_Mask = NDArray[np.bool_]
_Places = NDArray[np.int32]


class SlotState(IntEnum):
    """The state of a slot (see above)."""

    REPORTING = 0
    STALE = 1
    MISSING = 2
    MAINTENANCE = 3


@dataclass(frozen=True, slots=True)
class HostNow:
    """A host. ``rows`` are its slots' rows in the fleet's arrays; ``expected`` is how many those are."""

    name: str
    rows: slice
    asset_state: str
    owner: str
    tags: Mapping[str, str]
    last_seen_ns: int

    @property
    def expected(self) -> int:
        """How many GPUs it should report."""
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class Coded:
    """Names that repeat: ``names``, sorted and different, and for each slot its place among them, -1 for the empty name."""

    names: tuple[str, ...]
    places: _Places


@dataclass(frozen=True)
class Slots:
    """Which slots there are, by host and slot number: what does not change with the readings.

    ``ids`` has each GPU's id, empty for a slot where none was seen; ``host`` its host's place among the fleet's hosts;
    ``slot`` is -1 where unknown.
    """

    ids: tuple[str, ...]
    host: _Places
    slot: _Places
    models: tuple[str, ...]
    namespaces: tuple[str, ...]
    pods: tuple[str, ...]
    excused: _Mask  # in maintenance, itself or its host
    first: _Places  # the row where each host begins, and the end

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each GPU."""
        return {gpu_id: row for row, gpu_id in enumerate(self.ids) if gpu_id}

    @cached_property
    def has_gpu(self) -> _Mask:
        """Where a GPU was ever seen."""
        return np.array([bool(gpu_id) for gpu_id in self.ids], np.bool_)

    @cached_property
    def coded(self) -> tuple[Coded, Coded, Coded]:
        """Models, namespaces and pods."""
        return _coded(self.models), _coded(self.namespaces), _coded(self.pods)


def _coded(names: Sequence[str]) -> Coded:
    known = tuple(sorted({*names} - {""}))
    places = {name: place for place, name in enumerate(known)} | {"": -1}
    return Coded(known, np.array([places[name] for name in names], np.int32))


class Stack(NamedTuple):
    """The readings of GPUs that have the same metrics, one row each: ``rows`` are those of the fleet, -1 for none. ``columns`` are by metric.

    ``instances`` has a number for each MIG instance, whose row is its board's, and -1 for boards. Readings are fresh from
    ``fresh_since_ns`` on. Several rows may be of one GPU: of those that several collectors see.
    """

    columns: Mapping[str, int]
    rows: _Places
    instances: _Places
    fresh_since_ns: _Times
    values: _Values
    times_ns: _Times


@dataclass(frozen=True)
class Fleet:
    """The physical GPUs and the slots without one. Row ``i`` of each array is one slot of ``slots``.

    ``state`` holds SlotState. ``live`` says whether a live source reports. ``newest_ns`` is the newest reading of all.
    """

    hosts: tuple[HostNow, ...]
    slots: Slots
    state: NDArray[np.uint8]
    last_seen_ns: _Times
    live: bool
    newest_ns: int | None
    stacks: Sequence[Stack]
    _metrics: dict[str, _Values] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.slots.ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """The GPU in each slot."""
        return self.slots.ids

    @property
    def host(self) -> _Places:
        """The host of each slot."""
        return self.slots.host

    @property
    def slot(self) -> _Places:
        """The number of each slot in its host."""
        return self.slots.slot

    @property
    def models(self) -> tuple[str, ...]:
        """The model of each GPU."""
        return self.slots.models

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespace that uses each GPU now."""
        return self.slots.namespaces

    @property
    def pods(self) -> tuple[str, ...]:
        """The pod that uses each GPU now."""
        return self.slots.pods

    def rows_in(self, state: SlotState) -> _Mask:
        """Which slots are in this state."""
        found: _Mask = self.state == state
        return found

    def metric_names(self) -> list[str]:
        """The metrics that any GPU has, sorted."""
        return sorted({name for stack in self.stacks for name in stack.columns})

    def metric_names_of(self, model: str) -> set[str]:
        """The metrics that any GPU of this model has."""
        # The last is for what is not in the fleet, row -1.
        is_of_model = np.array([*(name == model for name in self.models), False], np.bool_)
        found: set[str] = set()
        for stack in self.stacks:
            has = np.any(stack.times_ns[is_of_model[stack.rows]] > 0, axis=0).tolist()
            found.update(name for name, column in stack.columns.items() if has[column])
        return found

    def metric(self, name: str) -> _Values:
        """The newest value of each slot; NaN without one, or where it is old. Boards of MIG instances count as a whole."""
        values = self._metrics.get(name)
        if values is None:
            values = self._read(name)
            if len(self._metrics) < _MOST_KEPT:
                self._metrics[name] = values
        return values

    def memory_total(self) -> _Values:
        """The memory of each GPU in MiB: as it says, else used, free and reserved together."""
        reserved = np.nan_to_num(self.metric(MEMORY_RESERVED))
        summed = self.metric(MEMORY_USED) + self.metric(MEMORY_FREE) + reserved
        said = self.metric(MEMORY_TOTAL)
        return np.where(np.isnan(said), summed, said)

    def is_idle(self) -> _Mask:
        """Which GPUs report and do nothing."""
        idle: _Mask = self.metric(UTILISATION) == 0.0
        return idle

    def is_held(self) -> _Mask:
        """Which GPUs are idle and yet hold memory."""
        return self.is_idle() & (self.metric(MEMORY_USED) > HELD_MIB)

    def _read(self, name: str) -> _Values:
        own = np.full(len(self), np.nan)
        found = _gathered(self.stacks, name)
        is_part = found.instances >= 0
        own[found.rows[~is_part]] = found.values[~is_part]
        if is_part.any():
            # Of an instance that several collectors see, only the newest reading counts.
            _, last = np.unique(found.instances[::-1], return_index=True)
            newest = len(is_part) - 1 - last
            newest = newest[is_part[newest]]
            _add_parts(own, name, found.rows[newest], found.values[newest])
        own[self.state != SlotState.REPORTING] = np.nan
        return own


class _FreshReadings(NamedTuple):
    rows: _Places
    instances: _Places
    values: _Values
    times_ns: _Times


def _gathered(stacks: Sequence[Stack], name: str) -> _FreshReadings:
    """The fresh readings of a metric, the newest last."""
    found: list[_FreshReadings] = []
    for stack in stacks:
        column = stack.columns.get(name)
        if column is None:
            continue
        times, values = stack.times_ns[:, column], stack.values[:, column]
        fresh = (times >= stack.fresh_since_ns) & (stack.rows >= 0) & ~np.isnan(values)
        found.append(_FreshReadings(stack.rows[fresh], stack.instances[fresh], values[fresh], times[fresh]))
    if not found:
        nothing = np.zeros(0, np.int32)
        return _FreshReadings(nothing, nothing, np.zeros(0), np.zeros(0, np.int64))
    rows, instances, values, times = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.argsort(times, kind="stable")
    return _FreshReadings(rows[order], instances[order], values[order], times[order])


def _add_parts(own: _Values, name: str, rows: _Places, values: _Values) -> None:
    """Sets the boards that have no value of their own to what their MIG instances make."""
    combination = how_parts_combine(name)
    boards = np.unique(rows)
    boards = boards[np.isnan(own[boards])]
    if combination == "once":
        made = np.full(len(own), -np.inf)
        np.maximum.at(made, rows, values)
    else:
        made = np.bincount(rows, weights=values, minlength=len(own)).astype(np.float64)
        if combination == "average":
            made /= np.maximum(np.bincount(rows, minlength=len(own)), 1)
    own[boards] = made[boards]


class _PlacedGpu(NamedTuple):
    """A GPU, in the order of the fleet. ``host`` counts from 1; 0 is none."""

    host: int
    slot: int
    id: str
    model: str
    namespace: str
    pod: str
    asset_state: str


class _Inventory(NamedTuple):
    """Hosts by name, and GPUs by host, slot and id: what the database has, without the retired."""

    hosts: tuple[HostNow, ...]  # without rows
    expected: tuple[int | None, ...]
    slots: Slots
    doubles: tuple[tuple[int, ...], ...]  # rows of GPUs with the same slot
    retired: Mapping[int, set[int]]  # slots of retired GPUs, by host


_lock = threading.Lock()
_cached: tuple[float, Fleet] | None = None
_inventory: tuple[float, _Inventory] | None = None
_placed: tuple[_Inventory, bytes, Slots] | None = None


def fleet_now() -> Fleet:
    """The fleet, as of at most FLEET_SECONDS ago, with hosts and pods as of at most INVENTORY_SECONDS ago.

    Five queries at most, however large it is. Raises DatabaseError.
    """
    global _cached
    with _lock:  # those who ask at the same time wait for one answer
        now = time.monotonic()
        if _cached is not None and now - _cached[0] < settings.FLEET_SECONDS:
            return _cached[1]
        fleet = _read_fleet(_inventory_now(now), time.time_ns())
        _cached = now, fleet
        return fleet


def _inventory_now(now: float) -> _Inventory:
    global _inventory
    if _inventory is None or now - _inventory[0] >= settings.INVENTORY_SECONDS:
        _inventory = now, _read_inventory()
    return _inventory[1]


def _read_inventory() -> _Inventory:
    hosts = list(
        Host.objects.exclude(asset_state=AssetState.RETIRED)
        .order_by("name")
        .values_list("pk", "name", "expected_gpus", "asset_state", "owner", "tags", "last_seen")
    )
    hosts.sort(key=lambda host: host[1])  # databases disagree on the order of names
    place = {pk: number for number, (pk, *_) in enumerate(hosts, 1)}
    gpus = [
        _PlacedGpu(place.get(host, 0), -1 if slot is None else slot, *rest)
        for host, slot, *rest in GPU.objects.filter(mig_id="").values_list(
            "host_id", "index", "pk", "model_name", "namespace", "pod", "asset_state"
        )
        if host is None or host in place
    ]
    rows = [gpu for gpu in gpus if gpu.asset_state != AssetState.RETIRED]
    rows.sort()
    # GPUs without a host are under one without a name, if there are any.
    nameless = bool(rows) and rows[0].host == 0
    found = [HostNow("", slice(0, 0), AssetState.ACTIVE, "", {}, 0)] if nameless else []
    found += [
        HostNow(name, slice(0, 0), state, owner, tags, to_ns(seen)) for _, name, _, state, owner, tags, seen in hosts
    ]
    expected = [None] * nameless + [host[2] for host in hosts]
    of_host = np.array([row.host for row in rows], np.int32) - int(not nameless)
    excused_host = np.array([host.asset_state == AssetState.MAINTENANCE for host in found], np.bool_)
    excused = np.array([row.asset_state == AssetState.MAINTENANCE for row in rows], np.bool_)
    if len(rows):
        excused |= excused_host[of_host]
    slots = Slots(
        ids=tuple(row.id for row in rows),
        host=of_host,
        slot=np.array([row.slot for row in rows], np.int32),
        models=tuple(row.model for row in rows),
        namespaces=tuple(row.namespace for row in rows),
        pods=tuple(row.pod for row in rows),
        excused=excused,
        first=np.searchsorted(of_host, np.arange(len(found) + 1)).astype(np.int32),
    )
    retired: dict[int, set[int]] = {}
    for gpu in gpus:
        if gpu.asset_state == AssetState.RETIRED and gpu.host and gpu.slot >= 0:
            retired.setdefault(gpu.host - int(not nameless), set()).add(gpu.slot)
    return _Inventory(tuple(found), tuple(expected), slots, _doubles(slots, int(nameless)), retired)


def _doubles(slots: Slots, first_host: int) -> tuple[tuple[int, ...], ...]:
    """Rows of GPUs that are, or were, in the same slot of a host."""
    rows = np.flatnonzero((slots.slot >= 0) & (slots.host >= first_host))
    same = (np.diff(slots.host[rows]) == 0) & (np.diff(slots.slot[rows]) == 0)
    found: list[list[int]] = []
    for at in np.flatnonzero(same).tolist():
        first, second = int(rows[at]), int(rows[at + 1])
        if found and found[-1][-1] == first:
            found[-1].append(second)
        else:
            found.append([first, second])
    return tuple(map(tuple, found))


def _read_fleet(inventory: _Inventory, now_ns: int) -> Fleet:
    tables = newest_tables()
    rows, instances = _rows_of(inventory.slots, [gpu_id for table in tables for gpu_id in table.gpu_ids])
    last_ns, stale, since = _last_seen(inventory.slots, tables, rows, now_ns)
    kept = np.ones(len(stale), np.bool_)
    for same in inventory.doubles:
        newest = max(int(last_ns[row]) for row in same)
        for row in same:
            kept[row] = not stale[row] or last_ns[row] == newest
    slots = _place(inventory, kept)
    # Slots where no GPU was seen have come in between, and -1 stays -1.
    moved = np.full(len(kept) + 1, -1, np.int32)
    moved[:-1][kept] = np.flatnonzero(slots.has_gpu)
    last_seen, is_stale = np.zeros(len(slots.ids), np.int64), np.ones(len(slots.ids), np.bool_)
    last_seen[slots.has_gpu], is_stale[slots.has_gpu] = last_ns[kept], stale[kept]
    reports = np.zeros(len(inventory.hosts) + 1, np.bool_)
    reports[slots.host[~is_stale]] = True
    if inventory.hosts and not inventory.hosts[0].name:
        reports[0] = False  # GPUs without a host say nothing of each other
    absent = np.where(reports[slots.host] | ~slots.has_gpu, SlotState.MISSING, SlotState.STALE)
    state = np.where(is_stale, np.where(slots.excused, SlotState.MAINTENANCE, absent), SlotState.REPORTING)
    return Fleet(
        hosts=_hosts(inventory.hosts, slots, last_seen),
        slots=slots,
        state=state.astype(np.uint8),
        last_seen_ns=last_seen,
        live=any(bool(table.live.any()) for table in tables),
        newest_ns=int(last_seen.max()) if last_seen.any() else None,
        stacks=_stacks(tables, moved[rows], instances, since),
    )


def _last_seen(
    slots: Slots, tables: Sequence[HostReadings], rows: _Places, now_ns: int
) -> tuple[_Times, _Mask, _Times]:
    """When each GPU was last seen, itself or by one of its instances; whether that is too long ago.

    And for each row of the tables, since when a reading is fresh.
    """
    last_ns, stale = np.zeros(len(slots.ids), np.int64), np.ones(len(slots.ids), np.bool_)
    since = np.zeros(0, np.int64)
    if tables:
        seen = np.concatenate([table.last_seen_ns for table in tables])
        live = np.concatenate([table.live for table in tables])
        since = fresh_since(seen, live, [source for table in tables for source in table.sources], now_ns)
        order = np.argsort(seen, kind="stable")
        order = order[rows[order] >= 0]
        last_ns[rows[order]], stale[rows[order]] = seen[order], (seen < since)[order]
    _add_unread(slots, last_ns)
    return last_ns, stale, since


def _add_unread(slots: Slots, last_ns: _Times) -> None:
    """When the GPUs without a reading were last seen, as the inventory says."""
    ids = [slots.ids[row] for row in np.flatnonzero(last_ns == 0).tolist()]
    for start in range(0, len(ids), _MOST_KEYS):
        rows = GPU.objects.filter(pk__in=ids[start : start + _MOST_KEYS]).values_list("pk", "last_seen")
        for gpu_id, last_seen in rows:
            last_ns[slots.row_of[gpu_id]] = to_ns(last_seen)


def _rows_of(slots: Slots, gpu_ids: Sequence[str]) -> tuple[_Places, _Places]:
    """The row of each GPU, -1 for what is not in the fleet; and a number for each MIG instance, whose row is its board's."""
    row_of = slots.row_of
    rows = np.array([row_of.get(gpu_id, -1) for gpu_id in gpu_ids], np.int32)
    instances = np.full(len(rows), -1, np.int32)
    numbers: dict[str, int] = {}
    for at in np.flatnonzero(rows < 0).tolist():
        board, colon, _ = gpu_ids[at].rpartition(":")
        if colon:
            rows[at], instances[at] = row_of.get(board, -1), numbers.setdefault(gpu_ids[at], len(numbers))
    return rows, instances


def _stacks(tables: Sequence[HostReadings], rows: _Places, instances: _Places, since: _Times) -> list[Stack]:
    by_names: dict[tuple[str, ...], list[tuple[HostReadings, int]]] = {}
    start = 0
    for table in tables:
        by_names.setdefault(table.metric_names, []).append((table, start))
        start += len(table.gpu_ids)
    stacks = []
    for names, alike in by_names.items():
        at = np.concatenate([np.arange(first, first + len(table.gpu_ids)) for table, first in alike])
        stacks.append(
            Stack(
                {name: column for column, name in enumerate(names)},
                rows[at],
                instances[at],
                since[at],
                np.concatenate([table.values for table, _ in alike]),
                np.concatenate([table.times_ns for table, _ in alike]),
            )
        )
    return stacks


def _place(inventory: _Inventory, kept: _Mask) -> Slots:
    """The slots: GPUs without those that another has replaced, and the slots that should have one."""
    global _placed
    key = np.packbits(kept).tobytes()
    if _placed is None or _placed[0] is not inventory or _placed[1] != key:
        _placed = inventory, key, _placed_slots(inventory, kept)
    return _placed[2]


def _placed_slots(inventory: _Inventory, kept: _Mask) -> Slots:
    slots, hosts = inventory.slots, inventory.hosts
    rows = np.flatnonzero(kept).tolist()
    counts = np.bincount(slots.host[kept], minlength=len(hosts)).tolist()
    models = _host_models(slots, kept, len(hosts))
    gone = {number: slots_of - _taken(slots, kept, number) for number, slots_of in inventory.retired.items()}
    whole = [count + len(gone.get(number, ())) for number, count in enumerate(counts)]
    learned = learned_counts(list(zip(models, whole, strict=True)))
    # (host, slot, row); row -1 where no GPU was seen.
    placed = [(int(slots.host[row]), int(slots.slot[row]), row) for row in rows]
    for number, given in enumerate(inventory.expected):
        expected = given if given is not None else learned.get(models[number], 0) if hosts[number].name else 0
        # A retired GPU is missed only where a person still expects it.
        excluded = gone.get(number, set()) if given is None else set()
        lacking = expected - counts[number] - len(excluded)
        if lacking > 0:
            taken = _taken(slots, kept, number) | excluded
            free = [slot for slot in range(expected) if slot not in taken]
            placed += [(number, slot, -1) for slot in free[:lacking]]
    if len(placed) > len(rows):
        placed.sort(key=lambda each: each[:2])
    of_host = np.array([number for number, _, _ in placed], np.int32)
    excused = np.array(
        [
            slots.excused[row] if row >= 0 else hosts[number].asset_state == AssetState.MAINTENANCE
            for number, _, row in placed
        ],
        np.bool_,
    )
    return Slots(
        ids=tuple(slots.ids[row] if row >= 0 else "" for _, _, row in placed),
        host=of_host,
        slot=np.array([slot for _, slot, _ in placed], np.int32),
        models=tuple(slots.models[row] if row >= 0 else models[number] for number, _, row in placed),
        namespaces=tuple(slots.namespaces[row] if row >= 0 else "" for _, _, row in placed),
        pods=tuple(slots.pods[row] if row >= 0 else "" for _, _, row in placed),
        excused=excused,
        first=np.searchsorted(of_host, np.arange(len(hosts) + 1)).astype(np.int32),
    )


def _taken(slots: Slots, kept: _Mask, host: int) -> set[int]:
    """The slots of a host that have a GPU."""
    rows = range(int(slots.first[host]), int(slots.first[host + 1]))
    return {int(slots.slot[row]) for row in rows if kept[row]}


def _host_models(slots: Slots, kept: _Mask, hosts: int) -> list[str]:
    """The model that most GPUs of each host are of."""
    models = []
    for number in range(hosts):
        names = [
            slots.models[row] for row in range(int(slots.first[number]), int(slots.first[number + 1])) if kept[row]
        ]
        models.append(names[0] if len(set(names)) == 1 else Counter(names).most_common(1)[0][0] if names else "")
    return models


def _hosts(hosts: Sequence[HostNow], slots: Slots, last_seen: _Times) -> tuple[HostNow, ...]:
    first = slots.first.tolist()
    newest = np.zeros(len(hosts), np.int64)
    np.maximum.at(newest, slots.host, last_seen)
    return tuple(
        HostNow(host.name, slice(start, end), host.asset_state, host.owner, host.tags, max(host.last_seen_ns, last))
        for host, start, end, last in zip(hosts, first, first[1:], newest.tolist(), strict=False)
    )
