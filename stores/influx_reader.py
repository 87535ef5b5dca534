"""Answering queries from InfluxDB. It orders points by time alone: what shares a time is put in order here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

from readings.times import SECOND
from stores.base import ReadingsQuery, Row, StoreStats
from stores.influx_client import InfluxConnection, Series
from stores.influx_lines import GPU, SHARE, SUPERSEDED, TAGS, decode_name
from stores.influx_query import Conditions, Params, conditions_of, select_each, select_edge, select_points, show_fields

# The most points of one answer, so that a query far into the past is answered in bounded memory.
_MOST_POINTS = 5_000
_FEW_GPUS = 10
_COUNTED_AT_ONCE_NS = 6 * 3600 * SECOND
_MOST_PIECES = 64
_NUMBERS = frozenset({"float", "integer", "unsigned"})
# In the order of Row.
_DESCRIPTION = ("uuid", "mig_id", "gpu_id", "device", "model", "hostname", "container", "pod", "namespace")
_GPU_ID = _DESCRIPTION.index("gpu_id")
_DESCRIBED = frozenset({*_DESCRIPTION, SUPERSEDED})


class Reader:
    """Asks one measurement through a connection. Raises what the connection raises."""

    def __init__(self, connection: InfluxConnection, measurement: str = GPU) -> None:
        self._connection = connection
        self._measurement = measurement

    def rows(self, query: ReadingsQuery) -> list[Row]:
        """The rows that match, in the query's order."""
        if not query.limit:
            return []
        return list(islice(self._walk(query), query.offset, query.offset + query.limit))

    def metric_names(self, gpu: str | None) -> list[str]:
        """Names of the metrics that have readings, sorted."""
        conditions = conditions_of(ReadingsQuery(gpus=() if gpu is None else (gpu,)), self._measurement)
        fields, _ = self._fields()
        if conditions.impossible or not fields:
            return []
        series = self._query(select_each("last", self._measurement, fields, conditions), conditions.params)
        found = {
            field
            for each in series
            for field, value in zip(fields, each.values[0][1:], strict=True)
            if value is not None
        }
        return sorted(map(decode_name, found))

    def counts(self, before_ns: int | None = None) -> dict[tuple[str, str, str], int]:
        """How many readings each metric of each GPU has (by uuid, MIG instance, metric), of all times or before one."""
        counts: dict[tuple[str, str, str], int] = defaultdict(int)
        fields, some_superseded = self._fields()
        first, last = self.edge_ns(newest=False), self.edge_ns(newest=True)
        if not fields or first is None or last is None:
            return {}
        end = last + 1 if before_ns is None else min(last + 1, before_ns)
        # In pieces, so that no question takes as long as the server gives one.
        step = max(_COUNTED_AT_ONCE_NS, (end - first) // _MOST_PIECES)
        for start in range(first, end, step):
            conditions = Conditions()
            conditions.between(start, min(start + step, end))
            self._count(fields, conditions, counts, 1)
            if some_superseded:
                conditions.is_superseded()
                self._count(fields, conditions, counts, -1)
        return {key: count for key, count in counts.items() if count > 0}

    def _count(
        self, fields: list[str], conditions: Conditions, counts: dict[tuple[str, str, str], int], sign: int
    ) -> None:
        statement = select_each("count", self._measurement, fields, conditions, by=("uuid", "mig_id"))
        for series in self._query(statement, conditions.params):
            for field, count in zip(fields, series.values[0][1:], strict=True):
                counts[series.tags["uuid"], series.tags["mig_id"], decode_name(field)] += sign * (count or 0)

    def _fields(self) -> tuple[list[str], bool]:
        """The fields that are metrics, by the names they have on the server; and whether any point is superseded."""
        types = {field: kind for each in self._query(show_fields(self._measurement), {}) for field, kind in each.values}
        metrics = [field for field, kind in types.items() if kind in _NUMBERS and field not in _DESCRIBED]
        return metrics, SUPERSEDED in types

    def edge_ns(self, *, newest: bool) -> int | None:
        """The time of the newest point, or of the oldest."""
        series = self._query(select_edge(self._measurement, newest=newest), {})
        return int(series[0].values[0][0]) if series else None

    def _walk(self, query: ReadingsQuery) -> Iterator[Row]:
        """All matching rows in order. Asks for no more points than a part of the answer needs at once."""
        base = conditions_of(query, self._measurement)
        start, end, after = query.start_ns, query.end_ns, query.after
        if after is not None and query.newest_first:
            end = after.time_ns + 1 if end is None else min(end, after.time_ns + 1)
        elif after is not None:
            start = after.time_ns if start is None else max(start, after.time_ns)
        # One more than needed: the time of the last point may have others, and without them it is not told.
        limit = min(query.offset + query.limit + 1, _MOST_POINTS)
        while not base.impossible:
            series = self._points(query, base, start, end, limit)
            ends = [each.values[-1][0] for each in series if len(each.values) >= limit]
            if not ends:
                yield from self._ordered(query, series)
                return
            # Up to here, and not with it, the answer is whole.
            if query.newest_first:
                edge = max(ends)
                yield from self._ordered(query, series, from_ns=edge + 1)
                end = edge
            else:
                edge = min(ends)
                yield from self._ordered(query, series, to_ns=edge)
                start = edge + 1
            yield from self._ordered(query, self._points(query, base, edge, edge + 1, 0))
            limit = min(limit * 4, _MOST_POINTS)

    def _points(
        self, query: ReadingsQuery, base: Conditions, start: int | None, end: int | None, limit: int
    ) -> list[Series]:
        conditions = base.copy()
        conditions.between(start, end)
        if conditions.impossible:
            return []
        if query.metric_names:
            conditions.has_any(query.metric_names)
        statement = select_points(
            self._measurement,
            query.metric_names,
            conditions,
            newest_first=query.newest_first,
            limit=limit,
            # A limit is then one for each series; in exchange the tags are told once and not in each row.
            by_series=0 < len(query.gpus) <= _FEW_GPUS,
        )
        return self._query(statement, conditions.params)

    def _ordered(
        self, query: ReadingsQuery, series: list[Series], *, from_ns: int | None = None, to_ns: int | None = None
    ) -> Iterator[Row]:
        """The rows of an answer in order, in [from, to) alone, without those up to the query's cursor."""
        sign = -1 if query.newest_first else 1
        shares = self._measurement == SHARE
        wanted = frozenset(query.metric_names)
        found = {}
        for each in series:
            for row in _rows(each, self._measurement, wanted):
                if (from_ns is None or row.time_ns >= from_ns) and (to_ns is None or row.time_ns < to_ns):
                    share_of = (row.namespace, row.pod, row.container) if shares else ()
                    found[sign * row.time_ns, row.gpu, row.metric_name, *share_of] = row
        after = query.after
        beyond = None if after is None else (sign * after.time_ns, after.gpu, after.metric_name)
        for key in sorted(found):
            if beyond is None or key[:3] > beyond:
                yield found[key]

    def _query(self, statement: str, params: Params) -> list[Series]:
        return self._connection.query(statement, params)


def stats(connection: InfluxConnection, size: int) -> StoreStats:
    """What the bucket holds; ``size`` in bytes is found elsewhere."""
    reader = Reader(connection)
    counts = reader.counts()
    return StoreStats(
        readings=sum(counts.values()),
        series=len(counts),
        oldest_ns=reader.edge_ns(newest=False),
        newest_ns=reader.edge_ns(newest=True),
        bytes=size,
        shares=sum(Reader(connection, SHARE).counts().values()),
    )


def _rows(series: Series, measurement: str, wanted: frozenset[str]) -> Iterator[Row]:
    """The readings of an answer, but those of superseded points."""
    places = {name: place for place, name in enumerate(series.columns)}
    metrics = [(place, name) for name, place in _metrics_among(series) if not wanted or name in wanted]
    tags = TAGS[measurement]
    described = [places.get(name) for name in _DESCRIPTION]
    superseded = places.get(SUPERSEDED)
    known: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in series.values:
        if superseded is not None and row[superseded] is True:
            continue
        said = tuple([None if place is None else row[place] for place in described])
        if (description := known.get(said)) is None:
            texts = [series.tags.get(name) or value or "" for name, value in zip(_DESCRIPTION, said, strict=True)]
            for place, name in enumerate(_DESCRIPTION):
                if name in tags and texts[place]:
                    texts[place] = decode_name(texts[place])
            index = texts[_GPU_ID]
            description = known[said] = (*texts[:_GPU_ID], int(index) if index else None, *texts[_GPU_ID + 1 :])
        time_ns = row[0]
        for place, name in metrics:
            value = row[place]
            if type(value) is float or type(value) is int:
                yield Row(time_ns, name, float(value), *description)


def _metrics_among(series: Series) -> list[tuple[str, int]]:
    """The columns that are metrics, or may be: their names and places. The first is the time."""
    return [
        (decode_name(column), place)
        for place, column in enumerate(series.columns)
        if place and column not in _DESCRIBED
    ]
