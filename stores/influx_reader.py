"""Answering queries from InfluxDB. It orders points by time alone: what shares a time is put in order here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from readings.times import SECOND
from stores.base import Portion, ReadingsQuery
from stores.influx_client import InfluxConnection, Series
from stores.influx_lines import GPU, SUPERSEDED, decode_name
from stores.influx_points import DESCRIBED, Points
from stores.influx_query import Conditions, Params, conditions_of, select_each, select_edge, select_points, show_fields
from stores.portions import ROWS_AT_ONCE, bounded, joined

# The most points of one answer, so that a query far into the past is answered in bounded memory.
_MOST_POINTS = 5_000
_FEW_GPUS = 10
_COUNTED_AT_ONCE_NS = 6 * 3600 * SECOND
_MOST_PIECES = 64
_NUMBERS = frozenset({"float", "integer", "unsigned"})
POINT_READINGS = 10  # of a usual fleet


class Density:
    """How many readings a point of this server has, so that no more points are asked for than rows are wanted."""

    def __init__(self) -> None:
        self._readings = 1.0

    def points(self, query: ReadingsQuery) -> int:
        """How many points should hold the rows that a query wants; should they not, the rest is asked for."""
        wanted = query.offset + (query.limit or 0)
        return wanted if query.metric_names else int(wanted / self._readings) + 1

    def saw(self, readings: int, points: int) -> None:
        """Learn from an answer that has all metrics."""
        if readings:
            self._readings = max(1.0, readings / points)


class Reader:
    """Asks one measurement through a connection. Raises what the connection raises.

    ``density`` remembers, from one call to the next, how many readings a point has.
    """

    def __init__(self, connection: InfluxConnection, measurement: str = GPU, density: Density | None = None) -> None:
        self._connection = connection
        self._measurement = measurement
        self._density = density or Density()

    def page(self, query: ReadingsQuery) -> Portion:
        """The rows that match, in the query's order."""
        return joined(bounded(self._walk(query), query)) if query.limit else joined(iter(()))

    def stream(self, query: ReadingsQuery) -> Iterator[Portion]:
        """The same rows, as the server reads them: it answers one question in parts."""
        return bounded(self._parts(query), query)

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
        metrics = [field for field, kind in types.items() if kind in _NUMBERS and field not in DESCRIBED]
        return metrics, SUPERSEDED in types

    def edge_ns(self, *, newest: bool) -> int | None:
        """The time of the newest point, or of the oldest."""
        series = self._query(select_edge(self._measurement, newest=newest), {})
        return int(series[0].values[0][0]) if series else None

    def _walk(self, query: ReadingsQuery) -> Iterator[Portion]:
        """All matching rows in order, from the time of the query's cursor on. Asks for no more points than a part of the
        answer needs at once."""
        base = conditions_of(query, self._measurement)
        start, end = _from_cursor(query)
        # One more than needed: the time of the last point may have others, and without them it is not told.
        limit = min(self._density.points(query) + 1, _MOST_POINTS)
        while not base.impossible:
            series = self._points(query, base, start, end, limit)
            ends = [each.values[-1][0] for each in series if len(each.values) >= limit]
            if not ends:
                yield self._portion(query, series)
                return
            # Up to here, and not with it, the answer is whole.
            if query.newest_first:
                edge = max(ends)
                yield self._portion(query, series, from_ns=edge + 1)
                end = edge
            else:
                edge = min(ends)
                yield self._portion(query, series, to_ns=edge)
                start = edge + 1
            yield self._portion(query, self._points(query, base, edge, edge + 1, 0))
            limit = min(limit * 4, _MOST_POINTS)

    def _parts(self, query: ReadingsQuery) -> Iterator[Portion]:
        base = conditions_of(query, self._measurement)
        if base.impossible:
            return
        statement, params = self._selection(query, base, *_from_cursor(query), limit=0, by_series=False)
        if not statement:
            return
        held: list[list[Any]] = []
        last: Series | None = None
        for last in self._connection.stream(statement, params, max(1, ROWS_AT_ONCE // POINT_READINGS)):
            # The points of the last time may not be all of it yet.
            values = held + last.values
            time_ns = values[-1][0]
            whole = next((at for at in range(len(values), 0, -1) if values[at - 1][0] != time_ns), 0)
            held, last.values = values[whole:], values[:whole]
            yield self._portion(query, [last])
        if last is not None:
            last.values = held
            yield self._portion(query, [last])

    def _points(
        self, query: ReadingsQuery, base: Conditions, start: int | None, end: int | None, limit: int
    ) -> list[Series]:
        # A limit is then one for each series; in exchange the tags are told once and not in each row.
        by_series = 0 < len(query.gpus) <= _FEW_GPUS
        statement, params = self._selection(query, base, start, end, limit=limit, by_series=by_series)
        return self._query(statement, params) if statement else []

    def _selection(
        self, query: ReadingsQuery, base: Conditions, start: int | None, end: int | None, *, limit: int, by_series: bool
    ) -> tuple[str, Params]:
        """The statement for the points of a range; empty when there can be none."""
        conditions = base.copy()
        conditions.between(start, end)
        if conditions.impossible:
            return "", {}
        if query.metric_names:
            conditions.has_any(query.metric_names)
        statement = select_points(
            self._measurement,
            query.metric_names,
            conditions,
            newest_first=query.newest_first,
            limit=limit,
            by_series=by_series,
        )
        return statement, conditions.params

    def _portion(
        self, query: ReadingsQuery, series: list[Series], *, from_ns: int | None = None, to_ns: int | None = None
    ) -> Portion:
        """The rows of an answer in order, in [from, to) alone."""
        found = Points(self._measurement, frozenset(query.metric_names))
        for each in series:
            found.add(each, from_ns, to_ns)
        portion = found.portion(newest_first=query.newest_first)
        if not query.metric_names:
            self._density.saw(len(portion), found.count)
        return portion

    def _query(self, statement: str, params: Params) -> list[Series]:
        return self._connection.query(statement, params)


def _from_cursor(query: ReadingsQuery) -> tuple[int | None, int | None]:
    """The query's range, from the time of its cursor on."""
    start, end, after = query.start_ns, query.end_ns, query.after
    if after is not None and query.newest_first:
        end = after.time_ns + 1 if end is None else min(end, after.time_ns + 1)
    elif after is not None:
        start = after.time_ns if start is None else max(start, after.time_ns)
    return start, end
