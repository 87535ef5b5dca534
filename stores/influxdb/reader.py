"""Reads rows from InfluxDB. The server orders points by time alone, so rows of one time are put in order here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import compress, groupby, pairwise
from operator import itemgetter
from time import time_ns as clock_ns
from typing import Any, NamedTuple

from readings.times import SECOND
from stores.base import HostLookup, ReadingsQuery, RowBatch, SeriesLabels
from stores.influxdb.answers import ResultSeries
from stores.influxdb.client import InfluxConnection
from stores.influxdb.influxql import Conditions, Params, conditions_of, select_each, select_points, show_fields
from stores.influxdb.line_protocol import DESCRIPTION, GPU, TAGS, decode_name
from stores.paging import ROWS_AT_ONCE, bounded, joined

_NUMBERS = {float, int}


def hosts_at(lookup: HostLookup | None, moments: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """The host of each GPU at each time, for moments that an assignment covers. Of several, the last to start wins.

    A GPU whose description changed has two series. A reading written again keeps its copy in the old one, so a reader chooses.
    """
    if lookup is None or not moments:
        return {}
    times = [time_ns for _, time_ns in moments]
    by_gpu: dict[str, list[tuple[int, int | None, str]]] = defaultdict(list)
    for gpu, host, start_ns, end_ns in lookup({gpu for gpu, _ in moments}, min(times), max(times) + 1):
        by_gpu[gpu].append((start_ns, end_ns, host))
    hosts = {}
    for gpu, time_ns in moments:
        covering = [
            (start, host) for start, end, host in by_gpu[gpu] if start <= time_ns and (end is None or time_ns < end)
        ]
        if covering:
            hosts[gpu, time_ns] = max(covering)[1]
    return hosts


class _MetricColumns(NamedTuple):
    """The metrics of one result series, sorted by name, and their columns. ``exact``: every value is a float or None."""

    names: list[str]
    columns: list[int]
    exact: bool


class _LabelledRows(NamedTuple):
    """Consecutive rows of one result series with the same labels; ``places`` has one for each metric."""

    gpu: str
    places: list[int]
    metrics: _MetricColumns
    rows: list[list[Any]]


class RowBuilder:
    """Turns result series of GPUs into rows that match a query."""

    def __init__(self, query: ReadingsQuery) -> None:
        self._wanted = frozenset(query.metric_names)
        self._lookup = query.hosts
        self._owners = [
            (name, values) for name, values in (("namespace", query.namespaces), ("pod", query.pods)) if values
        ]
        self._labels: list[SeriesLabels] = []
        self._parts: list[_LabelledRows] = []
        self._series = 0

    @property
    def count(self) -> int:
        """How many points were added."""
        return sum(len(part.rows) for part in self._parts)

    def add(self, series: ResultSeries, from_ns: int | None = None, to_ns: int | None = None) -> None:
        """Add the points of a series in [from, to)."""
        # With tags a series is one GPU, and no two of its points share a time. Without, it may hold any number of GPUs.
        self._series += 1 if series.tags else 2
        column_of = {name: at for at, name in enumerate(series.columns)}
        metrics = self._metrics(series)
        described = [name for name in DESCRIPTION if name in column_of]
        description: Callable[[list[Any]], Any] = (
            itemgetter(*[column_of[name] for name in described]) if described else lambda row: None
        )
        rows = series.values
        if from_ns is not None:
            rows = [row for row in rows if row[0] >= from_ns]
        if to_ns is not None:
            rows = [row for row in rows if row[0] < to_ns]
        known: dict[Any, tuple[str, list[int]] | None] = {}
        for values, same in groupby(rows, description):
            if values in known:
                labelled = known[values]
            else:
                texts = values if len(described) > 1 else (values,)
                description_of = dict(zip(described, texts, strict=False))
                labelled = self._label(series, description_of, metrics) if self._is_owned(description_of) else None
                known[values] = labelled
            if labelled is not None:
                self._parts.append(_LabelledRows(*labelled, metrics, list(same)))

    def batch(self, *, newest_first: bool) -> RowBatch:
        """All rows that were added, in order. Each GPU, time and metric has one."""
        batch = RowBatch([], [], [], self._labels)
        if self._series == 1:  # the server has put them in order
            for part in self._parts:
                _extend(batch, part, part.rows)
            return batch
        points = [(row[0], part.gpu, part, row) for part in self._parts for row in part.rows]
        points.sort(key=itemgetter(1))
        points.sort(key=itemgetter(0), reverse=newest_first)  # stable, also in reverse
        # Points of one GPU and time come from several series.
        tied = {(one[1], one[0]) for one, other in pairwise(points) if one[0] == other[0] and one[1] == other[1]}
        hosts = hosts_at(self._lookup, tied)
        for (time_ns, gpu), same in groupby(points, itemgetter(0, 1)):
            if (gpu, time_ns) in tied:
                self._add_merged(batch, [each[2:] for each in same], hosts.get((gpu, time_ns)))
            else:
                ((_, _, part, row),) = same
                _extend(batch, part, [row])
        return batch

    def _is_owned(self, description: Mapping[str, Any]) -> bool:
        """Whether the GPU was with one of the pods that are asked for. The server cannot look for no pod (see ``conditions_of``)."""
        return all((description.get(name) or "") in values for name, values in self._owners)

    def _metrics(self, series: ResultSeries) -> _MetricColumns:
        """The columns that hold numbers. The first column is the time."""
        metrics: list[tuple[str, int]] = []
        exact = True
        for at, column in enumerate(series.columns):
            if not at or column in DESCRIPTION:
                continue
            name = decode_name(column)
            kinds = {type(row[at]) for row in series.values}
            if kinds & _NUMBERS and (not self._wanted or name in self._wanted):
                metrics.append((name, at))
                exact = exact and kinds <= {float, type(None)}
        metrics.sort()
        return _MetricColumns([name for name, _ in metrics], [at for _, at in metrics], exact)

    def _label(
        self, series: ResultSeries, description: dict[str, Any], metrics: _MetricColumns
    ) -> tuple[str, list[int]]:
        """The GPU, and the places of its labels."""
        texts = [series.tags.get(name) or description.get(name) or "" for name in DESCRIPTION]
        for place, name in enumerate(DESCRIPTION):
            if name in TAGS[GPU] and texts[place]:
                texts[place] = decode_name(texts[place])
        uuid, mig_id, index, *rest = texts
        first = len(self._labels)
        self._labels += [
            SeriesLabels(name, uuid, mig_id, int(index) if index else None, *rest) for name in metrics.names
        ]
        return f"{uuid}:{mig_id}" if mig_id else uuid, list(range(first, len(self._labels)))

    def _add_merged(self, batch: RowBatch, points: list[tuple[_LabelledRows, list[Any]]], host: str | None) -> None:
        """Add one GPU's points of one time from several series. The one with that host wins, else the last in tag order."""
        rows: dict[str, tuple[tuple[Any, ...], float, int]] = {}
        for part, row in points:
            for place, value in zip(part.places, _values(part.metrics, [row]), strict=True):
                if value is None:
                    continue
                labels = self._labels[place]
                rank = (
                    labels.hostname == host,
                    labels.device,
                    str(labels.gpu_id or ""),
                    labels.hostname,
                    labels.model_name,
                )
                best = rows.get(labels.metric_name)
                if best is None or rank >= best[0]:
                    rows[labels.metric_name] = (rank, value, place)
        for name in sorted(rows):
            _, value, place = rows[name]
            batch.times.append(points[0][1][0])
            batch.values.append(value)
            batch.places.append(place)


