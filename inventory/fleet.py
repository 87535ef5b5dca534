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
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from inventory.models import GPU, AssetState, Host
from inventory.newest import HostNewest, newest_by_host, stale_mask
from readings.mig import MEMORY_FREE, MEMORY_RESERVED, MEMORY_TOTAL, MEMORY_USED, UTILISATION, how_parts_combine
from readings.times import SECOND, to_ns

# An idle GPU with more than this in use is held: somebody's process has it, and does nothing with it.
HELD_MIB = 1024.0
# How many hosts of a model must agree, and how far, before their number of GPUs is expected of the others.
FEWEST_HOSTS, AGREEMENT = 5, 0.9

_Values = NDArray[np.float64]


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
class Fleet:
    """The physical GPUs and the slots without one. Row ``i`` of each array is one slot, by host name and slot number.

    ``ids`` has the GPU's id, empty for a slot where none was seen; ``host`` its host's place in ``hosts``; ``slot`` is -1
    where unknown. ``state`` holds SlotState. ``newest_ns`` is the newest reading of all.
    """

    hosts: tuple[HostNow, ...]
    ids: tuple[str, ...]
    host: NDArray[np.int32]
    slot: NDArray[np.int32]
    state: NDArray[np.uint8]
    models: tuple[str, ...]
    namespaces: tuple[str, ...]
    pods: tuple[str, ...]
    last_seen_ns: NDArray[np.int64]
    live: bool
    newest_ns: int | None
    _newest: Sequence[tuple[HostNewest, NDArray[np.int32], NDArray[np.bool_]]]
    _metrics: dict[str, _Values] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def rows_in(self, state: SlotState) -> NDArray[np.bool_]:
        """Which slots are in this state."""
        found: NDArray[np.bool_] = self.state == state
        return found

    def metric_names(self) -> list[str]:
        """The metrics that any GPU has, sorted."""
        return sorted({name for newest, _, _ in self._newest for name in newest.metric_names})

    def metric(self, name: str) -> _Values:
        """The newest value of each slot; NaN without one, or where it is old. Boards of MIG instances count as a whole."""
        values = self._metrics.get(name)
        if values is None:
            values = self._metrics[name] = self._read(name)
        return values

    def memory_total(self) -> _Values:
        """The memory of each GPU in MiB: as it says, else what is used, free and reserved together."""
        reserved = np.nan_to_num(self.metric(MEMORY_RESERVED))
        summed = self.metric(MEMORY_USED) + self.metric(MEMORY_FREE) + reserved
        said = self.metric(MEMORY_TOTAL)
        return np.where(np.isnan(said), summed, said)

    def is_idle(self) -> NDArray[np.bool_]:
        """Which GPUs report and do nothing."""
        idle: NDArray[np.bool_] = self.metric(UTILISATION) == 0.0
        return idle

    def is_held(self) -> NDArray[np.bool_]:
        """Which GPUs are idle and yet hold memory."""
        return self.is_idle() & (self.metric(MEMORY_USED) > HELD_MIB)

    def _read(self, name: str) -> _Values:
        own = np.full(len(self), np.nan)
        parts: list[tuple[NDArray[np.int32], _Values]] = []
        old_ns = int(settings.STALE_AFTER * SECOND)
        for newest, rows, is_part in self._newest:
            try:
                column = newest.metric_names.index(name)
            except ValueError:
                continue
            fresh = (newest.times_ns[:, column] >= newest.last_seen_ns - old_ns) & (rows >= 0)
            values = np.where(fresh, newest.values[:, column], np.nan)
            boards = fresh & ~is_part
            own[rows[boards]] = values[boards]
            if is_part.any():
                of_parts = fresh & is_part & ~np.isnan(values)
                parts.append((rows[of_parts], values[of_parts]))
        if parts:
            _add_parts(own, name, np.concatenate([rows for rows, _ in parts]), np.concatenate([v for _, v in parts]))
        own[self.state != SlotState.REPORTING] = np.nan
        return own


