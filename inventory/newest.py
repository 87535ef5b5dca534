"""The newest readings of the fleet, host by host."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from django.conf import settings
from django.db.models import Q
from numpy.typing import NDArray

from inventory.models import GPU, NewestRow
from inventory.packing import HostReadings, HostTable, Ints, pack, rows_of, unpack, without
from readings.times import SECOND, to_ns

# Databases limit the parameters of a statement.
_MOST_KEYS = 10_000
_MOST_HOSTS_NAMED = 200


@dataclass(frozen=True, slots=True)
class HostNewest:
    """The newest readings of a host's GPUs and MIG instances: row ``i`` of each array is of ``gpu_ids[i]``.

    ``values`` (float64, GPUs x metrics) has NaN and ``times_ns`` (int64, the same shape) 0 where there is no reading.
    ``last_seen_ns`` (int64) is each GPU's newest reading of all. ``live`` (bool): its times are those of a live source,
    not of a capture. ``sources`` names the streamer that gave the newest reading.
    """

    hostname: str
    gpu_ids: tuple[str, ...]
    last_seen_ns: NDArray[np.int64]
    live: NDArray[np.bool_]
    sources: tuple[str, ...]
    metric_names: tuple[str, ...]
    values: NDArray[np.float64]
    times_ns: NDArray[np.int64]


def newest_by_host(hostnames: Collection[str] | None = None) -> dict[str, HostNewest]:
    """The newest readings by host name, of all hosts or of those named. GPUs without a host are under ``""``.

    GPUs are in the order of their slots and ids. Those without any reading are there too, last seen when the inventory
    says. Two queries, one more for what has changed since the last call, and one more if a GPU has no reading.
    """
    by_host = _gpus_by_host(hostnames)
    rows = _rows(by_host if hostnames is not None else None)
    found = {name: _host_newest(name, tuple(gpu_ids), rows.get(name, ())) for name, gpu_ids in by_host.items()}
    _add_unread(found)
    return found


def newest_tables() -> list[HostReadings]:
    """What each collector saw last of each host, in the order in which they wrote that.

    A GPU may be in several: then its newest reading counts, and of equally new ones that of the later table. GPUs that the
    inventory no longer has in that host may be in them too. Two queries.
    """
    rows = [row for of_host in _rows(None).values() for row in of_host]
    return [row.readings for row in sorted(rows, key=attrgetter("version"))]


def forget_newest(gpu_ids: Set[str]) -> None:
    """Takes removed GPUs out of all rows. Call it in the transaction that removes them, after ``lock_inventory``."""
    for row in NewestRow.objects.all():
        readings = unpack(bytes(row.data))
        if gpu_ids.isdisjoint(readings.gpu_ids):
            continue
        left = without(readings, gpu_ids)
        if left.gpu_ids:
            row.data, row.version = pack(left), max(time.time_ns(), row.version + 1)
            row.save(update_fields=["data", "version"])
        else:
            row.delete()


def stale_mask(last_seen_ns: Ints, live: NDArray[np.bool_], sources: Sequence[str], now_ns: int) -> NDArray[np.bool_]:
    """Which GPUs are stale: their newest reading is more than STALE_AFTER old. Row ``i`` of each argument is one GPU.

    A live source's readings age by the clock, ``now_ns``. Those of a capture age by the newest reading of its source, so
    that a replay is not all stale: give all GPUs of a source, or of the fleet, at once.
    """
    return np.asarray(last_seen_ns < fresh_since(last_seen_ns, live, sources, now_ns), np.bool_)


def fresh_since(last_seen_ns: Ints, live: NDArray[np.bool_], sources: Sequence[str], now_ns: int) -> Ints:
    """The time from which on a reading of each GPU is fresh, in ns: as ``stale_mask`` judges it."""
    reference = np.full(len(last_seen_ns), now_ns, np.int64)
    if not live.all():
        of_source = np.unique(np.array(sources, np.str_), return_inverse=True)[1].reshape(-1)
        newest = np.zeros(len(last_seen_ns), np.int64)
        np.maximum.at(newest, of_source[~live], last_seen_ns[~live])
        reference = np.where(live, reference, newest[of_source])
    return np.asarray(reference - int(settings.STALE_AFTER * SECOND), np.int64)


def fresh_since_of(hosts: Collection[HostNewest]) -> Ints:
    """The same for the GPUs of these hosts, one host after the other. Give all hosts at once. Raises ValueError for none."""
    last_seen = np.concatenate([host.last_seen_ns for host in hosts])
    live = np.concatenate([host.live for host in hosts])
    return fresh_since(last_seen, live, list(chain.from_iterable(host.sources for host in hosts)), time.time_ns())


def _gpus_by_host(hostnames: Collection[str] | None) -> dict[str, list[str]]:
    gpus = GPU.objects.order_by("index", "id")
    found = gpus.values_list("host__name", "id")
    if hostnames is not None:
        named = Q(host__name__in=hostnames)
        found = found.filter(named | Q(host=None) if "" in hostnames else named)
    by_host: dict[str, list[str]] = defaultdict(list)
    for name, gpu_id in found:
        by_host[name or ""].append(gpu_id)
    return by_host


class _UnpackedRow(NamedTuple):
    """A row of the database, unpacked."""

    version: int
    readings: HostReadings


_Key = tuple[str, str]
# By host and writer. Unpacking is the work: rows that have not changed are kept from call to call.
_unpacked: dict[_Key, _UnpackedRow] = {}
_merged: dict[str, tuple[tuple[str, ...], tuple[int, ...], HostNewest]] = {}
_lock = threading.Lock()


def _rows(hostnames: Collection[str] | None) -> dict[str, list[_UnpackedRow]]:
    """The rows of each host, the one written last at the end."""
    rows = NewestRow.objects.all()
    if hostnames is not None:
        rows = rows.filter(host__in=hostnames)
    versions = {(host, writer): version for host, writer, version in rows.values_list("host", "writer", "version")}
    with _lock:
        known = {key: row for key in versions if (row := _unpacked.get(key)) is not None}
    changed = {host for (host, writer), version in versions.items() if _version(known, (host, writer)) != version}
    if changed:
        if len(changed) <= _MOST_HOSTS_NAMED:
            rows = rows.filter(host__in=changed)
        for host, writer, version, data in rows.values_list("host", "writer", "version", "data"):
            if _version(known, (host, writer)) != version:
                known[host, writer] = _UnpackedRow(version, unpack(bytes(data)))
        with _lock:
            if hostnames is None:
                _unpacked.clear()
                for gone in _merged.keys() - {host for host, _ in known}:
                    del _merged[gone]
            _unpacked.update(known)
    by_host: dict[str, list[_UnpackedRow]] = defaultdict(list)
    for (host, _), row in sorted(known.items(), key=lambda item: item[1].version):
        by_host[host].append(row)
    return by_host


def _version(rows: Mapping[_Key, _UnpackedRow], key: _Key) -> int | None:
    row = rows.get(key)
    return None if row is None else row.version


def _host_newest(hostname: str, gpu_ids: tuple[str, ...], rows: Sequence[_UnpackedRow]) -> HostNewest:
    versions = tuple(row.version for row in rows)
    with _lock:
        known = _merged.get(hostname)
    if known is not None and known[:2] == (gpu_ids, versions):
        return known[2]
    newest = _merge(hostname, gpu_ids, [row.readings for row in rows])
    if newest.last_seen_ns.all():
        with _lock:
            _merged[hostname] = gpu_ids, versions, newest
    return newest


def _merge(hostname: str, gpu_ids: tuple[str, ...], tables: Sequence[HostReadings]) -> HostNewest:
    """The newest by GPU and metric. At equal times the row written last wins."""
    if len(tables) == 1 and gpu_ids == tables[0].gpu_ids:
        return _of_table(hostname, tables[0])
    if len(tables) == 1 and set(gpu_ids) <= set(tables[0].gpu_ids):
        places = {gpu_id: row for row, gpu_id in enumerate(tables[0].gpu_ids)}
        return _of_table(hostname, rows_of(tables[0], [places[gpu_id] for gpu_id in gpu_ids]))
    merged = HostTable()
    merged.add(gpu_ids)
    places = {gpu_id: row for row, gpu_id in enumerate(gpu_ids)}
    for table in tables:
        for row, gpu_id in enumerate(table.gpu_ids):
            if gpu_id in places:  # else it has been removed, or has moved to another host
                merged.copy(places[gpu_id], table, row)
    return _of_table(hostname, merged.readings())


def _of_table(hostname: str, table: HostReadings) -> HostNewest:
    return HostNewest(
        hostname,
        table.gpu_ids,
        table.last_seen_ns,
        table.live,
        table.sources,
        table.metric_names,
        table.values,
        table.times_ns,
    )


def _add_unread(hosts: Mapping[str, HostNewest]) -> None:
    """When the GPUs without a reading were last seen, from the inventory."""
    places = {
        newest.gpu_ids[row]: (newest, row)
        for newest in hosts.values()
        if not newest.last_seen_ns.all()
        for row in np.flatnonzero(newest.last_seen_ns == 0).tolist()
    }
    ids = list(places)
    for start in range(0, len(ids), _MOST_KEYS):
        of_rows = GPU.objects.filter(pk__in=ids[start : start + _MOST_KEYS]).values_list("pk", "last_seen")
        for gpu_id, last_seen in of_rows:
            newest, row = places[gpu_id]
            newest.last_seen_ns[row] = to_ns(last_seen)
