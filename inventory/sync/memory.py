"""What a collector remembers of the inventory, so that it writes what has changed and reads nothing back."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from django.db import connections, router, transaction
from django.db.models import Count, Max

from inventory.bands import BandKeeper
from inventory.models import GPU, Host, MinuteBands, NewestRow
from inventory.packing import HostReadings, HostTable, pack, unpack
from inventory.sync.bulk import fetch, lock_inventory
from inventory.sync.placements import RESUME_WITHIN, pod_of
from inventory.sync.seen import Pod, gather
from inventory.sync.sightings import Latest, NewestValues, Sighting, Sightings
from inventory.sync.updater import Saved, TrulySeen, save_seen
from readings.catalogue import is_of_board
from readings.model import Gpu
from readings.times import to_datetime

# GPUs and shares in one transaction: a row that is read, merged and written takes some kilobytes.
MOST_AT_ONCE = 10_000
# How far the times in the rows of GPUs, hosts and open placements may be behind.
REFRESH_SECONDS = 60.0
# How seldom a minute's bands are written while it lasts: packing them costs as much as the readings do.
BAND_SECONDS = 5.0
# A GPU that was away for longer is looked up again: it may have been forgotten, and its pod is another one even if it has the same name.
_AWAY_NS = int(RESUME_WITHIN.total_seconds()) * 1_000_000_000

# A row of a table: the GPU's.
_Place = tuple[HostTable, int]


class _Familiar:
    """A GPU that has been described in the same words since ``since_ns``: its rows say so."""

    __slots__ = ("gpu", "last_ns", "since_ns")

    def __init__(self, gpu: Gpu, since_ns: int, last_ns: int) -> None:
        self.gpu = gpu
        self.since_ns = since_ns
        self.last_ns = last_ns


class InventoryMemory:
    """The inventory as one writer (a COLLECTOR_ID) left it. Not thread-safe.

    ``save`` writes its newest readings host by host. Rows of hosts, GPUs, residences and placements are read and written
    only for GPUs that are new to it, are described in other words than before, or have older readings than before. It
    loads its own newest readings once, and again when another process has written them: one that removed GPUs, or that
    had the same id.
    """

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._refreshed_at = time.monotonic()
        self._forget()

    def _forget(self) -> None:
        self._version: int | None = -1  # none of them: load
        self._tables: dict[str, HostTable] = {}
        self._places: dict[str, _Place] = {}
        self._known: dict[str, _Familiar] = {}
        self._models: dict[str, str] = {}  # of physical GPUs
        self._bands = BandKeeper()
        self._bands_due = 0.0
        self._behind: dict[str, tuple[int, int]] = {}  # last seen, and with a pod: what the rows do not say yet

    def save(self, sightings: Sightings) -> int:
        """Updates the inventory, in one transaction for some thousand GPUs. ``sightings`` is not changed.

        The newest reading wins, by its own time, whichever writer saves it and however often. Returns how many counters
        restarted. Raises django.db.Error if the database cannot be written; the part in hand is not saved then, and the
        restarts of those before it are not counted again.
        """
        if not sightings:
            return 0
        resets = 0
        try:
            for part in sightings.parts(MOST_AT_ONCE):
                with transaction.atomic():
                    resets += self._save(part)
            if time.monotonic() - self._refreshed_at >= REFRESH_SECONDS:
                self.refresh()
        except BaseException:
            self._forget()  # it may be ahead of the database now
            raise
        return resets

    def refresh(self) -> None:
        """Writes when hosts, GPUs and open placements were last seen into their rows. Raises django.db.Error."""
        self._refreshed_at = time.monotonic()
        if not self._behind:
            return
        with transaction.atomic():
            lock_inventory()
            self._agree()
            there = set(GPU.objects.values_list("pk", flat=True))
            self._drop([gpu_id for gpu_id in self._places if gpu_id not in there])
            self._write_tables()  # first, since it leaves out hosts without GPUs
            self._write_times({gpu_id: each for gpu_id, each in self._behind.items() if gpu_id in there})
            self._write_bands()
        self._behind = {}

    def _save(self, sightings: Sightings) -> int:
        lock_inventory()
        self._agree()
        strange = self._strange_boards(sightings)
        if strange:
            self._save_rows(sightings if len(strange) == len(sightings) else sightings.of_boards(strange))
        resets = self._merge(sightings)
        self._write_tables()
        return resets

    # What is remembered, and whether the database still agrees.

    def _agree(self) -> None:
        """Load the tables if somebody else has written them since: who removes a GPU takes it out of all rows."""
        mine = NewestRow.objects.filter(writer=self._writer)
        state = mine.aggregate(newest=Max("version"), rows=Count("pk"))
        version = state["newest"]
        # A row that is gone need not have been the newest.
        if version == self._version and state["rows"] == len(self._tables):
            return
        self._version = version
        self._tables = {row.host: HostTable(unpack(bytes(row.data))) for row in mine}
        self._places = {}
        newest: dict[str, int] = {}
        for table in self._tables.values():
            for row, gpu_id in enumerate(table.gpu_ids):
                if table.last_seen_ns[row] >= newest.get(gpu_id, -1):
                    newest[gpu_id] = int(table.last_seen_ns[row])
                    self._places[gpu_id] = table, row
        # Another process with our id may have seen more of a GPU, and written other words into its rows.
        self._known = {
            gpu_id: each for gpu_id, each in self._known.items() if gpu_id in newest and newest[gpu_id] <= each.last_ns
        }
        self._behind = {gpu_id: each for gpu_id, each in self._behind.items() if gpu_id in self._places}

    def _strange_boards(self, sightings: Sightings) -> set[str]:
        """The uuids of boards of which anything was seen that their rows do not say yet."""
        strange = {span.gpu.uuid for span in sightings.shares()}
        for gpu_id, sighting in sightings.gpus():
            if not self._is_as_before(gpu_id, sighting):
                strange.add(sighting.uuid)
        return strange

    def _is_as_before(self, gpu_id: str, sighting: Sighting) -> bool:
        known, span = self._known.get(gpu_id), sighting.only_span
        return (
            known is not None
            and span is not None
            and span.first_ns >= known.since_ns
            and span.first_ns - known.last_ns <= _AWAY_NS
            and span.gpu == known.gpu
            and sighting.uuid in self._places
        )

    # The rows of GPUs, hosts, residences and placements.

    def _save_rows(self, sightings: Sightings) -> None:
        seen = gather(sightings)
        saved = save_seen(seen, self._last_seen(seen))
        self._drop([gpu_id for gpu_id in saved.new if gpu_id in self._places])
        self._place({gpu_id: saved.rows[gpu_id] for gpu_id, each in seen.items() if each.observations})
        for gpu_id in seen:
            self._known.pop(gpu_id, None)
        self._models.update((gpu_id, row.model_name) for gpu_id, row in saved.rows.items() if not row.mig_id)
        for gpu_id, sighting in sightings.gpus():
            self._remember(gpu_id, sighting, saved)

    def _remember(self, gpu_id: str, sighting: Sighting, saved: Saved) -> None:
        """Unless the rows say something newer or something else, and while pods share it: their ends must be found."""
        span, row = sighting.spans()[-1], saved.rows[gpu_id]
        pod = Pod(span.gpu.namespace, span.gpu.pod, span.gpu.container)
        is_shared = not saved.shared.isdisjoint((gpu_id, row.uuid))
        if row.last_seen == to_datetime(span.last_ns) and pod_of(row) == pod and not is_shared:
            self._known[gpu_id] = _Familiar(span.gpu, span.first_ns, span.last_ns)

    def _last_seen(self, gpu_ids: Collection[str]) -> dict[str, TrulySeen]:
        """When each was last seen, by any writer."""
        rows = fetch(GPU.objects.select_related("host").only("host__name"), "pk", list(gpu_ids))
        hosts = {gpu.host.name if gpu.host else "" for gpu in rows}
        others = fetch(NewestRow.objects.exclude(writer=self._writer), "host", sorted(hosts))
        tables: Iterable[HostTable | HostReadings] = chain(
            self._tables.values(), (unpack(bytes(row.data)) for row in others)
        )
        found: dict[str, tuple[int, int]] = {}
        for table in tables:
            for gpu_id, gpu_ns, pod_ns in zip(
                table.gpu_ids, table.last_seen_ns.tolist(), table.pod_seen_ns.tolist(), strict=True
            ):
                if gpu_id in gpu_ids:
                    before = found.get(gpu_id, (0, 0))
                    found[gpu_id] = max(before[0], gpu_ns), max(before[1], pod_ns)
        return {
            gpu_id: TrulySeen(to_datetime(gpu_ns), to_datetime(pod_ns) if pod_ns else None)
            for gpu_id, (gpu_ns, pod_ns) in found.items()
        }

    # The tables of newest readings.

    def _place(self, rows: Mapping[str, GPU]) -> None:
        """Gives each GPU a place in the table of its host; one that has moved takes its readings along."""
        hosts = Host.objects.in_bulk({row.host_id for row in rows.values() if row.host_id is not None})
        arriving: dict[str, list[str]] = defaultdict(list)
        moving: dict[int, list[str]] = defaultdict(list)
        for gpu_id, row in rows.items():
            hostname = "" if row.host_id is None else hosts[row.host_id].name
            place = self._places.get(gpu_id)
            if place is None:
                arriving[hostname].append(gpu_id)
            elif place[0] is not self._tables.get(hostname):
                arriving[hostname].append(gpu_id)
                moving[id(place[0])].append(gpu_id)
        taken = {gpu_id: self._places[gpu_id] for gpu_id in chain.from_iterable(moving.values())}
        for hostname, gpu_ids in arriving.items():
            table = self._tables.setdefault(hostname, HostTable())
            first = len(table.gpu_ids)
            table.add(gpu_ids)
            for row_number, gpu_id in enumerate(gpu_ids, first):
                self._places[gpu_id] = table, row_number
                if gpu_id in taken:
                    table.copy(row_number, *taken[gpu_id])
        for gpu_ids in moving.values():
            self._remove_from(taken[gpu_ids[0]][0], gpu_ids)

    def _drop(self, gpu_ids: Collection[str]) -> None:
        """Forgets GPUs that have been removed."""
        by_table: dict[int, list[str]] = defaultdict(list)
        for gpu_id in gpu_ids:
            by_table[id(self._places[gpu_id][0])].append(gpu_id)
        tables = {key: self._places[ids[0]][0] for key, ids in by_table.items()}
        for gpu_id in gpu_ids:
            del self._places[gpu_id]
            self._known.pop(gpu_id, None)
            self._behind.pop(gpu_id, None)
        for key, ids in by_table.items():
            self._remove_from(tables[key], ids)

    def _remove_from(self, table: HostTable, gpu_ids: Iterable[str]) -> None:
        table.remove(set(gpu_ids))
        for row, gpu_id in enumerate(table.gpu_ids):
            self._places[gpu_id] = table, row

    def _merge(self, sightings: Sightings) -> int:
        """Takes the newest readings over into the tables; returns how many counters restarted."""
        whole: dict[tuple[int, tuple[str, ...]], _WholePoints] = {}
        single: list[tuple[HostTable, int, NewestValues]] = []
        of_boards: dict[str, Latest] = defaultdict(dict)
        for gpu_id, sighting in sightings.gpus():
            table, row = self._places[gpu_id]
            span = sighting.newest_span
            self._note(gpu_id, table, row, sighting, of_board=False)
            known = self._known.get(gpu_id)
            if known is not None and span.last_ns > known.last_ns:
                known.last_ns = span.last_ns
            for values in sighting.values():
                if values.whole:
                    key = id(table), values.names
                    points = whole.get(key)
                    if points is None:
                        points = whole[key] = _WholePoints(table, values.names)
                    points.add(row, values.whole_ns, values.whole)
                if values.partial:
                    single.append((table, row, values))
            if span.gpu.mig_id:
                _add_to_board(of_boards[sighting.uuid], sighting)
                self._note(sighting.uuid, *self._places[sighting.uuid], sighting, of_board=True)
        for uuid, latest in of_boards.items():
            if not latest:
                continue
            # Before the board's own, which win over them.
            table, row = self._places[uuid]
            board_values, times = zip(*latest.values(), strict=True)
            table.merge_each(row, tuple(latest), np.array(times, np.int64), np.array(board_values, np.float64))
        resets = sum(points.merge() for points in whole.values())
        for table, row, newest in single:
            for time_ns, point in newest.partial:
                resets += table.merge(newest.names, [row], [time_ns], [point])
        return resets

    def _note(self, gpu_id: str, table: HostTable, row: int, sighting: Sighting, *, of_board: bool) -> None:
        span = sighting.newest_span
        pod_ns = 0 if of_board else span.last_ns
        table.note(row, span.last_ns, pod_ns, live=span.origin.live, source=span.origin.source)
        gpu_before, pod_before = self._behind.get(gpu_id, (0, 0))
        self._behind[gpu_id] = max(gpu_before, span.last_ns), max(pod_before, pod_ns)

    # Writing.

    def _write_tables(self) -> None:
        changed = {host: table for host, table in self._tables.items() if table.changed}
        if not changed:
            return
        self._bands.take(changed, self._models)
        if self._bands.is_behind or time.monotonic() >= self._bands_due:
            self._write_bands()
        version = max(time.time_ns(), (self._version or 0) + 1)
        rows = [
            (host, self._writer, version, pack(table.readings())) for host, table in changed.items() if table.gpu_ids
        ]
        gone = [host for host, table in changed.items() if not table.gpu_ids]
        if gone:
            NewestRow.objects.filter(writer=self._writer, host__in=gone).delete()
            for host in gone:
                del self._tables[host]
        connection = connections[router.db_for_write(NewestRow)]
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO inventory_newestrow (host, writer, version, data) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (host, writer) DO UPDATE SET version = excluded.version, data = excluded.data",
                rows,
            )
        for table in changed.values():
            table.changed = False
        if rows:
            self._version = version
        elif not self._tables:
            self._version = None

    def _write_bands(self) -> None:
        """Writes the minutes that have changed. After a restart one is known in part: what was written with more values stays."""
        self._bands_due = time.monotonic() + BAND_SECONDS
        rows = [(each.minute, self._writer, each.readings, each.data) for each in self._bands.packed() if each.readings]
        with connections[router.db_for_write(MinuteBands)].cursor() as cursor:
            cursor.executemany(
                "INSERT INTO inventory_minutebands (minute, writer, readings, data) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (minute, writer) DO UPDATE SET readings = excluded.readings, data = excluded.data "
                "WHERE excluded.readings >= inventory_minutebands.readings",
                rows,
            )

    def _write_times(self, behind: Mapping[str, tuple[int, int]]) -> None:
        """Writes what the rows do not say yet, never an older time over a newer one."""
        connection = connections[router.db_for_write(GPU)]

        @cache  # a host's GPUs are mostly read at one time: half of the time that this takes
        def adapt(time_ns: int) -> Any:
            return connection.ops.adapt_datetimefield_value(to_datetime(time_ns))

        gpus, placements = [], []
        for gpu_id, (gpu_ns, pod_ns) in behind.items():
            seen = adapt(gpu_ns)
            gpus.append((seen, gpu_id, seen))
            known = self._known.get(gpu_id)
            if known is not None and pod_ns and known.gpu.pod:
                seen = adapt(pod_ns)
                gpu = known.gpu
                placements.append((seen, gpu_id, gpu.namespace, gpu.pod, gpu.container, seen))
        hosts = []
        for name, table in self._tables.items():
            seen = adapt(int(table.last_seen_ns.max()))
            hosts.append((seen, name, seen))
        with connection.cursor() as cursor:
            cursor.executemany("UPDATE inventory_host SET last_seen = %s WHERE name = %s AND last_seen < %s", hosts)
            cursor.executemany("UPDATE inventory_gpu SET last_seen = %s WHERE id = %s AND last_seen < %s", gpus)
            cursor.executemany(
                "UPDATE inventory_placement SET last_seen = %s WHERE gpu_id = %s AND ended IS NULL AND NOT share "
                "AND namespace = %s AND pod = %s AND container = %s AND last_seen < %s",
                placements,
            )


def _add_to_board(latest: Latest, instance: Sighting) -> None:
    """The newest of all instances, at equal times the largest."""
    for name, (value, time_ns) in instance.latest().items():
        if is_of_board(name):
            before = latest.get(name)
            if before is None or (time_ns, value) > (before[1], before[0]):
                latest[name] = (value, time_ns)


class _WholePoints:
    """Whole points of the GPUs of one host under one list of metric names: each of another GPU."""

    def __init__(self, table: HostTable, names: tuple[str, ...]) -> None:
        self._table = table
        self._names = names
        self._rows: list[int] = []
        self._times: list[int] = []
        self._values: list[Sequence[float | None]] = []

    def add(self, row: int, time_ns: int, values: Sequence[float | None]) -> None:
        self._rows.append(row)
        self._times.append(time_ns)
        self._values.append(values)

    def merge(self) -> int:
        return self._table.merge(self._names, self._rows, self._times, self._values)


def save_sightings(sightings: Sightings, writer: str = "") -> int:
    """Saves them as a writer does that remembers nothing. Returns how many counters restarted. Raises django.db.Error."""
    return InventoryMemory(writer).save(sightings)
