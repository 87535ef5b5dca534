"""Windows of one metric from the readings' SQLite file, a few windows at a time."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import numpy as np

from stores.aggregate.aggregator import FROM_CELLS, Partials, WindowAggregator, check_readings, windows_at_once
from stores.aggregate.buckets import Buckets
from stores.aggregate.grouping import ReadingArrays, Source, columns_of, joined
from stores.base import GroupSeries, ReadingsQuery, SeriesQuery
from stores.sqlite_reader import Names, Piece, Reader, Scope, encodable
from stores.sqlite_schema import MINUTE_NS, Tables

_ROWS_AT_ONCE = 50_000
_READINGS = "SELECT r.identity, r.time, r.value {from}"
# Whole numbers are divided towards 0, which is down from 1970 on.
_CELLS = """
SELECT r.time / :every - :first, r.identity, count(*), total(r.value), {extreme}(r.value) {from} GROUP BY 1, 2
"""
_HELD = "SELECT total(readings) FROM {p}minute WHERE minute BETWEEN ? AND ?"
_IDS_OF_BOARDS = """
SELECT DISTINCT gpu FROM identity
WHERE uuid IN (SELECT value FROM json_each(:gpus)) OR gpu IN (SELECT value FROM json_each(:gpus))
"""


class SeriesReader:
    """Answers one query through one connection, inside one read transaction. Raises sqlite3.Error and TooMuch."""

    def __init__(self, connection: sqlite3.Connection, names: Names, query: SeriesQuery) -> None:
        self._connection = connection
        self._names = names
        self._query = query
        self._gatherer = WindowAggregator(query)

    def answer(self) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        wanted, query = self._wanted(), self._query
        if wanted is not None:
            readings = self._scope(Tables.READINGS, wanted)
            shares = None if query.occupancies is None else self._scope(Tables.SHARES, wanted)
            in_cells = query.aggregate in FROM_CELLS and query.occupancies is None and query.start_ns >= 0
            for slab in self._gatherer.grid.slabs(self._windows_at_once(readings)):
                if in_cells:
                    self._add_cells(readings, slab)
                    continue
                self._gatherer.add(
                    slab,
                    self._columns(Tables.READINGS, readings, slab),
                    None if query.occupancies is None else self._columns(Tables.SHARES, shares, slab),
                )
        return self._gatherer.answer()

    def _wanted(self) -> ReadingsQuery | None:
        """The readings that can matter; None: there are none."""
        query = self._query
        ids: set[str] | None = None
        if query.gpus:
            asked = json.dumps(encodable(query.gpus))
            ids = {gpu for (gpu,) in self._connection.execute(_IDS_OF_BOARDS, {"gpus": asked})}
        if query.occupancies is not None:
            occupied = {each.gpu for each in query.occupancies}
            ids = occupied if ids is None else ids & occupied
        if ids is not None and not ids:
            return None
        return ReadingsQuery(
            gpus=tuple(ids or ()),
            metric_names=(query.metric_name,),
            hostnames=query.hostnames,
            models=query.models,
            start_ns=query.start_ns,
            end_ns=query.end_ns,
        )

    def _scope(self, tables: Tables, wanted: ReadingsQuery) -> Scope | None:
        return Reader(self._connection, self._names, tables).scope(wanted)

    def _windows_at_once(self, scope: Scope | None) -> int:
        grid = self._gatherer.grid
        if scope is None:
            return grid.count
        held = self._connection.execute(
            Tables.READINGS.sql(_HELD), (scope.start // MINUTE_NS, (scope.end - 1) // MINUTE_NS)
        ).fetchone()[0]
        return windows_at_once(grid, held * scope.share_of_readings, len(scope.series or ()))

    def _add_cells(self, scope: Scope | None, slab: Buckets) -> None:
        """Let SQLite count and add up."""
        inside = _within(scope, slab)
        if inside is None:
            return
        scope, piece = inside
        statement = _CELLS.replace("{extreme}", "min" if self._query.aggregate == "min" else "max")
        reader = Reader(self._connection, self._names, Tables.READINGS)
        rows = reader.ask(
            statement, scope, piece, every=slab.every_ns, first=slab.origin_ns // slab.every_ns
        ).fetchall()
        if not rows:
            return
        windows, identities, *figures = (np.array(column) for column in zip(*rows, strict=True))
        known, places = np.unique(identities, return_inverse=True)
        cells = [np.full((slab.count, len(known)), empty) for empty in (0.0, 0.0, np.nan)]
        for cell, column in zip(cells, figures, strict=True):
            cell[windows, places] = column
        self._gatherer.add_cells(slab, self._sources(Tables.READINGS, known.tolist()), Partials(*cells))

    def _columns(self, tables: Tables, scope: Scope | None, slab: Buckets) -> ReadingArrays:
        inside = _within(scope, slab)
        if inside is None:
            return columns_of((), ())
        rows = Reader(self._connection, self._names, tables).ask(_READINGS, *inside)
        parts, count = [], 0
        while some := rows.fetchmany(_ROWS_AT_ONCE):
            parts.append(columns_of((), some))
            check_readings(count := count + len(some))
        found = joined(parts)
        identities, places = np.unique(found.places, return_inverse=True)
        return found._replace(sources=self._sources(tables, identities.tolist()), places=places)

    def _sources(self, tables: Tables, identities: list[int]) -> list[Source]:
        known = self._names.identities(self._connection, set(identities))
        sources = []
        for identity in identities:
            uuid, mig_id, _, _, model, host, container, pod, namespace = known[identity]
            holder = (namespace, pod, container) if tables is Tables.SHARES else None
            sources.append(Source(uuid, mig_id, host, model, holder))
        return sources


def _within(scope: Scope | None, slab: Buckets) -> tuple[Scope, Piece] | None:
    """The part of a scope that a slab is about, and its minutes; None where there is none."""
    if scope is None:
        return None
    scope = replace(scope, start=max(scope.start, slab.start_ns), end=min(scope.end, slab.end_ns))
    if scope.start >= scope.end:
        return None
    return scope, Piece(scope.start // MINUTE_NS, (scope.end - 1) // MINUTE_NS, 0)
