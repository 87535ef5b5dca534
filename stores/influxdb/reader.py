"""Answering queries from InfluxDB. It orders points by time alone: what shares a time is put in order here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import compress, groupby
from operator import itemgetter
from typing import Any, NamedTuple

from readings.times import SECOND
from stores.base import ReadingsQuery, RowBatch, SeriesLabels
from stores.influxdb.client import InfluxConnection, Series
from stores.influxdb.influxql import (
    Conditions,
    Params,
    conditions_of,
    select_each,
    select_edge,
    select_points,
    show_fields,
)
from stores.influxdb.line_protocol import GPU, SHARE, SUPERSEDED, TAGS, decode_name
from stores.paging import ROWS_AT_ONCE, bounded, joined

# In the order of SeriesLabels.
_DESCRIPTION = ("uuid", "mig_id", "gpu_id", "device", "model", "hostname", "container", "pod", "namespace")
DESCRIBED = frozenset({*_DESCRIPTION, SUPERSEDED})
_NUMBERS = {float, int}


class _Metrics(NamedTuple):
    """The metrics of one series of an answer, by name: their names, and their columns. ``exact``: all are floats or nothing."""

    names: list[str]
    columns: list[int]
    exact: bool


class _Run(NamedTuple):
    """Rows of one series, one after the other, that are of the same thing (``places``, one origin for each of the metrics)."""

    gpu: str
    places: list[int]
    metrics: _Metrics
    rows: list[list[Any]]


class Points:
    """Gathers points of one measurement; ``wanted`` metrics alone, or all when there are none."""

    def __init__(self, measurement: str, wanted: frozenset[str]) -> None:
        self._tags = TAGS[measurement]
        self._is_share = measurement == SHARE
        self._wanted = wanted
        self._origins: list[SeriesLabels] = []
        self._runs: list[_Run] = []
        self._series = 0

    @property
    def count(self) -> int:
        """How many points there are."""
        return sum(len(run.rows) for run in self._runs)

    def add(self, series: Series, from_ns: int | None = None, to_ns: int | None = None) -> None:
        """Add the points of a series in [from, to), but those that another series has instead."""
        # One set of tags is one GPU, and no two of its points are of one time. Without tags it may be any number of them.
        self._series += 1 if series.tags and not self._is_share else 2
        column_of = {name: at for at, name in enumerate(series.columns)}
        metrics = self._metrics(series)
        told = [name for name in _DESCRIPTION if name in column_of]
        said_by: Callable[[list[Any]], Any] = (
            itemgetter(*[column_of[name] for name in told]) if told else lambda row: None
        )
        rows = series.values
        if from_ns is not None:
            rows = [row for row in rows if row[0] >= from_ns]
        if to_ns is not None:
            rows = [row for row in rows if row[0] < to_ns]
        if (superseded := column_of.get(SUPERSEDED)) is not None:
            rows = [row for row in rows if row[superseded] is not True]
        known: dict[Any, tuple[str, list[int]]] = {}
        for said, run in groupby(rows, said_by):
            if (found := known.get(said)) is None:
                values = said if len(told) > 1 else (said,)
                found = known[said] = self._describe(series, dict(zip(told, values, strict=False)), metrics)
            self._runs.append(_Run(*found, metrics, list(run)))

    def portion(self, *, newest_first: bool) -> RowBatch:
        """All that was added, in order."""
        portion = RowBatch([], [], [], self._origins)
        if self._series == 1:  # the server has put them in order
            for run in self._runs:
                _extend(portion, run, run.rows)
            return portion
        points = [(row[0], run.gpu, run, row) for run in self._runs for row in run.rows]
        points.sort(key=itemgetter(1))
        points.sort(key=itemgetter(0), reverse=newest_first)  # stable, also in reverse
        for _, same in groupby(points, itemgetter(0, 1)):
            tied = [(run, row) for _, _, run, row in same]
            if len(tied) == 1:
                ((run, row),) = tied
                _extend(portion, run, [row])
            else:
                self._add_tied(portion, tied)
        return portion

    def _metrics(self, series: Series) -> _Metrics:
        """The columns that hold numbers, by the names of their metrics. The first is the time."""
        found: list[tuple[str, int]] = []
        exact = True
        for at, column in enumerate(series.columns):
            if not at or column in DESCRIBED:
                continue
            name = decode_name(column)
            kinds = {type(row[at]) for row in series.values}
            if kinds & _NUMBERS and (not self._wanted or name in self._wanted):
                found.append((name, at))
                exact = exact and kinds <= {float, type(None)}
        found.sort()
        return _Metrics([name for name, _ in found], [at for _, at in found], exact)

    def _describe(self, series: Series, said: dict[str, Any], metrics: _Metrics) -> tuple[str, list[int]]:
        texts = [series.tags.get(name) or said.get(name) or "" for name in _DESCRIPTION]
        for place, name in enumerate(_DESCRIPTION):
            if name in self._tags and texts[place]:
                texts[place] = decode_name(texts[place])
        uuid, mig_id, index, *rest = texts
        first = len(self._origins)
        self._origins += [
            SeriesLabels(name, uuid, mig_id, int(index) if index else None, *rest) for name in metrics.names
        ]
        return f"{uuid}:{mig_id}" if mig_id else uuid, list(range(first, len(self._origins)))

    def _add_tied(self, portion: RowBatch, points: list[tuple[_Run, list[Any]]]) -> None:
        """Points of one GPU and one time: pods' shares of it, or one point in two series while it moves between them."""
        found: dict[tuple[str, ...], tuple[float, int]] = {}
        for run, row in points:
            for place, value in zip(run.places, _values(run.metrics, [row]), strict=True):
                if value is not None:
                    origin = self._origins[place]
                    share_of = (origin.namespace, origin.pod, origin.container) if self._is_share else ()
                    found[origin.metric_name, *share_of] = (value, place)
        for key in sorted(found):
            value, place = found[key]
            portion.times.append(points[0][1][0])
            portion.values.append(value)
            portion.places.append(place)


