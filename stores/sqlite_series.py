"""Windows of one metric from the readings' SQLite file, a few windows at a time."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import numpy as np

from stores.base import GroupSeries, ReadingsQuery, SeriesQuery
from stores.columns import Columns, Source, columns_of, joined
from stores.grid import Grid
from stores.sqlite_reader import Names, Piece, Reader, Scope, encodable
from stores.sqlite_schema import MINUTE_NS, Tables
from stores.windows import Gatherer, windows_at_once

_ROWS_AT_ONCE = 50_000
_READINGS = "SELECT r.identity, r.time, r.value {from}"
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
        self._gatherer = Gatherer(query)

    def answer(self) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        wanted = self._wanted()
        if wanted is not None:
            readings = self._scope(Tables.READINGS, wanted)
            shares = None if self._query.occupancies is None else self._scope(Tables.SHARES, wanted)
            for slab in self._gatherer.grid.slabs(self._windows_at_once(readings)):
                self._gatherer.add(
                    slab,
                    self._columns(Tables.READINGS, readings, slab),
                    None if self._query.occupancies is None else self._columns(Tables.SHARES, shares, slab),
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

    def _columns(self, tables: Tables, scope: Scope | None, slab: Grid) -> Columns:
        if scope is not None:
            scope = replace(scope, start=max(scope.start, slab.start_ns), end=min(scope.end, slab.end_ns))
        if scope is None or scope.start >= scope.end:
            return columns_of((), ())
        piece = Piece(scope.start // MINUTE_NS, (scope.end - 1) // MINUTE_NS, 0)
        rows = Reader(self._connection, self._names, tables).ask(_READINGS, scope, piece)
        parts = []
        while some := rows.fetchmany(_ROWS_AT_ONCE):
            parts.append(columns_of((), some))
        found = joined(parts)
        identities, places = np.unique(found.places, return_inverse=True)
        known = self._names.identities(self._connection, set(identities.tolist()))
        sources = []
        for identity in identities.tolist():
            uuid, mig_id, _, _, model, host, container, pod, namespace = known[identity]
            holder = (namespace, pod, container) if tables is Tables.SHARES else None
            sources.append(Source(uuid, mig_id, host, model, holder))
        return found._replace(sources=sources, places=places)
