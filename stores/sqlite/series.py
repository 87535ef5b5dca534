"""Windows of one metric from the readings' SQLite file, a few windows at a time."""

from __future__ import annotations

import sqlite3

from stores.aggregate.aggregator import PartReadings
from stores.aggregate.buckets import Buckets
from stores.aggregate.passes import Passes, windows_at_once
from stores.base import GroupSeries, ReadingsQuery, SeriesQuery
from stores.sqlite.arrays import SqliteArrayReader
from stores.sqlite.reader import Names, Reader, Scope, encodable, marks
from stores.sqlite.schema import BLOCK_NS

_IDS_OF_BOARDS = """
SELECT gpu FROM source WHERE gpu IN ({0}) OR id IN (SELECT source FROM identity WHERE uuid IN ({0}))
"""


class SeriesReader:
    """Answers one query through one connection, inside one read transaction. Raises sqlite3.Error and TooMuch."""

    def __init__(self, connection: sqlite3.Connection, names: Names, query: SeriesQuery) -> None:
        self._connection = connection
        self._names = names
        self._query = query
        self._reader = Reader(connection, names)

    def answer(self) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        query, wanted = self._query, self._wanted()
        if wanted is None:
            return []
        readings = self._reader.scope(wanted)
        with_shares = query.assignments is not None
        arrays = SqliteArrayReader(self._connection, self._names)
        shares = self._reader.scope(wanted, shares=True) if with_shares else None

        def read(part: Buckets, most: int) -> PartReadings:
            found = arrays.read(readings, part.start_ns, part.end_ns, most)
            if not with_shares:
                return found, None
            return found, arrays.read(shares, part.start_ns, part.end_ns, most - len(found.times))

        return Passes(query, read, self._windows_at_once(readings), block_ns=BLOCK_NS).answer()

    def _wanted(self) -> ReadingsQuery | None:
        """The readings that can matter; None: there are none."""
        query = self._query
        ids: set[str] | None = None
        if query.gpus:
            asked = encodable(query.gpus)
            ids = {gpu for (gpu,) in self._connection.execute(_IDS_OF_BOARDS.format(marks(asked)), (*asked, *asked))}
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

    def _windows_at_once(self, scope: Scope | None) -> int:
        if scope is None:
            return self._query.buckets.count
        points = self._reader.expected_points(scope, scope.start, scope.end)
        return windows_at_once(self._query, points, 0 if scope.sources is None else len(scope.sources))