def _values(metrics: _Metrics, rows: list[list[Any]]) -> list[float | None]:
    """Of each row each metric's."""
    found = [row[at] for row in rows for at in metrics.columns]
    if metrics.exact:
        return found
    return [float(value) if type(value) in _NUMBERS else None for value in found]


def _extend(portion: RowBatch, run: _Run, rows: list[list[Any]]) -> None:
    """Add rows of a run, column by column: a fifth of the time that one by one takes."""
    values = _values(run.metrics, rows)
    places = run.places * len(rows)
    times = [row[0] for row in rows for _ in run.places]
    if None in values:
        kept = [value is not None for value in values]
        places, times = list(compress(places, kept)), list(compress(times, kept))
    portion.values.extend([value for value in values if value is not None])
    portion.places.extend(places)
    portion.times.extend(times)


# The most points of one answer, so that a query far into the past is answered in bounded memory.
_MOST_POINTS = 5_000
_FEW_GPUS = 10
_COUNTED_AT_ONCE_NS = 6 * 3600 * SECOND
_MOST_PIECES = 64
_FIELD_KINDS = frozenset({"float", "integer", "unsigned"})
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

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, in the query's order."""
        return joined(bounded(self._walk(query), query)) if query.limit else joined(iter(()))

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
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
        metrics = [field for field, kind in types.items() if kind in _FIELD_KINDS and field not in DESCRIBED]
        return metrics, SUPERSEDED in types

    def edge_ns(self, *, newest: bool) -> int | None:
        """The time of the newest point, or of the oldest."""
        series = self._query(select_edge(self._measurement, newest=newest), {})
        return int(series[0].values[0][0]) if series else None

    def _walk(self, query: ReadingsQuery) -> Iterator[RowBatch]:
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

    def _parts(self, query: ReadingsQuery) -> Iterator[RowBatch]:
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
    ) -> RowBatch:
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
