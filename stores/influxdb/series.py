"""Windows of one metric from InfluxDB. The server aggregates what it can; the rest is computed from its points.

The server is fast at one function of one field by window, because it makes no points for that (measured: 7 million readings
a second, against 0.5 million as points). So there are three ways, and a query takes the cheapest that is right:

- by group: the server computes the answer itself, grouped by a tag, when there are no MIG instances;
- by GPU: the server computes count and mean (and largest or smallest value) of each GPU, and groups are made from
  these, so that a board counts once;
- by point: every reading, for aggregates that depend on their order, and for GPUs that changed pods or are shared.

A reading that two series hold (see stores.base.HostLookup) is taken once by point. The server's own aggregates see both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from readings.times import SECOND
from stores.aggregate.aggregator import FROM_PARTIALS, Partials, PartReadings, WindowAggregator
from stores.aggregate.arrays import Pod, ReadingSource
from stores.aggregate.buckets import Buckets
from stores.aggregate.functions import PERCENTILES, Floats, Ints
from stores.aggregate.limits import PartTooLarge, limits_of
from stores.aggregate.passes import Effort, Passes
from stores.base import GroupSeries, SeriesQuery
from stores.influxdb.answers import ResultSeries
from stores.influxdb.arrays import (
    FIRST_RANGE_NS,
    MOST_NAMED,
    POINTS_AT_ONCE,
    InfluxArrayReader,
    arrays_of,
    source_of,
    text_of,
)
from stores.influxdb.client import InfluxConnection
from stores.influxdb.influxql import (
    Conditions,
    as_tag,
    encoded_metrics,
    select_aggregate,
    show_tag_values,
)
from stores.influxdb.line_protocol import GPU, LAST_NS, SHARE, TAGS

# The longest range of one query to the server, and the most readings, assuming one a second.
_LONGEST_BATCH_NS = 6 * 3600 * SECOND
_READINGS_AT_ONCE = 10_000_000
_POD_READINGS_AT_ONCE = 2_000_000
# One query keeps one core of the server busy.
_QUERIES_AT_ONCE = 2
_STATEMENTS_AT_ONCE = 50
_TAG_OF: dict[str | None, tuple[str, ...]] = {None: (), "gpu": ("uuid",), "host": ("hostname",), "model": ("model",)}


_T = TypeVar("_T")


# The values that each tag of GPUs has or once had.
_TagValues = dict[str, list[str]]


class InfluxSeriesReader:
    """Answers one query through a connection. Raises what the connection raises, and TooMuch."""

    def __init__(self, connection: InfluxConnection, query: SeriesQuery) -> None:
        self._connection = connection
        self._query = query
        self._aggregator = WindowAggregator(query)
        self._limits = limits_of(query.memory)
        self._field = next(iter(encoded_metrics((query.metric_name,))), "")
        self._arrays = InfluxArrayReader(connection, self._field, query.hosts)

    def answer(self) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        if not self._field or self._conditions(GPU, self._query.buckets).impossible:
            return []
        return self._read()

    def _read(self) -> list[GroupSeries]:
        query = self._query
        # Outside this range the server aligns windows in its own way.
        bounded = query.buckets.start_ns >= 0 and query.buckets.end_ns <= LAST_NS
        if query.aggregate == "increase" or not bounded:
            return self._read_points()
        known = self._tag_values()
        if query.assignments is not None:
            if query.aggregate not in FROM_PARTIALS:
                return self._read_points()
            try:
                self._read_by_pod(known)
            except PartTooLarge:  # too many GPUs changed pods: their points are read in smaller parts
                return self._read_points()
        elif not known["mig_id"] and (query.aggregate != "sum" or query.by == "gpu"):
            self._read_groups(known)
        elif query.aggregate in FROM_PARTIALS:
            self._read_gpus(known)
        else:
            return self._read_points()
        return self._aggregator.answer()

    def _tag_values(self) -> _TagValues:
        tags: _TagValues = {tag: [] for tag in TAGS[GPU]}
        for series in self._connection.query(show_tag_values(GPU, TAGS[GPU]), {}):
            for tag, value in series.values:
                tags[tag].append(value)
        return tags

    # By group.

    def _read_groups(self, known: _TagValues) -> None:
        by = _TAG_OF[self._query.by]
        columns = len(known[by[0]]) + 1 if by else 1
        for batch, answer in self._ahead(known, lambda batch: self._ask_groups(known, batch, by), columns):
            by_group: dict[tuple[str, ...], Floats] = {}
            for series in answer:
                column = by_group[self._group(series, by)] = np.full(batch.count, np.nan)
                windows, values = _by_window(series, batch)
                column[windows] = values
            self._aggregator.add_groups(batch, by_group)
        if self._query.top is not None:
            answer = self._ask_groups(known, self._query.buckets, by, in_windows=False)
            self._aggregator.rank_groups({self._group(series, by): series.values[0][1] for series in answer})

    def _ask_groups(
        self, known: _TagValues, batch: Buckets, by: tuple[str, ...], *, in_windows: bool = True
    ) -> list[ResultSeries]:
        if self._query.aggregate not in PERCENTILES or not by:
            return self._ask((self._aggregate,), batch, by, in_windows=in_windows)[0]
        # The server would sort the points of all groups together. One statement for each group leaves less to sort.
        (tag,) = by
        series: list[ResultSeries] = []
        values = self._values_of(tag, known)
        for start in range(0, len(values), _STATEMENTS_AT_ONCE):
            conditions = self._conditions(GPU, batch)
            statements = []
            for value in values[start : start + _STATEMENTS_AT_ONCE]:
                one = conditions.branch()
                one.equals(tag, (value,))
                statements.append(self._statement(self._aggregate, batch, one, by, in_windows=in_windows))
            for answer in self._connection.query_each(statements, conditions.params):
                series += answer
        return series

    def _values_of(self, tag: str, known: _TagValues) -> list[str]:
        """The values of a tag that can match the query. A GPU without the tag has an empty one."""
        query = self._query
        asked = {"uuid": query.gpus, "hostname": query.hostnames, "model": query.models}[tag]
        return [value for value in ("", *known[tag]) if not asked or text_of(value) in asked]

    @property
    def _aggregate(self) -> str:
        aggregate = self._query.aggregate
        return "mean" if aggregate == "sum" else aggregate  # each group is a single GPU then

    def _group(self, series: ResultSeries, by: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(text_of(series.tags.get(tag, "")) for tag in by)

    # By GPU.

    def _read_gpus(self, known: _TagValues) -> None:
        functions = self._functions
        if self._query.aggregate == "sum" and self._query.top is None and not known["mig_id"]:
            functions = ("mean",)  # the sum of the boards' means needs no counts
        columns = len(functions) * len(known["uuid"])
        for batch, answers in self._ahead(known, lambda batch: self._ask(functions, batch, self._by_gpu), columns):
            self._aggregator.add_partials(batch, *_partials(answers, batch))

    @property
    def _functions(self) -> tuple[str, ...]:
        return ("mean", "count", *({self._query.aggregate} & {"max", "min"}))

    @property
    def _by_gpu(self) -> tuple[str, ...]:
        return ("uuid", "mig_id", *(tag for tag in _TAG_OF.get(self._query.by, ()) if tag != "uuid"))

    # By GPU, for those that stay with one pod.

    def _read_by_pod(self, known: _TagValues) -> None:
        """The server aggregates GPUs that keep their pod for a whole batch. The points of all others are read."""
        timelines = self._aggregator.timelines
        for batch, (shares, answers) in self._ahead(
            known,
            lambda batch: (
                self._arrays.read(SHARE, self._conditions(SHARE, batch), self._limits.readings),
                self._ask(self._functions, batch, self._by_gpu),
            ),
            len(self._functions) * len(known["uuid"]),
            _POD_READINGS_AT_ONCE,
        ):
            changing = {each.gpu for each in shares.sources}
            changing |= {gpu for gpu, each in timelines.items() if each.changes(batch.start_ns, batch.end_ns)}
            most = self._limits.readings - len(shares.times)
            readings = (
                self._arrays.read(GPU, self._conditions(GPU, batch), most, gpus=changing)
                if changing
                else arrays_of((), GPU, most)
            )
            sources, partials = _partials(answers, batch)
            pods: list[Pod] = []
            chosen = []
            for place, source in enumerate(sources):
                timeline = timelines.get(source.gpu)
                pod = None if timeline is None else timeline.throughout(batch.start_ns, batch.end_ns)
                if pod is not None and source.gpu not in changing:
                    pods.append(pod)
                    chosen.append(place)
            steady = ([sources[place] for place in chosen], pods, Partials(*(each[:, chosen] for each in partials)))
            self._aggregator.add(batch, readings, shares, steady)

    # Queries to the server.

    def _ahead(
        self, known: _TagValues, ask: Callable[[Buckets], _T], columns: int, readings: int = _READINGS_AT_ONCE
    ) -> Iterator[tuple[Buckets, _T]]:
        """The batches with their answers, in order of time. A few queries run ahead.

        An answer has up to ``columns`` values for each window.
        """
        buckets = self._query.buckets
        longest = min(_LONGEST_BATCH_NS, readings * SECOND // max(len(known["uuid"]), 1))
        windows = max(1, min(longest // buckets.every_ns, self._limits.rows // max(columns, 1)))
        if windows < buckets.count:
            Effort(self._query).is_heavy()
        running: deque[tuple[Buckets, Future[_T]]] = deque()
        with ThreadPoolExecutor(_QUERIES_AT_ONCE, "influx-series") as threads:
            try:
                for batch in buckets.batches(windows):
                    if len(running) > _QUERIES_AT_ONCE:
                        first, future = running.popleft()
                        yield first, future.result()
                    running.append((batch, threads.submit(ask, batch)))
                for first, future in running:
                    yield first, future.result()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _ask(
        self, functions: tuple[str, ...], batch: Buckets, by: tuple[str, ...], *, in_windows: bool = True
    ) -> list[list[ResultSeries]]:
        conditions = self._conditions(GPU, batch)
        statements = [self._statement(each, batch, conditions, by, in_windows=in_windows) for each in functions]
        return self._connection.query_each(statements, conditions.params)

    def _statement(
        self, function: str, batch: Buckets, conditions: Conditions, by: tuple[str, ...], *, in_windows: bool = True
    ) -> str:
        percent = PERCENTILES.get(function)
        return select_aggregate(
            function if percent is None else "percentile",
            GPU,
            self._field,
            conditions,
            by=by,
            every_ns=batch.every_ns if in_windows else None,
            percent=percent,
        )

    def _conditions(self, measurement: str, batch: Buckets) -> Conditions:
        query, conditions = self._query, Conditions()
        conditions.between(batch.start_ns, batch.end_ns)
        if query.gpus:
            conditions.boards(query.gpus)
        if query.assignments is not None:
            occupied = {each.gpu for each in query.assignments}
            if len(occupied) <= MOST_NAMED:
                conditions.gpus(sorted(occupied))
        for name, values in (("hostname", query.hostnames), ("model", query.models)):
            if values:
                is_tag = name in TAGS[measurement]
                conditions.equals(name, [as_tag(value) if is_tag else value for value in values])
        return conditions

    # By point.

    def _read_points(self) -> list[GroupSeries]:
        """Part by part, each as long as should fit into memory, going by the one before."""
        rate: float | None = None  # points in a nanosecond

        def read(part: Buckets, most: int) -> PartReadings:
            nonlocal rate
            length = part.end_ns - part.start_ns
            # A part may hold any number of points, so an answer is streamed unless it should be small.
            whole = rate is not None and rate * length <= min(most, POINTS_AT_ONCE) / 2
            readings = self._arrays.read(GPU, self._conditions(GPU, part), most, whole=whole)
            shares = None
            if self._query.assignments is not None:
                left = most - len(readings.times)
                shares = self._arrays.read(SHARE, self._conditions(SHARE, part), left, whole=whole)
            rate = (len(readings.times) + (len(shares.times) if shares is not None else 0)) / length
            return readings, shares

        return Passes(self._query, read, FIRST_RANGE_NS // self._query.buckets.every_ns).answer()


def _partials(answers: list[list[ResultSeries]], batch: Buckets) -> tuple[list[ReadingSource], Partials]:
    """The server's partial aggregates of each GPU, from answers for the mean and, if present, the count and the extreme."""
    sources: dict[ReadingSource, int] = {}
    places = [[sources.setdefault(source_of(series), len(sources)) for series in answer] for answer in answers]
    arrays = [np.full((batch.count, len(sources)), np.nan) for _ in answers]
    for array, columns, answer in zip(arrays, places, answers, strict=True):
        for column, series in zip(columns, answer, strict=True):
            rows, values = _by_window(series, batch)
            array[rows, column] = values
    counts = np.nan_to_num(arrays[1]) if len(arrays) > 1 else (~np.isnan(arrays[0])).astype(np.float64)
    extremes = arrays[2] if len(arrays) > 2 else np.full_like(counts, np.nan)
    return list(sources), Partials(counts, counts * np.nan_to_num(arrays[0]), extremes)


def _by_window(series: ResultSeries, batch: Buckets) -> tuple[Ints, Floats]:
    """The windows in which a series has values, and the values."""
    times = np.array([row[0] for row in series.values], dtype=np.int64)
    windows = times // batch.every_ns - batch.origin_ns // batch.every_ns
    return windows, np.array([row[1] for row in series.values], dtype=np.float64)
