"""Answering queries from the readings' SQLite file: minute by minute from the wanted end, never more than is needed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from stores.base import ReadingsQuery, RowBatch, SeriesLabels, StoreStats
from stores.sqlite_schema import MINUTE_NS, Tables

_FIRST_NS, _LAST_NS = -(1 << 63), (1 << 63) - 1
_NAMES_KNOWN = 500_000

# Which minutes are looked at in one statement: as many as should hold what is wanted, but at first no more than this
# many readings or seeks. Each further statement may cover four times as much.
_FIRST_BUDGET = 20_000
_LARGEST_BUDGET = 2_000_000
_SEEK_COST = 4  # one seek costs about as much as passing over so many readings
# Rows to skip that are worth a count of their own, rather than being fetched and thrown away.
_WORTH_COUNTING = 1000

_MINUTES = "SELECT minute, readings FROM {p}minute WHERE minute BETWEEN ? AND ? ORDER BY minute "

# Few series: one seek for each minute and series. CROSS JOIN keeps SQLite to that order.
FROM_SEEKS = """
FROM {p}minute AS m CROSS JOIN json_each(:series) AS s CROSS JOIN {p}reading AS r
WHERE m.minute BETWEEN :low AND :high AND r.minute = m.minute AND r.series = s.value
AND r.time >= :start AND r.time < :end
"""
# Many or all: the minutes' readings one after the other.
FROM_SCAN = """
FROM {p}reading AS r WHERE r.minute BETWEEN :low AND :high AND r.time >= :start AND r.time < :end
"""
_AMONG_SERIES = "AND r.series IN (SELECT value FROM json_each(:series)) "
_AMONG_IDENTITIES = "AND r.identity IN (SELECT value FROM json_each(:identities)) "

_SERIES_NAMES = """
SELECT id, gpu, metric, namespace, pod, container FROM {p}series WHERE id IN (SELECT value FROM json_each(?))
"""
_IDENTITIES = """
SELECT id, uuid, mig_id, gpu_id, device, model_name, hostname, container, pod, namespace
FROM identity WHERE id IN (SELECT value FROM json_each(?))
"""

_Found = tuple[int, int, float, int]  # time, series, value, identity
_Name = tuple[str, str, str, str, str]  # gpu, metric, and of a share namespace, pod, container
_Described = tuple[str, str, int | None, str, str, str, str, str, str]


class Names:
    """What ids stand for. An id never changes its meaning, so all threads share what any of them has looked up."""

    def __init__(self) -> None:
        self._series: dict[Tables, dict[int, _Name]] = {tables: {} for tables in Tables}
        self._identities: dict[int, _Described] = {}

    def series(self, connection: sqlite3.Connection, tables: Tables, ids: set[int]) -> dict[int, _Name]:
        """A mapping that has at least these series."""
        known = self._series[tables]
        if missing := ids - known.keys():
            if len(known) > _NAMES_KNOWN:
                known = self._series[tables] = {}
                missing = ids
            for key, *name in connection.execute(tables.sql(_SERIES_NAMES), (json.dumps(list(missing)),)):
                known[key] = (name[0], name[1], name[2], name[3], name[4])
        return known

    def identities(self, connection: sqlite3.Connection, ids: set[int]) -> dict[int, _Described]:
        """A mapping that has at least these identities."""
        known = self._identities
        if missing := ids - known.keys():
            if len(known) > _NAMES_KNOWN:
                known = self._identities = {}
                missing = ids
            for key, *described in connection.execute(_IDENTITIES, (json.dumps(list(missing)),)):
                known[key] = tuple(described)
        return known


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the rows of a query can be: series and identities (None: any), and the time range [start, end)."""

    series: list[int] | None
    identities: list[int] | None
    start: int
    end: int
    share_of_readings: float  # what part of all series is asked for
    seeks: bool


class Piece(NamedTuple):
    """Some minutes in a row; ``readings`` is how many they hold."""

    low: int
    high: int
    readings: int