def _add_parts(own: _Values, name: str, rows: NDArray[np.int32], values: _Values) -> None:
    """Sets the boards that have no value of their own to what their MIG instances make."""
    combination = how_parts_combine(name)
    boards = np.unique(rows)
    boards = boards[np.isnan(own[boards])]
    if combination == "once":
        made = np.full(len(own), -np.inf)
        np.maximum.at(made, rows, values)
    else:
        made = np.zeros(len(own))
        np.add.at(made, rows, values)
        if combination == "average":
            made /= np.maximum(np.bincount(rows, minlength=len(own)), 1)
    own[boards] = made[boards]


class _Row(NamedTuple):
    id: str
    hostname: str
    slot: int
    model: str
    namespace: str
    pod: str
    asset_state: str


class _Slot(NamedTuple):
    row: _Row
    state: SlotState
    last_seen_ns: int


_lock = threading.Lock()
_cached: tuple[float, Fleet] | None = None


def fleet_now() -> Fleet:
    """The fleet, as of at most FLEET_SECONDS ago. Three queries, however large it is. Raises DatabaseError."""
    global _cached
    with _lock:  # those who ask at the same time wait for one answer
        now = time.monotonic()
        if _cached is not None and now - _cached[0] < settings.FLEET_SECONDS:
            return _cached[1]
        fleet = _read_fleet(time.time_ns())
        _cached = now, fleet
        return fleet


def _read_fleet(now_ns: int) -> Fleet:
    hosts = {
        name: (expected, state, owner, tags, seen)
        for name, expected, state, owner, tags, seen in Host.objects.exclude(
            asset_state=AssetState.RETIRED
        ).values_list("name", "expected_gpus", "asset_state", "owner", "tags", "last_seen")
    }
    rows = [
        _Row(gpu_id, hostname or "", -1 if slot is None else slot, *rest)
        for gpu_id, hostname, slot, *rest in GPU.objects.filter(mig_id="")
        .exclude(asset_state=AssetState.RETIRED)
        .values_list("id", "host__name", "index", "model_name", "namespace", "pod", "asset_state")
        if hostname is None or hostname in hosts
    ]
    newest = list(newest_by_host().values())
    seen = _last_seen(newest, now_ns)
    by_host: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_host[row.hostname].append(row)
    current = {name: _current(of_host, seen) for name, of_host in by_host.items()}
    learned = learned_counts(current.values())
    slots: list[_Slot] = []
    found: list[HostNow] = []
    for name in sorted({*hosts, *current}):
        expected, state, owner, tags, last_seen = hosts.get(name, (None, AssetState.ACTIVE, "", {}, None))
        of_host = _slots(name, current.get(name, []), expected, learned, seen, state)
        start = len(slots)
        slots += of_host
        last_ns = max((each.last_seen_ns for each in of_host), default=0) or (to_ns(last_seen) if last_seen else 0)
        found.append(HostNow(name, slice(start, len(slots)), state, owner, tags, last_ns))
    return _packed(found, slots, newest)


class _LastSeen(NamedTuple):
    last_ns: int
    stale: bool


def _last_seen(newest: Iterable[HostNewest], now_ns: int) -> dict[str, _LastSeen]:
    """When each board was last seen, itself or by one of its instances, and whether that is too long ago."""
    newest = [each for each in newest if each.gpu_ids]
    if not newest:
        return {}
    last = np.concatenate([each.last_seen_ns for each in newest])
    live = np.concatenate([each.live for each in newest])
    sources = [source for each in newest for source in each.sources]
    stale = stale_mask(last, live, sources, now_ns)
    seen: dict[str, _LastSeen] = {}
    ids = (gpu_id for each in newest for gpu_id in each.gpu_ids)
    for gpu_id, last_ns, is_stale in zip(ids, last.tolist(), stale.tolist(), strict=True):
        board = gpu_id.partition(":")[0]
        known = seen.get(board)
        if known is None or last_ns > known.last_ns:
            seen[board] = _LastSeen(last_ns, is_stale)
    return seen


_NEVER = _LastSeen(0, True)