def _values(metrics: _MetricColumns, rows: list[list[Any]]) -> list[float | None]:
    """The values of each row, metric by metric."""
    values = [row[at] for row in rows for at in metrics.columns]
    if metrics.exact:
        return values
    return [float(value) if type(value) in _NUMBERS else None for value in values]


def _extend(batch: RowBatch, part: _LabelledRows, rows: list[list[Any]]) -> None:
    """Add rows column by column, which takes a fifth of the time of one by one."""
    values = _values(part.metrics, rows)
    places = part.places * len(rows)
    times = [row[0] for row in rows for _ in part.places]
    if None in values:
        kept = [value is not None for value in values]
        places, times = list(compress(places, kept)), list(compress(times, kept))
    batch.values.extend([value for value in values if value is not None])
    batch.places.extend(places)
    batch.times.extend(times)


# A server that keeps readings for a day has a shard for each hour and opens all that a question may concern, so the rows of a
# page are looked for in ranges of time, each four times as long as the one before; the last one has no bound of its own.
_FIRST_RANGE_NS, _RANGE_GROWTH, _RANGES = 30 * 60 * SECOND, 4, 4
# The most points in one answer, so that a query far into the past takes bounded memory.
_MOST_POINTS = 5_000
_FEW_GPUS = 10
_FIELD_KINDS = frozenset({"float", "integer", "unsigned"})
POINT_READINGS = 10  # in a usual fleet


def ranges(
    start: int | None, end: int | None, *, newest_first: bool, now_ns: int
) -> Iterator[tuple[int | None, int | None]]:
    """Parts of [start, end), in the order of the rows: short ones where the rows of a page probably are, then the rest.

    The newest rows are looked for before the end or, if that is later or open, before now; the oldest from the start on.
    Without a start it is not known where those are.
    """
    latest = now_ns if end is None else min(end, now_ns)
    lengths = [_FIRST_RANGE_NS * _RANGE_GROWTH**number for number in range(_RANGES)]
    for length in lengths:
        if newest_first:
            edge = latest - length
            if start is not None and edge <= start:
                break
            yield edge, end
            latest = end = edge
        else:
            if start is None or start + length >= latest:
                break
            yield start, start + length
            start += length
    yield start, end


