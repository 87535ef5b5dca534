"""Writing blocks into the readings' SQLite file: one transaction a call, no object per reading but its row."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from operator import itemgetter

from readings.model import Gpu, PointBlock
from stores.sqlite_schema import MINUTE_NS, Tables

_INSERT = "INSERT OR IGNORE INTO {p}reading (minute, series, time, value, identity) VALUES (?, ?, ?, ?, ?)"
_REPLACE = """
INSERT INTO {p}reading (minute, series, time, value, identity) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (minute, series, time) DO UPDATE SET value = excluded.value, identity = excluded.identity
WHERE value <> excluded.value OR identity <> excluded.identity
"""
_COUNT = """
INSERT INTO {p}minute (minute, readings, oldest_ns, newest_ns) VALUES (?, ?, ?, ?)
ON CONFLICT (minute) DO UPDATE SET readings = readings + excluded.readings,
    oldest_ns = min(oldest_ns, excluded.oldest_ns), newest_ns = max(newest_ns, excluded.newest_ns)
"""
_FIND_SERIES = "SELECT id FROM {p}series WHERE gpu = ? AND metric = ? AND namespace = ? AND pod = ? AND container = ?"
_ADD_SERIES = """
INSERT INTO {p}series (gpu, metric, namespace, pod, container, first_minute, last_minute) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_WIDEN_SERIES = """
UPDATE {p}series SET first_minute = min(first_minute, ?1), last_minute = max(last_minute, ?1)
WHERE id = ?2 AND (first_minute > ?1 OR last_minute < ?1)
"""
_FIND_IDENTITY = """
SELECT id FROM identity WHERE gpu = ? AND uuid = ? AND mig_id = ? AND gpu_id IS ? AND device = ? AND model_name = ?
AND hostname = ? AND container = ? AND pod = ? AND namespace = ?
"""
_ADD_IDENTITY = """
INSERT INTO identity (gpu, uuid, mig_id, gpu_id, device, model_name, hostname, container, pod, namespace,
first_minute, last_minute) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_WIDEN_IDENTITY = """
UPDATE identity SET first_minute = min(first_minute, ?1), last_minute = max(last_minute, ?1)
WHERE id = ?2 AND (first_minute > ?1 OR last_minute < ?1)
"""

# What is remembered of ids is only to save questions: past these sizes it is forgotten.
_IDS_KNOWN = 1_000_000
_MINUTES_KNOWN = 64

_Described = tuple[str, str, int | None, str, str, str, str, str, str]
_ReadingRow = tuple[int, int, int, float, int]


class Unstorable(Exception):
    """Something among the blocks cannot be kept; nothing was written. Take it out and write again."""


@dataclass(slots=True)
class _Minute:
    """What one call has for one minute."""

    rows: list[_ReadingRow] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    identities: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Known:
    """The ids of one GPU as it is described, for one list of metric names (a series is None until it has a reading)."""

    tables: Tables
    identity: int
    series: list[int | None]
    complete: bool


class Writer:
    """Writes through one connection; one thread at a time. After any error it must be thrown away with its connection.

    It remembers ids, of which other processes may write more, and retention may take some: hence the generation.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._generation = 0
        self._series: dict[Tables, dict[tuple[str, str, str, str, str], int]] = {}
        self._identities: dict[_Described, int] = {}
        self._known: dict[tuple[str, ...], dict[tuple[_Described, bool], _Known]] = {}
        # Minute -> ids whose bounds in the file are known to include it.
        self._series_seen: dict[tuple[Tables, int], set[int]] = {}
        self._identities_seen: dict[int, set[int]] = {}

    def write(self, blocks: Sequence[PointBlock]) -> int:
        """Store all blocks in one transaction; returns how many readings and shares they held.

        Raises Unstorable or sqlite3.Error; then nothing of them is stored.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        self._forget_what_may_be_gone()
        minutes: dict[Tables, dict[int, _Minute]] = {tables: {} for tables in Tables}
        try:
            for block in blocks:
                self._gather(block, minutes)
            written = 0
            for tables, by_minute in minutes.items():
                for minute, found in by_minute.items():
                    self._store(tables, minute, found)
                    written += len(found.rows)
        except (OverflowError, UnicodeEncodeError) as error:
            raise Unstorable from error
        self.connection.execute("COMMIT")
        return written

    def _forget_what_may_be_gone(self) -> None:
        (generation,) = self.connection.execute("SELECT generation FROM state").fetchone()
        known = len(self._identities)
        known += sum(map(len, self._series.values())) + sum(map(len, self._known.values()))
        if generation != self._generation or known > _IDS_KNOWN:
            self._generation = generation
            self._series = {tables: {} for tables in Tables}
            self._identities.clear()
            self._known.clear()
            self._series_seen.clear()
            self._identities_seen.clear()
        for seen in (self._series_seen, self._identities_seen):
            while len(seen) > _MINUTES_KNOWN:
                del seen[next(iter(seen))]  # type: ignore[arg-type]

    def _gather(self, block: PointBlock, minutes: dict[Tables, dict[int, _Minute]]) -> None:
        """Add a block's readings to the minutes they belong to."""
        known_here = self._known.setdefault(tuple(block.metric_names), {})
        gpus: list[tuple[_Known, dict[int, _Minute]] | None] = [None] * len(block.gpus)
        for index, time_ns, values in block.points:
            minute = time_ns // MINUTE_NS
            pair = gpus[index]
            if pair is None:
                gpu = block.gpus[index]
                key = (_describe(gpu), gpu.share)
                known = known_here.get(key)
                if known is None:
                    known = known_here[key] = self._known_ids(gpu, key[0], block.metric_names, minute)
                pair = gpus[index] = (known, minutes[known.tables])
            known, by_minute = pair
            if not known.complete:
                self._add_missing_series(known, block, index, values, minute)
            identity = known.identity
            rows = [
                (minute, series, time_ns, value, identity)
                for series, value in zip(known.series, values, strict=True)
                if value is not None
            ]
            if not rows:
                continue
            found = by_minute.get(minute)
            if found is None:
                found = by_minute[minute] = _Minute()
            found.rows += rows  # type: ignore[arg-type]  # a series is only None where the value is
            found.times.append(time_ns)
            found.identities.add(identity)

    def _known_ids(self, gpu: Gpu, described: _Described, metric_names: list[str], minute: int) -> _Known:
        tables = Tables.SHARES if gpu.share else Tables.READINGS
        known, gpu_id, share_of = self._series[tables], gpu.id, _share_of(gpu)
        series = [known.get((gpu_id, name, *share_of)) for name in metric_names]
        return _Known(tables, self._identity(gpu_id, described, minute), series, None not in series)

    def _add_missing_series(
        self, ids: _Known, block: PointBlock, index: int, values: list[float | None], minute: int
    ) -> None:
        """Give ids to the series that have a reading here. One that never has a reading gets none: it would be listed."""
        gpu = block.gpus[index]
        known = self._series[ids.tables]
        for place, value in enumerate(values):
            if value is None or ids.series[place] is not None:
                continue
            key = (gpu.id, block.metric_names[place], *_share_of(gpu))
            if key not in known:
                found = self.connection.execute(ids.tables.sql(_FIND_SERIES), key).fetchone()
                if found is None:
                    added = self.connection.execute(ids.tables.sql(_ADD_SERIES), (*key, minute, minute))
                    found = (added.lastrowid,)
                known[key] = found[0]
            ids.series[place] = known[key]
        ids.complete = None not in ids.series

    def _identity(self, gpu_id: str, described: _Described, minute: int) -> int:
        known = self._identities.get(described)
        if known is not None:
            return known
        row = (gpu_id, *described)
        found = self.connection.execute(_FIND_IDENTITY, row).fetchone()
        if found is None:
            found = (self.connection.execute(_ADD_IDENTITY, (*row, minute, minute)).lastrowid,)
        identity: int = found[0]
        self._identities[described] = identity
        return identity

    def _store(self, tables: Tables, minute: int, found: _Minute) -> None:
        """Insert what is new and count it; only where something was there already, compare and replace."""
        rows = found.rows
        # In key order neighbours land on one page. The sort is stable: of one reading told twice the later stays later.
        rows.sort(key=itemgetter(1))
        added = self.connection.executemany(tables.sql(_INSERT), rows).rowcount
        if added != len(rows):
            # Some were there, or the table's checks turned them away.
            _check_values(rows)
            self.connection.executemany(tables.sql(_REPLACE), rows)
        self.connection.execute(tables.sql(_COUNT), (minute, added, min(found.times), max(found.times)))

        series = {row[1] for row in rows}
        seen = self._series_seen.setdefault((tables, minute), set())
        if fresh := series - seen:
            self.connection.executemany(tables.sql(_WIDEN_SERIES), [(minute, each) for each in fresh])
            seen |= fresh
        seen = self._identities_seen.setdefault(minute, set())
        if fresh := found.identities - seen:
            self.connection.executemany(_WIDEN_IDENTITY, [(minute, each) for each in fresh])
            seen |= fresh


def _describe(gpu: Gpu) -> _Described:
    return (
        gpu.uuid, gpu.mig_id, gpu.gpu_id, gpu.device, gpu.model_name,
        gpu.hostname, gpu.container, gpu.pod, gpu.namespace,
    )  # fmt: skip


def _share_of(gpu: Gpu) -> tuple[str, str, str]:
    return (gpu.namespace, gpu.pod, gpu.container) if gpu.share else ("", "", "")


def _check_values(rows: list[_ReadingRow]) -> None:
    try:
        finite = all(isfinite(row[3]) for row in rows)
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        raise Unstorable
