"""Reads rows from the readings' SQLite file, block by block, and decodes no more than a query needs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from stores.aggregate.functions import Ints, Mask, numbered
from stores.base import Description, Position, ReadingsQuery, RowBatch, SeriesLabels, StoreStats
from stores.paging import ROWS_AT_ONCE, joined
from stores.sqlite.points import Points, merge, recent_points, rows_of, stored_points
from stores.sqlite.schema import BLOCK_NS, LAST_NS, NEVER, STRIPE, STRIPE_BITS

# Readings that a stream decodes at once, and then returns in several batches: a row of the file holds many.
READ_AT_ONCE = 100_000
_NAMES_KNOWN = 500_000

_IDENTITIES = """
SELECT id, uuid, mig_id, gpu_id, device, model_name, hostname, container, pod, namespace
FROM identity WHERE id IN (SELECT value FROM json_each(?))
"""

Reading = Callable[[], AbstractContextManager[sqlite3.Connection]]


class Names:
    """Names and descriptions by id. An id never changes its meaning, so all threads share this cache."""

    def __init__(self) -> None:
        self._metrics: dict[int, str] = {}
        self._identities: dict[int, Description] = {}

    def metrics(self, connection: sqlite3.Connection, ids: list[int]) -> list[str]:
        """Names of metrics."""
        if not self._metrics.keys() >= set(ids):
            self._metrics = dict(connection.execute("SELECT id, name FROM metric"))
        return [self._metrics[each] for each in ids]

    def identities(self, connection: sqlite3.Connection, ids: list[int]) -> list[Description]:
        """Descriptions of GPUs."""
        known = self._identities
        if missing := set(ids) - known.keys():
            if len(known) > _NAMES_KNOWN:
                known, missing = {}, set(ids)
            known = known | {
                key: tuple(described)
                for key, *described in connection.execute(_IDENTITIES, (json.dumps(list(missing)),))
            }
            self._identities = known
        return [known[each] for each in ids]


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the rows of a query can be. A field of None has no condition; ``shares`` selects stripes of shares."""

    shares: bool
    stripes: list[int] | None
    sources: Ints | None
    identities: Ints | None
    metrics: list[int] | None
    start: int
    end: int

    @property
    def among(self) -> str:
        """The condition for stripes."""
        if self.stripes is not None:
            return f"stripe IN ({', '.join(map(str, self.stripes))})"
        return "stripe < 0" if self.shares else "stripe >= 0"

    def touches(self, block: int, times: Ints) -> bool:
        """Whether some of a block's points are in the time range."""
        return self._holds(block) or bool(((times >= self.start) & (times < self.end)).any())

    def _holds(self, block: int) -> bool:
        return self.start <= block * BLOCK_NS and (block + 1) * BLOCK_NS <= self.end

    def matching(self, points: Points, block: int, *, of_one_source: bool = False) -> Points:
        """The points of a block that match."""
        chosen = None
        if not self._holds(block):
            chosen = (points.times >= self.start) & (points.times < self.end)
        if self.sources is not None and not of_one_source:
            chosen = _both(chosen, np.isin(points.sources, self.sources))
        if self.identities is not None:
            chosen = _both(chosen, np.isin(points.identities, self.identities))
        return points if chosen is None or chosen.all() else points.only(chosen)

    def sources_of(self, stripe: int) -> Ints | None:
        """The sources of a stripe that are asked for; None: all."""
        if self.sources is None:
            return None
        start, end = np.searchsorted(self.sources, [stripe << STRIPE_BITS, (stripe + 1) << STRIPE_BITS])
        return self.sources[start:end]


