"""Readings of one metric as arrays, from the readings' SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from stores.aggregate.arrays import ReadingArrays, ReadingSource, columns_of
from stores.aggregate.functions import numbered
from stores.aggregate.limits import READINGS_IN_A_PART, check_count
from stores.aggregate.passes import slices
from stores.base import ReadingsQuery
from stores.sqlite.reader import Names, Reader, Reading, Scope
from stores.sqlite.schema import BLOCK_NS


class SqliteArrayReader:
    """Reads through one connection, inside one read transaction. Raises sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._reader = Reader(connection, names)

    def read(self, scope: Scope | None, start_ns: int, end_ns: int, most: int) -> ReadingArrays:
        """The readings of a scope, which has one metric, in [start, end). Raises PartTooLarge for more than ``most``."""
        parts, count = [], 0
        if scope is not None:
            scope = replace(scope, start=max(scope.start, start_ns), end=min(scope.end, end_ns))
            for points in self._reader.parts(scope):
                if len(points.metrics):
                    check_count(count := count + points.size, most)
                    parts.append((points.identities, points.times, points.values[0]))
        if scope is None or not parts:
            return columns_of((), ())
        found, times, values = map(np.concatenate, zip(*parts, strict=True))
        there = ~np.isnan(values)
        if not there.all():
            found, times, values = found[there], times[there], values[there]
        known, places = numbered(found)
        return ReadingArrays(self._sources(known.tolist(), shares=scope.shares), places, times, values)

    def _sources(self, identities: list[int], *, shares: bool) -> list[ReadingSource]:
        return [
            ReadingSource(uuid, mig_id, host, model, (namespace, pod, container) if shares else None)
            for uuid, mig_id, _, _, model, host, container, pod, namespace in self._names.identities(
                self._connection, identities
            )
        ]


def readings(
    reading: Reading, names: Names, metric_name: str, start_ns: int, end_ns: int, gpus: Collection[str]
) -> Iterator[ReadingArrays]:
    """See Store.readings(). ``reading`` opens a read transaction; none is open while the caller has a part."""
    query = ReadingsQuery(gpus=tuple(gpus), metric_names=(metric_name,), start_ns=start_ns, end_ns=end_ns)
    with reading() as connection:
        reader = Reader(connection, names)
        scope = reader.scope(query)
        if scope is None:
            return
        expected = reader.expected_points(scope, scope.start, scope.end)

    def read(start: int, end: int, of_any_size: bool) -> ReadingArrays:
        with reading() as connection:
            return SqliteArrayReader(connection, names).read(
                scope, start, end, 1 << 62 if of_any_size else READINGS_IN_A_PART
            )

    length = int((scope.end - scope.start) * min(1.0, READINGS_IN_A_PART / 2 / max(expected, 1.0)))
    yield from slices(
        scope.start, scope.end, length, read, lambda part: len(part.times), READINGS_IN_A_PART, block_ns=BLOCK_NS
    )