class Reader:
    """Answers one call through one connection, inside one read transaction."""

    def __init__(self, connection: sqlite3.Connection, names: Names, tables: Tables = Tables.READINGS) -> None:
        self._connection = connection
        self._names = names
        self._tables = tables

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, in the query's order. Raises sqlite3.Error."""
        scope = self.scope(query) if query.limit else None
        if scope is None:
            return RowBatch([], [], [], [])
        skip, limit, found = query.offset, query.limit or 0, list[_Found]()
        if query.after is not None:
            # The cursor may stand among readings of one time: first the rest of that time, then what lies beyond.
            tied, scope = _split_at(scope, query.after.time_ns, query.newest_first)
            rest = self._after(tied, query)
            found, skip = rest[skip : skip + limit], max(0, skip - len(rest))
        self._walk(scope, query, skip, limit, found)
        return self._portion(found)

    def metric_names(self, gpu: str | None) -> list[str]:
        """Names of the metrics that have readings, of one GPU or of all, sorted."""
        if gpu is None:
            found = self._execute("SELECT DISTINCT metric FROM {p}series ORDER BY metric")
        else:
            gpus = encodable((gpu,))
            if not gpus:
                return []
            found = self._execute("SELECT DISTINCT metric FROM {p}series WHERE gpu = ? ORDER BY metric", gpus)
        return [metric for (metric,) in found]

    def stats(self, size: int) -> StoreStats:
        """Counts from the minutes' own counts: no reading is looked at."""
        readings, oldest, newest = self._connection.execute(
            "SELECT total(readings), min(oldest_ns), max(newest_ns) FROM minute"
        ).fetchone()
        (series,) = self._connection.execute("SELECT count(*) FROM series").fetchone()
        (shares,) = self._connection.execute("SELECT total(readings) FROM share_minute").fetchone()
        return StoreStats(
            readings=int(readings), series=series, oldest_ns=oldest, newest_ns=newest, bytes=size, shares=int(shares)
        )

    def _execute(self, template: str, values: Sequence[object] | dict[str, object] = ()) -> sqlite3.Cursor:
        return self._connection.execute(self._tables.sql(template), values)

    def scope(self, query: ReadingsQuery) -> Scope | None:
        """Turn names into ids and narrow the time range to where they have readings. None: nothing can match."""
        start = max(_FIRST_NS, _FIRST_NS if query.start_ns is None else query.start_ns)
        end = min(_LAST_NS, _LAST_NS if query.end_ns is None else query.end_ns)
        bounds = self._execute("SELECT min(minute), max(minute) FROM {p}minute").fetchone()
        identities = self._matching_identities(query)
        series = self._matching_series(query)
        for found in (identities, series):
            if found is not None:
                if not found[0]:
                    return None
                bounds = (max(bounds[0], found[1]), min(bounds[1], found[2])) if bounds[0] is not None else bounds
        if bounds[0] is None:
            return None
        start, end = max(start, bounds[0] * MINUTE_NS), min(end, (bounds[1] + 1) * MINUTE_NS)
        if start >= end:
            return None
        total = self._execute("SELECT max(id) FROM {p}series").fetchone()[0] or 1
        part = 1.0 if series is None else min(1.0, len(series[0]) / total)
        seeks = series is not None and part <= 1 / _SEEK_COST
        # Without seeks, series that follow from identities alone would only be the same condition twice.
        needed = series is not None and (seeks or query.gpus or query.metric_names)
        return Scope(
            series=series[0] if series is not None and needed else None,
            identities=None if identities is None else identities[0],
            start=start,
            end=end,
            share_of_readings=part,
            seeks=seeks,
        )

    def _matching_series(self, query: ReadingsQuery) -> tuple[list[int], int, int] | None:
        conditions, values = _conditions(("gpu", query.gpus), ("metric", query.metric_names))
        described, described_values = _identity_conditions(query)
        if described:
            # A host's or a pod's readings are looked for among the GPUs that were ever there.
            conditions.append(" ".join(("gpu IN (SELECT gpu FROM identity WHERE", " AND ".join(described), ")")))
            values += described_values
        if not conditions:
            return None
        return _ids_and_bounds(self._execute(" ".join((_SERIES_BOUNDS, "WHERE", " AND ".join(conditions))), values))

    def _matching_identities(self, query: ReadingsQuery) -> tuple[list[int], int, int] | None:
        conditions, values = _identity_conditions(query)
        if not conditions:
            return None
        gpu_conditions, gpu_values = _conditions(("gpu", query.gpus))
        return _ids_and_bounds(
            self._connection.execute(
                " ".join((_IDENTITY_BOUNDS, "WHERE", " AND ".join(conditions + gpu_conditions))), values + gpu_values
            )
        )

    def _after(self, tied: Scope, query: ReadingsQuery) -> list[_Found]:
        """All readings of the cursor's own time that come after the cursor."""
        if query.after is None or tied.start >= tied.end:
            return []
        piece = Piece(tied.start // MINUTE_NS, tied.start // MINUTE_NS, 0)
        rows = self._ordered(self.fetch(tied, piece), query.newest_first)
        names = self.names({row[1] for row in rows})
        cursor = (query.after.gpu, query.after.metric_name)
        return [row for row in rows if names[row[1]][:2] > cursor]

    def _walk(self, scope: Scope, query: ReadingsQuery, skip: int, limit: int, found: list[_Found]) -> None:
        """Add rows to ``found``, in order, until there are ``limit``; leave out the first ``skip``."""
        if scope.start >= scope.end:
            return
        pieces = _Pieces(self.minutes(scope, query.newest_first), scope)
        while len(found) < limit:
            skip = pieces.pass_over(skip)
            piece = pieces.next(skip + limit - len(found))
            if piece is None:
                return
            if skip > _WORTH_COUNTING:
                count = self._count(scope, piece)
                if count <= skip:
                    skip -= count
                    continue
                near, skip = self._without_first(scope, piece, skip, query.newest_first)
            else:
                near = scope
            wanted = skip + limit - len(found)
            rows = self._ordered(self._first_of(near, piece, wanted, query.newest_first), query.newest_first)
            found += rows[skip:wanted]
            skip = max(0, skip - len(rows))

    def minutes(self, scope: Scope, newest_first: bool) -> Iterator[tuple[int, int]]:
        """(minute, readings in it) of the minutes in range that hold any, from the wanted end. Read in portions."""
        low, high = scope.start // MINUTE_NS, (scope.end - 1) // MINUTE_NS
        template = _MINUTES + ("DESC LIMIT 1000" if newest_first else "ASC LIMIT 1000")
        while portion := self._execute(template, (low, high)).fetchall():
            yield from portion
            if newest_first:
                high = portion[-1][0] - 1
            else:
                low = portion[-1][0] + 1

    def _without_first(self, scope: Scope, piece: Piece, skip: int, newest_first: bool) -> tuple[Scope, int]:
        """Leave out times of which all rows are to be skipped, and how many rows are then still to skip.

        The piece holds more than ``skip`` rows.
        """
        edge = self._time_at(scope, piece, skip, newest_first)
        if edge is None:
            return scope, skip
        if newest_first:
            beyond, rest = replace(scope, start=edge + 1), replace(scope, end=edge + 1)
        else:
            beyond, rest = replace(scope, end=edge), replace(scope, start=edge)
        return rest, skip - self._count(beyond, piece)

    def _time_at(self, scope: Scope, piece: Piece, place: int, newest_first: bool) -> int | None:
        """The time of the row at a place (from 0) of a piece; None if it holds fewer."""
        template = "SELECT r.time {from} ORDER BY r.time {direction} LIMIT 1 OFFSET :place".replace(
            "{direction}", "DESC" if newest_first else "ASC"
        )
        found = self.ask(template, scope, piece, place=place).fetchone()
        return None if found is None else int(found[0])

    def _first_of(self, scope: Scope, piece: Piece, wanted: int, newest_first: bool) -> list[_Found]:
        """At least the first ``wanted`` rows of a piece (all, if it holds fewer), in no order.

        SQLite sorts bare times, which is cheap; the names that break ties are looked up for the few rows that remain.
        """
        edge = self._time_at(scope, piece, wanted - 1, newest_first)
        if edge is not None:
            minute = edge // MINUTE_NS
            if newest_first:
                scope, piece = replace(scope, start=max(scope.start, edge)), piece._replace(low=minute)
            else:
                scope, piece = replace(scope, end=min(scope.end, edge + 1)), piece._replace(high=minute)
        return self.fetch(scope, piece)

    def fetch(self, scope: Scope, piece: Piece, most: int | None = None) -> list[_Found]:
        """The rows of a piece, in no order: all, or ``most`` of them."""
        cursor = self.ask("SELECT r.time, r.series, r.value, r.identity {from}", scope, piece)
        if most is None:
            return cursor.fetchall()
        rows = cursor.fetchmany(most)
        cursor.close()
        return rows

    def all_series(self) -> list[int]:
        """The ids of all series."""
        return [series for (series,) in self._execute("SELECT id FROM {p}series")]

    def _count(self, scope: Scope, piece: Piece) -> int:
        count: int = self.ask("SELECT count(*) {from}", scope, piece).fetchone()[0]
        return count

    def ask(self, template: str, scope: Scope, piece: Piece, **values: object) -> sqlite3.Cursor:
        """A statement with ``{from}`` over the readings ``r`` of some minutes of a scope."""
        source = FROM_SEEKS if scope.seeks else FROM_SCAN
        if scope.series is not None:
            values["series"] = json.dumps(scope.series)
            source += "" if scope.seeks else _AMONG_SERIES
        if scope.identities is not None:
            values["identities"] = json.dumps(scope.identities)
            source += _AMONG_IDENTITIES
        values |= {"low": piece.low, "high": piece.high, "start": scope.start, "end": scope.end}
        return self._execute(template.replace("{from}", source), values)

    def _ordered(self, rows: list[_Found], newest_first: bool) -> list[_Found]:
        names = self.names({row[1] for row in rows})
        rows.sort(key=lambda row: names[row[1]])
        rows.sort(key=lambda row: row[0], reverse=newest_first)  # stable, also in reverse
        return rows

    def _portion(self, found: list[_Found]) -> RowBatch:
        pairs = [(row[1], row[3]) for row in found]
        place_of = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        return RowBatch(
            [row[0] for row in found],
            [row[2] for row in found],
            [place_of[pair] for pair in pairs],
            self.origins(list(place_of)),
        )

    def origins(self, pairs: list[tuple[int, int]]) -> list[SeriesLabels]:
        """What readings of these series and identities are of."""
        names = self.names({series for series, _ in pairs})
        known = self._names.identities(self._connection, {identity for _, identity in pairs})
        return [SeriesLabels(names[series][1], *known[identity]) for series, identity in pairs]

    def names(self, series: set[int]) -> dict[int, _Name]:
        """A mapping that has at least the names of these series; names are in the order of rows of one time."""
        return self._names.series(self._connection, self._tables, series)


class _Pieces:
    """Cuts the minutes of a walk into pieces, each for one statement."""

    def __init__(self, minutes: Iterator[tuple[int, int]], scope: Scope) -> None:
        self._minutes = minutes
        self._scope = scope
        self._whole = scope.series is None and scope.identities is None
        self._growth = 1
        self._held: tuple[int, int] | None = None

    def pass_over(self, skip: int) -> int:
        """Leave out whole minutes of which every reading counts, as long as they hold no more than ``skip``; returns the rest of it."""
        while self._whole and skip and (held := self._take()) is not None:
            minute, readings = held
            inside = self._scope.start <= minute * MINUTE_NS and (minute + 1) * MINUTE_NS <= self._scope.end
            if not inside or readings > skip:
                self._held = held
                break
            skip -= readings
        return skip

    def next(self, wanted: int) -> Piece | None:
        """The next minutes, as many as should hold what is wanted; None at the end."""
        enough = wanted * 1.25 * self._growth
        budget = min(_FIRST_BUDGET * self._growth, _LARGEST_BUDGET)
        seeks = _SEEK_COST * len(self._scope.series or ()) if self._scope.seeks else 0
        taken: list[int] = []
        total, cost, expected = 0, 0, 0.0
        while expected < enough and cost < budget and (held := self._take()) is not None:
            taken.append(held[0])
            total += held[1]
            cost += seeks or held[1]
            expected += held[1] * self._scope.share_of_readings
        self._growth *= 4
        return Piece(min(taken), max(taken), total) if taken else None

    def _take(self) -> tuple[int, int] | None:
        if self._held is not None:
            held, self._held = self._held, None
            return held
        return next(self._minutes, None)


_SERIES_BOUNDS = "SELECT id, first_minute, last_minute FROM {p}series"
_IDENTITY_BOUNDS = "SELECT id, first_minute, last_minute FROM identity"


def _ids_and_bounds(rows: Iterable[tuple[int, int, int]]) -> tuple[list[int], int, int]:
    found = list(rows)
    if not found:
        return [], 0, 0
    return [row[0] for row in found], min(row[1] for row in found), max(row[2] for row in found)


def _split_at(scope: Scope, time_ns: int, newest_first: bool) -> tuple[Scope, Scope]:
    """The part of a scope at one time, and the part beyond it in the query's order."""
    tied = replace(scope, start=max(scope.start, time_ns), end=min(scope.end, time_ns + 1))
    if newest_first:
        return tied, replace(scope, end=min(scope.end, time_ns))
    return tied, replace(scope, start=max(scope.start, time_ns + 1))


def _identity_conditions(query: ReadingsQuery) -> tuple[list[str], list[object]]:
    return _conditions(
        ("hostname", query.hostnames),
        ("gpu_id", query.gpu_ids),
        ("model_name", query.models),
        ("namespace", query.namespaces),
        ("pod", query.pods),
    )


def _conditions(*wanted: tuple[str, Sequence[str] | Sequence[int]]) -> tuple[list[str], list[object]]:
    """SQL conditions, with their values: each column is one of its values. Columns without values are left out."""
    conditions: list[str] = []
    values: list[object] = []
    for column, alternatives in wanted:
        if alternatives:
            possible = encodable(alternatives)
            conditions.append("{column} IN ({marks})".format(column=column, marks=", ".join("?" * len(possible))))
            values += possible
    return conditions, values


def encodable(values: Sequence[str] | Sequence[int]) -> list[object]:
    """Those that a stored value can be equal to at all."""
    possible: list[object] = []
    for value in values:
        if isinstance(value, int):
            if _FIRST_NS <= value <= _LAST_NS:
                possible.append(value)
            continue
        try:
            value.encode()
        except UnicodeEncodeError:
            continue
        possible.append(value)
    return possible