class Reader:
    """Answers one call through one connection, inside one read transaction. Raises sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection, names: Names) -> None:
        self._connection = connection
        self._names = names

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, in the query's order."""
        scope = self.scope(query) if query.limit else None
        skip, limit, batches = query.offset, query.limit or 0, list[RowBatch]()
        metrics, growth = self.metric_count(scope), 1
        while scope is not None and limit:
            if skip and (passed := self._pass_block(scope, query, skip)) is not None:
                skip, scope = passed
                continue
            wanted = min((skip + limit) * growth, READ_AT_ONCE * 10 if skip > READ_AT_ONCE else READ_AT_ONCE)
            found, scope = self.next(scope, query, 1 + wanted // metrics)
            growth *= 2  # points may have few of the metrics
            count = 0 if found is None else found.readings()
            if found is None or count <= skip:
                skip -= count
                continue
            rows = self.rows(found).cut(skip, skip + limit)
            skip, limit = 0, limit - len(rows)
            batches.append(rows)
        return joined(iter(batches))

    def metric_names(self, gpu: str | None) -> list[str]:
        """Names of the metrics that have readings, of one GPU or of all, sorted."""
        if gpu is None:
            found = [metrics for (metrics,) in self._connection.execute("SELECT metrics FROM stripe WHERE id >= 0")]
            ids = np.unique(np.frombuffer(b"".join(found), np.int64))
        else:
            sources = self._sources((gpu,), shares=False)
            if not len(sources):
                return []
            (source,) = sources.tolist()
            metrics, newest = self._newest(source >> STRIPE_BITS)
            ids = metrics[newest[source & (STRIPE - 1)] != NEVER]
        return sorted(self._names.metrics(self._connection, ids.tolist()))

    def stats(self, size: int) -> StoreStats:
        """The counters that writers keep."""
        counters = "SELECT readings, series, oldest, newest, ?, shares FROM state"
        return StoreStats(*self._connection.execute(counters, (size,)).fetchone())

    # From names to ids.

    def scope(self, query: ReadingsQuery, *, shares: bool = False) -> Scope | None:
        """The query's names as ids, and its time range cut to where they have readings. None: nothing can match."""
        first, last = query.bounds()
        start, end = NEVER if first is None else first, LAST_NS if last is None else last
        if not shares:
            oldest, newest = self._connection.execute("SELECT oldest, newest FROM state").fetchone()
            if newest is None:
                return None
            start, end = max(start, oldest), min(end, newest + 1)
        sources = self._sources(query.gpus, shares=shares) if query.gpus else None
        identities = None
        conditions, values = _conditions(query)
        if conditions:
            found = self._connection.execute(
                f"SELECT id, source, first_block, last_block FROM identity WHERE {' AND '.join(conditions)}", values
            ).fetchall()
            table = np.array(found, dtype=np.int64).reshape(-1, 4)
            table = table[(table[:, 1] < 0) == shares]
            if sources is not None:
                table = table[np.isin(table[:, 1], sources)]
            identities, sources = np.sort(table[:, 0]), np.unique(table[:, 1])
            if len(table):
                start = max(start, int(table[:, 2].min()) * BLOCK_NS)
                end = min(end, (int(table[:, 3].max()) + 1) * BLOCK_NS)
        metrics = self._metrics(query.metric_names) if query.metric_names else None
        stripes = None if sources is None else np.unique(sources >> STRIPE_BITS).tolist()
        start, end = max(start, NEVER), min(end, LAST_NS)
        scope = Scope(shares, stripes, sources, identities, metrics, start, end)
        if sources is not None or metrics is not None:
            scope = replace(scope, end=min(end, self._newest_of(scope) + 1))
        return scope if scope.start < scope.end else None

    def _sources(self, gpus: Sequence[str], *, shares: bool) -> Ints:
        possible = encodable(gpus)
        found = self._connection.execute(
            f"SELECT id FROM source WHERE share = ? AND gpu IN ({marks(possible)})", (shares, *possible)
        )
        return np.array(sorted(source for (source,) in found), dtype=np.int64)

    def _metrics(self, names: Sequence[str]) -> list[int]:
        possible = encodable(names)
        found = self._connection.execute(f"SELECT id FROM metric WHERE name IN ({marks(possible)})", possible)
        return sorted(metric for (metric,) in found)

    def _newest(self, stripe: int) -> tuple[Ints, Ints]:
        """The metrics of a stripe, and the newest time of each of its sources (rows) and metrics (columns)."""
        row = self._connection.execute("SELECT metrics, newest FROM stripe WHERE id = ?", (stripe,)).fetchone()
        metrics, newest = (np.frombuffer(each, np.int64) for each in row or (b"", b""))
        return metrics, newest.reshape(STRIPE, len(metrics))

    def _newest_of(self, scope: Scope) -> int:
        stripes = scope.stripes
        if stripes is None:
            which = scope.among.replace("stripe", "id")
            stripes = [stripe for (stripe,) in self._connection.execute(f"SELECT id FROM stripe WHERE {which}")]
        found = NEVER
        for stripe in stripes:
            metrics, newest = self._newest(stripe)
            if (sources := scope.sources_of(stripe)) is not None:
                newest = newest[sources & (STRIPE - 1)]
            if scope.metrics is not None:
                newest = newest[:, np.isin(metrics, scope.metrics)]
            found = max(found, int(newest.max(initial=NEVER)))
        return found

    def metric_count(self, scope: Scope | None) -> int:
        """How many readings a point of a scope may have."""
        if scope is not None and scope.metrics is not None:
            return max(1, len(scope.metrics))
        return max(1, int(self._connection.execute("SELECT count(*) FROM metric").fetchone()[0]))

    # From ids to rows.

    def next(self, scope: Scope, query: ReadingsQuery, wanted: int) -> tuple[Points | None, Scope | None]:
        """About the first ``wanted`` points of a scope (None: they have no reading), and the rest of the scope.

        The points are in the order of the query, and their metrics in the order of the names.
        """
        newest_first = query.newest_first
        block = self._next_block(scope, newest_first)
        if block is None:
            return None, None
        low, high = self._bounds(scope, block, block)
        expected = self.expected_points(scope, low, high)
        start, end = low, high
        if expected > 2 * wanted + 1000:
            # A part of the block.
            width = max(1, int((high - low) * 2 * wanted / expected))
            times = np.zeros(0, dtype=np.int64)
            while not len(times) and (width < high - low or (start, end) != (low, high)):
                start, end = (max(low, high - width), high) if newest_first else (low, min(high, low + width))
                times = self._times(replace(scope, start=start, end=end))
                width *= 8
            if len(times) > wanted and newest_first:
                start = int(np.partition(times, len(times) - wanted)[len(times) - wanted])
            elif len(times) > wanted:
                end = int(np.partition(times, wanted - 1)[wanted - 1]) + 1
        elif (blocks := int(wanted / max(expected, 1))) > 1:
            # Several blocks, if the others hold no more than the first.
            start, end = self._bounds(scope, *((block - blocks, block) if newest_first else (block, block + blocks)))
            if self.expected_points(scope, start, end) > 2 * wanted + 1000:
                start, end = low, high
        rest = replace(scope, end=start) if newest_first else replace(scope, start=end)
        return self._slice(replace(scope, start=start, end=end), query), rest if rest.start < rest.end else None

    def _bounds(self, scope: Scope, first: int, last: int) -> tuple[int, int]:
        return max(scope.start, first * BLOCK_NS), min(scope.end, (last + 1) * BLOCK_NS)

    def parts(self, scope: Scope) -> Iterator[Points]:
        """The points of a scope, by block and stripe."""
        if scope.start >= scope.end:
            return
        within = f"block BETWEEN ? AND ? AND {scope.among} AND newest >= ? AND oldest < ?"
        bounds = (scope.start // BLOCK_NS, (scope.end - 1) // BLOCK_NS, scope.start, scope.end)
        # An empty list of metrics asks for the times alone.
        numbers = "x'', x''" if scope.metrics == [] else "metrics, numbers"
        recent: dict[tuple[int, int], list[Points]] = {}
        for block, stripe, *row in self._connection.execute(
            f"SELECT block, stripe, points, data, {numbers} FROM recent WHERE {within} ORDER BY id", bounds
        ):
            points = recent_points(stripe, *row)
            if scope.metrics:
                # Not only those metrics: a point's description is the one that was written last with any of them.
                chosen = np.isin(points.metrics, scope.metrics)
                points = points._replace(metrics=points.metrics[chosen], values=points.values[chosen])
            recent.setdefault((block, stripe), []).append(points)
        metrics = "" if scope.metrics is None else f"AND metric IN ({', '.join(map(str, scope.metrics))})"
        chunks = f"SELECT metric, readings, data FROM chunk WHERE block = ? AND stripe = ? {metrics} ORDER BY metric"
        sources = {stripe: scope.sources_of(stripe) for stripe in scope.stripes or ()}
        for block, stripe, count, data in self._connection.execute(
            f"SELECT block, stripe, points, data FROM block WHERE {within}", bounds
        ):
            mine = sources.get(stripe)
            rows = range(count) if mine is None else rows_of(count, data, mine)
            key = (block, stripe)
            if not scope.touches(block, np.frombuffer(data, np.int64, len(rows), 8 * rows.start)):
                continue
            found = self._connection.execute(chunks, key).fetchall() if scope.metrics != [] else []
            points = stored_points(stripe, count, data, found, rows)
            if key in recent:
                yield scope.matching(merge([points, *recent.pop(key)]), block)
            else:
                yield scope.matching(points, block, of_one_source=mine is not None and len(mine) == 1)
        for (block, _), parts in recent.items():
            yield scope.matching(merge(parts), block)

    def expected_points(self, scope: Scope, low: int, high: int) -> float:
        """How many points of a scope the blocks between two times hold, if all GPUs of a stripe have as many."""
        within = f"block BETWEEN ? AND ? AND {scope.among}"
        bounds = (low // BLOCK_NS, (high - 1) // BLOCK_NS) * 2
        (count,) = self._connection.execute(
            f"SELECT (SELECT total(points) FROM block WHERE {within}) + (SELECT total(points) FROM recent WHERE {within})",
            bounds,
        ).fetchone()
        if scope.sources is None or scope.stripes is None:
            return float(count)
        return float(count) * len(scope.sources) / (STRIPE * len(scope.stripes))

    def _next_block(self, scope: Scope, newest_first: bool) -> int | None:
        at = (scope.end - 1) // BLOCK_NS if newest_first else scope.start // BLOCK_NS
        beyond, order, choose = ("<=", "DESC", max) if newest_first else (">=", "ASC", min)
        conditions = [scope.among] if scope.stripes is None else [f"stripe = {each}" for each in scope.stripes]
        found = [
            row[0]
            for condition in conditions
            for table in ("block", "recent")
            for row in self._connection.execute(
                f"SELECT block FROM {table} WHERE {condition} AND block {beyond} ? ORDER BY block {order} LIMIT 1",
                (at,),
            )
        ]
        block: int | None = choose(found, default=None)
        return block

    def _times(self, scope: Scope) -> Ints:
        """The times of a scope's points; those that are stored and written again may occur twice."""
        found = [points.times for points in self.parts(replace(scope, metrics=[]))]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def _slice(self, scope: Scope, query: ReadingsQuery) -> Points | None:
        parts = [points for points in self.parts(scope) if points.size]
        if not parts:
            return None
        ids = np.unique(np.concatenate([points.metrics for points in parts]))
        names = self._names.metrics(self._connection, ids.tolist())
        by_name = sorted(range(len(names)), key=names.__getitem__)
        rows = np.empty(len(names), dtype=np.int64)
        rows[by_name] = np.arange(len(names))
        sources, times, identities = (np.concatenate(each) for each in list(zip(*parts, strict=True))[:3])
        known, places = numbered(identities)
        gpus = [_gpu(described) for described in self._names.identities(self._connection, known.tolist())]
        ranks = {gpu: rank for rank, gpu in enumerate(sorted(set(gpus)))}
        # ~ turns the order round without leaving 64 bits.
        order = np.lexsort((np.array([ranks[gpu] for gpu in gpus])[places], ~times if query.newest_first else times))
        values = np.full((len(names), len(times)), np.nan)
        at = 0
        for points in parts:
            values[rows[np.searchsorted(ids, points.metrics)], at : at + points.size] = points.values
            at += points.size
        points = Points(sources[order], times[order], identities[order], ids[by_name], values[:, order])
        if query.after is not None:
            names = [names[place] for place in by_name]
            _leave_out(points, names, [gpus[place] for place in places[order].tolist()], query.after)
        return points

    def rows(self, points: Points) -> RowBatch:
        """The readings of points, in their order."""
        names = self._names.metrics(self._connection, points.metrics.tolist())
        rows, columns = np.nonzero(~np.isnan(points.values.T))
        known, places = numbered(points.identities)
        described = self._names.identities(self._connection, known.tolist())
        labelled, places = numbered(places[rows] * len(names) + columns)
        origins = [SeriesLabels(names[key % len(names)], *described[key // len(names)]) for key in labelled.tolist()]
        return RowBatch(points.times[rows].tolist(), points.values[columns, rows].tolist(), places.tolist(), origins)

    def _pass_block(self, scope: Scope, query: ReadingsQuery, skip: int) -> tuple[int, Scope | None] | None:
        """Skip the next block if the whole of it matches and it has at most ``skip`` readings; None: it cannot be skipped."""
        block = self._next_block(scope, query.newest_first)
        if block is None or scope.sources is not None:
            return None
        counts = "block" if scope.metrics is None else f"chunk WHERE metric IN ({', '.join(map(str, scope.metrics))})"
        counts = f"{counts} {'WHERE' if scope.metrics is None else 'AND'} block = ?1 AND {scope.among}"
        count, uncounted = self._connection.execute(
            f"SELECT (SELECT total(readings) FROM {counts}),"
            f" EXISTS (SELECT 1 FROM recent WHERE block = ?1 AND {scope.among}) OR"
            f" EXISTS (SELECT 1 FROM block WHERE block = ?1 AND {scope.among} AND (oldest < ?2 OR newest >= ?3))",
            (block, scope.start, scope.end),
        ).fetchone()
        if uncounted or count > skip:
            return None
        start, end = self._bounds(scope, block, block)
        scope = replace(scope, end=start) if query.newest_first else replace(scope, start=end)
        return skip - int(count), scope if scope.start < scope.end else None


def stream(reading: Reading, names: Names, query: ReadingsQuery) -> Iterator[RowBatch]:
    """All rows of a query in its order, without its limit and offset.

    ``reading`` opens a read transaction. None is open while the caller has a batch.
    """
    with reading() as connection:
        reader = Reader(connection, names)
        scope = reader.scope(query)
        wanted = max(1, READ_AT_ONCE // reader.metric_count(scope))
    while scope is not None:
        with reading() as connection:
            found, scope = Reader(connection, names).next(scope, query, wanted)
        if found is not None:
            # Cut between points.
            counts = np.cumsum(np.count_nonzero(~np.isnan(found.values), axis=0))
            at = 0
            while at < len(counts):
                before = int(counts[at - 1]) if at else 0
                end = max(at + 1, int(np.searchsorted(counts, before + ROWS_AT_ONCE, side="right")))
                with reading() as connection:
                    rows = Reader(connection, names).rows(found.only(slice(at, end)))
                if len(rows):
                    yield rows
                at = end


def _both(some: Mask | None, others: Mask) -> Mask:
    return others if some is None else some & others


def encodable(values: Sequence[str]) -> list[str]:
    """The values that are valid Unicode; no stored text equals any other."""
    return [value for value in values if value.isascii() or value == value.encode(errors="replace").decode()]


def _gpu(described: Description) -> str:
    return f"{described[0]}:{described[1]}" if described[1] else described[0]


def _leave_out(points: Points, names: list[str], gpus: list[str], after: Position) -> None:
    """Remove the readings of the cursor's time that are not after it."""
    for place in np.flatnonzero(points.times == after.time_ns).tolist():
        for row, name in enumerate(names):
            if (gpus[place], name) <= (after.gpu, after.metric_name):
                points.values[row, place] = np.nan


def _conditions(query: ReadingsQuery) -> tuple[list[str], list[object]]:
    """SQL conditions on identities, with their values."""
    conditions: list[str] = []
    values: list[object] = []
    numbers = [number for number in query.gpu_ids if NEVER <= number <= LAST_NS]
    for column, asked, possible in (
        ("hostname", query.hostnames, encodable(query.hostnames)),
        ("model_name", query.models, encodable(query.models)),
        ("namespace", query.namespaces, encodable(query.namespaces)),
        ("pod", query.pods, encodable(query.pods)),
        ("gpu_id", query.gpu_ids, numbers),
    ):
        if asked:
            conditions.append(f"{column} IN ({marks(possible)})")
            values += possible
    return conditions, values


def marks(values: Sequence[object]) -> str:
    """A placeholder for each value. (json_each() would end a text at its first NUL.)"""
    return ", ".join("?" * len(values))