def _current(rows: list[_Row], seen: Mapping[str, _LastSeen]) -> list[_Row]:
    """The GPUs of a host, without those that another has replaced in their slot."""
    newest: dict[int, int] = {}
    for row in rows:
        newest[row.slot] = max(newest.get(row.slot, 0), seen.get(row.id, _NEVER).last_ns)

    def is_current(row: _Row) -> bool:
        last_ns, stale = seen.get(row.id, _NEVER)
        return row.slot < 0 or not stale or last_ns == newest[row.slot]

    return [row for row in rows if is_current(row)]


def learned_counts(hosts: Iterable[Sequence[Any]]) -> dict[str, int]:
    """How many GPUs a host of each model has, where enough hosts agree. A host is of the model that most of its GPUs are."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for rows in hosts:
        if rows:
            counts[_model_of(rows)][len(rows)] += 1
    learned = {}
    for model, sizes in counts.items():
        size, agreeing = sizes.most_common(1)[0]
        if sizes.total() >= FEWEST_HOSTS and agreeing >= AGREEMENT * sizes.total():
            learned[model] = size
    return learned


def _model_of(rows: Sequence[Any]) -> str:
    model: str = Counter(row.model for row in rows).most_common(1)[0][0]
    return model


def _slots(
    name: str,
    rows: list[_Row],
    given: int | None,
    learned: Mapping[str, int],
    seen: Mapping[str, _LastSeen],
    host_state: str,
) -> list[_Slot]:
    """The slots of a host in their order: those of its GPUs, and those that should have one."""
    model = _model_of(rows) if rows else ""
    expected = given if given is not None else learned.get(model, 0) if name else 0
    is_reporting = {row.id: not seen.get(row.id, _NEVER).stale for row in rows}
    reports = any(is_reporting.values())
    slots = []
    for row in rows:
        state = SlotState.REPORTING
        if not is_reporting[row.id]:
            excused = AssetState.MAINTENANCE in (row.asset_state, host_state)
            state = SlotState.MAINTENANCE if excused else SlotState.MISSING if reports else SlotState.STALE
        slots.append(_Slot(row, state, seen.get(row.id, _NEVER).last_ns))
    taken = {row.slot for row in rows}
    free = (slot for slot in range(expected) if slot not in taken)
    state = SlotState.MAINTENANCE if host_state == AssetState.MAINTENANCE else SlotState.MISSING
    for slot, _ in zip(free, range(expected - len(rows)), strict=False):
        slots.append(_Slot(_Row("", name, slot, model, "", "", host_state), state, 0))
    return sorted(slots, key=lambda each: (each.row.slot, each.row.id))


def _packed(hosts: list[HostNow], slots: list[_Slot], newest: list[HostNewest]) -> Fleet:
    place = {slot.row.id: row for row, slot in enumerate(slots) if slot.row.id}
    mapped = []
    for each in newest:
        boards = [gpu_id.partition(":") for gpu_id in each.gpu_ids]
        rows = np.array([place.get(board, -1) for board, _, _ in boards], np.int32)
        mapped.append((each, rows, np.array([bool(colon) for _, colon, _ in boards], np.bool_)))
    host = np.zeros(len(slots), np.int32)
    for number, each_host in enumerate(hosts):
        host[each_host.rows] = number
    last_seen = np.array([slot.last_seen_ns for slot in slots], np.int64)
    return Fleet(
        hosts=tuple(hosts),
        ids=tuple(slot.row.id for slot in slots),
        host=host,
        slot=np.array([slot.row.slot for slot in slots], np.int32),
        state=np.array([slot.state for slot in slots], np.uint8),
        models=tuple(slot.row.model for slot in slots),
        namespaces=tuple(slot.row.namespace for slot in slots),
        pods=tuple(slot.row.pod for slot in slots),
        last_seen_ns=last_seen,
        live=any(bool(each.live.any()) for each in newest),
        newest_ns=int(last_seen.max()) if len(last_seen) and last_seen.max() else None,
        _newest=mapped,
    )