class InfluxReader:
    """Reads through a connection. Raises what the connection raises. Safe for threads."""

    def __init__(self, connection: InfluxConnection) -> None:
        self._connection = connection
        # How many readings a point with all metrics had last, so that a query asks for no more points than its rows need.
        self._readings_a_point = 1.0

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, in the query's order."""
        return joined(bounded(self._walk(query), query)) if query.limit else joined(iter(()))

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """The same rows as the server reads them: it sends one answer in parts."""
        return bounded(self._parts(query), query)

    def metric_names(self, gpu: str | None) -> list[str]:
        """Names of the metrics that have readings, sorted."""
        conditions = conditions_of(ReadingsQuery(gpus=() if gpu is None else (gpu,)))
        fields = self._metric_fields(GPU)
        if conditions.impossible or not fields:
            return []
        series = self._connection.query(select_each("last", GPU, fields, conditions), conditions.params)
        present = {
            field
            for each in series
            for field, value in zip(fields, each.values[0][1:], strict=True)
            if value is not None
        }
        return sorted(map(decode_name, present))

    def count_before(self, measurement: str, end_ns: int) -> int:
        """How many readings (or shares) are older. The server scans them all."""
        conditions = Conditions()
        conditions.between(None, end_ns)
        fields = self._metric_fields(measurement)
        if conditions.impossible or not fields:
            return 0
        series = self._connection.query(select_each("count", measurement, fields, conditions), conditions.params)
        return sum(count or 0 for each in series for count in each.values[0][1:])

    def _metric_fields(self, measurement: str) -> list[str]:
        """The fields that are metrics, by their names on the server."""
        return [
            field
            for each in self._connection.query(show_fields(measurement), {})
            for field, kind in each.values
            if kind in _FIELD_KINDS and field not in DESCRIPTION
        ]

    def _walk(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """All matching rows in order, from the time of the query's cursor on, in parts that grow with demand."""
        # One more than needed: other points may share the time of the last one, so that time is read again as a whole.
        rows = query.offset + (query.limit or 0)
        points = rows if query.metric_names else int(rows / self._readings_a_point) + 1
        limit = min(points + 1, _MOST_POINTS)
        for start, end in ranges(*query.bounds(), newest_first=query.newest_first, now_ns=clock_ns()):
            while True:
                series = self._points(query, start, end, limit)
                ends = [each.values[-1][0] for each in series if len(each.values) >= limit]
                if not ends:
                    yield self._batch(query, series)
                    break
                # The answer is complete up to here, without this time.
                if query.newest_first:
                    edge = max(ends)
                    yield self._batch(query, series, from_ns=edge + 1)
                    end = edge
                else:
                    edge = min(ends)
                    yield self._batch(query, series, to_ns=edge)
                    start = edge + 1
                yield self._batch(query, self._points(query, edge, edge + 1, 0))
                limit = min(limit * 4, _MOST_POINTS)

    def _parts(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        statement, params = self._selection(query, *query.bounds(), limit=0, by_series=False)
        if not statement:
            return
        pending: list[list[Any]] = []
        last: ResultSeries | None = None
        for last in self._connection.stream(statement, params, max(1, ROWS_AT_ONCE // POINT_READINGS)):
            # More points of the last time may follow.
            values = pending + last.values
            time_ns = values[-1][0]
            whole = next((at for at in range(len(values), 0, -1) if values[at - 1][0] != time_ns), 0)
            pending, last.values = values[whole:], values[:whole]
            yield self._batch(query, [last])
        if last is not None:
            last.values = pending
            yield self._batch(query, [last])

    def _points(self, query: ReadingsQuery, start: int | None, end: int | None, limit: int) -> list[ResultSeries]:
        # The limit then holds for each series, and the answer has the tags once instead of in each row.
        by_series = 0 < len(query.gpus) <= _FEW_GPUS
        statement, params = self._selection(query, start, end, limit=limit, by_series=by_series)
        return self._connection.query(statement, params) if statement else []

    def _selection(
        self, query: ReadingsQuery, start: int | None, end: int | None, *, limit: int, by_series: bool
    ) -> tuple[str, Params]:
        """The statement for the points of a range. It is empty when there can be none."""
        conditions = conditions_of(query)
        conditions.between(start, end)
        if conditions.impossible:
            return "", {}
        if query.metric_names:
            conditions.has_any(query.metric_names)
        statement = select_points(
            query.metric_names, conditions, newest_first=query.newest_first, limit=limit, by_series=by_series
        )
        return statement, conditions.params

    def _batch(
        self, query: ReadingsQuery, series: list[ResultSeries], *, from_ns: int | None = None, to_ns: int | None = None
    ) -> RowBatch:
        """The rows of an answer in order, of [from, to) alone."""
        rows = RowBuilder(query)
        for each in series:
            rows.add(each, from_ns, to_ns)
        batch = rows.batch(newest_first=query.newest_first)
        if len(batch) and not query.metric_names:
            self._readings_a_point = max(1.0, len(batch) / rows.count)
        return batch
