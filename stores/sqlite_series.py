"""Windows of one metric from the readings' SQLite file, a few windows at a time."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import numpy as np

from stores.aggregate.aggregator import FROM_PARTIALS, Partials, WindowAggregator, check_readings, windows_at_once
from stores.aggregate.buckets import Buckets
from stores.aggregate.grouping import ReadingArrays, ReadingSource, columns_of, joined
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
        self._aggregator = WindowAggregator(query)

    def answer(self) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        wanted, query = self._wanted(), self._query
        if wanted is not None:
            readings = self._scope(Tables.READINGS, wanted)
            shares = None if query.assignments is None else self._scope(Tables.SHARES, wanted)
            in_cells = query.aggregate in FROM_PARTIALS and query.assignments is None and query.buckets.start_ns >= 0
            for batch in self._query.buckets.batches(self._windows_at_once(readings)):
                if in_cells:
                    self._add_cells(readings, batch)
                    continue
                self._aggregator.add(
                    batch,
                    self._columns(Tables.READINGS, readings, batch),
                    None if query.assignments is None else self._columns(Tables.SHARES, shares, batch),
                )
        return self._aggregator.answer()

    def _wanted(self) -> ReadingsQuery | None:
        """The readings that can matter; None: there are none."""
        query = self._query
        ids: set[str] | None = None
        if query.gpus:
            asked = json.dumps(encodable(query.gpus))
            ids = {gpu for (gpu,) in self._connection.execute(_IDS_OF_BOARDS, {"gpus": asked})}
        if query.assignments is not None:
            occupied = {each.gpu for each in query.assignments}
            ids = occupied if ids is None else ids & occupied
        if ids is not None and not ids:
            return None
        return ReadingsQuery(
            gpus=tuple(ids or ()),
            metric_names=(query.metric_name,),
            hostnames=query.hostnames,
            models=query.models,
            start_ns=query.buckets.start_ns,
            end_ns=query.buckets.end_ns,
        )

    def _scope(self, tables: Tables, wanted: ReadingsQuery) -> Scope | None:
        return Reader(self._connection, self._names, tables).scope(wanted)

    def _windows_at_once(self, scope: Scope | None) -> int:
        grid = self._query.buckets
        if scope is None:
            return grid.count
        held = self._connection.execute(
            Tables.READINGS.sql(_HELD), (scope.start // MINUTE_NS, (scope.end - 1) // MINUTE_NS)
        ).fetchone()[0]
        return windows_at_once(grid, held * scope.share_of_readings, len(scope.series or ()))

    def _add_cells(self, scope: Scope | None, batch: Buckets) -> None:
        """Let SQLite count and add up."""
        inside = _within(scope, batch)
        if inside is None:
            return
        scope, piece = inside
        statement = _CELLS.replace("{extreme}", "min" if self._query.aggregate == "min" else "max")
        reader = Reader(self._connection, self._names, Tables.READINGS)
        rows = reader.ask(
            statement, scope, piece, every=batch.every_ns, first=batch.origin_ns // batch.every_ns
        ).fetchall()
        if not rows:
            return
        windows, identities, *figures = (np.array(column) for column in zip(*rows, strict=True))
        known, places = np.unique(identities, return_inverse=True)
        partials = [np.full((batch.count, len(known)), empty) for empty in (0.0, 0.0, np.nan)]
        for cell, column in zip(partials, figures, strict=True):
            cell[windows, places] = column
        self._aggregator.add_partials(batch, self._sources(Tables.READINGS, known.tolist()), Partials(*partials))

    def _columns(self, tables: Tables, scope: Scope | None, batch: Buckets) -> ReadingArrays:
        inside = _within(scope, batch)
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

    def _sources(self, tables: Tables, identities: list[int]) -> list[ReadingSource]:
        known = self._names.identities(self._connection, set(identities))
        sources = []
        for identity in identities:
            uuid, mig_id, _, _, model, host, container, pod, namespace = known[identity]
            share_of = (namespace, pod, container) if tables is Tables.SHARES else None
            sources.append(ReadingSource(uuid, mig_id, host, model, share_of))
        return sources


def _within(scope: Scope | None, batch: Buckets) -> tuple[Scope, Piece] | None:
    """The part of a scope that a batch is about, and its minutes; None where there is none."""
    if scope is None:
        return None
    scope = replace(scope, start=max(scope.start, batch.start_ns), end=min(scope.end, batch.end_ns))
    if scope.start >= scope.end:
        return None
    return scope, Piece(scope.start // MINUTE_NS, (scope.end - 1) // MINUTE_NS, 0)
