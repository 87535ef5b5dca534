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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from readings.times import SECOND
from stores.aggregate.aggregator import FROM_CELLS, Held, Partials, WindowAggregator, check_readings
from stores.aggregate.attribution import Pod
from stores.aggregate.buckets import Buckets, Floats, Ints
from stores.aggregate.functions import PERCENTILES
from stores.aggregate.grouping import ReadingArrays, Source
from stores.base import GroupSeries, SeriesQuery
from stores.influxdb.answers import ResultSeries
from stores.influxdb.client import InfluxConnection
from stores.influxdb.hosts import hosts_at
from stores.influxdb.influxql import (
    Conditions,
    as_tag,
    encoded_metrics,
    select_aggregate,
    select_fields,
    show_tag_values,
)
from stores.influxdb.line_protocol import FIRST_NS, GPU, LAST_NS, SHARE, TAGS, decode_name

_POINTS_AT_ONCE = 300_000
_POINTS_IN_A_PART = 10_000
_FIRST_RANGE_NS = 300 * SECOND
_GROWTH = 8
# More GPUs than this are filtered out of the answer instead of named in the statement: the server is slow to find many by name.
_MOST_NAMED = 50

# The longest range of one query to the server, and the most readings, assuming one a second.
_LONGEST_SLAB_NS = 6 * 3600 * SECOND
_READINGS_AT_ONCE = 10_000_000
_HELD_READINGS_AT_ONCE = 2_000_000
# One query keeps one core of the server busy.
_QUERIES_AT_ONCE = 2
_STATEMENTS_AT_ONCE = 50
_TAG_OF: dict[str | None, tuple[str, ...]] = {None: (), "gpu": ("uuid",), "host": ("hostname",), "model": ("model",)}


_T = TypeVar("_T")


class _TagValues(NamedTuple):
    """The values that each tag of GPUs has or once had."""

    tags: dict[str, list[str]]

    @property
    def has_instances(self) -> bool:
        """Whether there are MIG instances."""
        return bool(self.tags["mig_id"])

    @property
    def gpus(self) -> int:
        """How many boards there are."""
        return len(self.tags["uuid"])


class InfluxSeriesReader:
    """Answers one query through a connection. Raises what the connection raises, and TooMuch."""

    def __init__(self, connection: InfluxConnection, query: SeriesQuery) -> None:
        self._connection = connection
        self._query = query
        self._gatherer = WindowAggregator(query)
        self._field = next(iter(encoded_metrics((query.metric_name,))), "")

    def answer(self) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        if self._field and not self._conditions(GPU, self._gatherer.grid).impossible:
            self._read()
        return self._gatherer.answer()

    def _read(self) -> None:
        query = self._query
        # Outside this range the server aligns windows in its own way.
        bounded = query.start_ns >= FIRST_NS and query.start_ns >= 0 and query.end_ns <= LAST_NS
        if query.aggregate == "increase" or not bounded:
            self._read_points()
            return
        known = self._tag_values()
        if query.occupancies is not None:
            if query.aggregate in FROM_CELLS:
                self._read_held(known)
            else:
                self._read_points()
        elif not known.has_instances and (query.aggregate != "sum" or query.by == "gpu"):
            self._read_groups(known)
        elif query.aggregate in FROM_CELLS:
            self._read_gpus(known)
        else:
            self._read_points()

    def _tag_values(self) -> _TagValues:
        tags: dict[str, list[str]] = {tag: [] for tag in TAGS[GPU]}
        for series in self._connection.query(show_tag_values(GPU, TAGS[GPU]), {}):
            for tag, value in series.values:
                tags[tag].append(value)
        return _TagValues(tags)

    # By group.

    def _read_groups(self, known: _TagValues) -> None:
        by = _TAG_OF[self._query.by]
        for slab, answer in self._asked(known, lambda slab: self._ask_groups(known, slab, by)):
            told: dict[tuple[str, ...], Floats] = {}
            for series in answer:
                values = told[self._group(series, by)] = np.full(slab.count, np.nan)
                places, found = _placed(series, slab)
                values[places] = found
            self._gatherer.add_groups(slab, told)
        if self._query.top is not None:
            answer = self._ask_groups(known, self._gatherer.grid, by, in_windows=False)
            self._gatherer.rank_groups({self._group(series, by): series.values[0][1] for series in answer})

    def _ask_groups(
        self, known: _TagValues, slab: Buckets, by: tuple[str, ...], *, in_windows: bool = True
    ) -> list[ResultSeries]:
        if self._query.aggregate not in PERCENTILES or not by:
            return self._ask((self._aggregate,), slab, by, in_windows=in_windows)[0]
        # The server sorts the points of all groups together: group by group it has less to sort.
        (tag,) = by
        found: list[ResultSeries] = []
        values = self._values_of(tag, known)
        for start in range(0, len(values), _STATEMENTS_AT_ONCE):
            conditions = self._conditions(GPU, slab)
            statements = []
            for value in values[start : start + _STATEMENTS_AT_ONCE]:
                one = conditions.branch()
                one.equals(tag, (value,))
                statements.append(self._statement(self._aggregate, slab, one, by, in_windows=in_windows))
            for answer in self._connection.query_each(statements, conditions.params):
                found += answer
        return found

    def _values_of(self, tag: str, known: _TagValues) -> list[str]:
        """The values of a tag that the query can be about; a GPU without the tag has an empty one."""
        query = self._query
        asked = {"uuid": query.gpus, "hostname": query.hostnames, "model": query.models}[tag]
        return [value for value in ("", *known.tags[tag]) if not asked or _text(value) in asked]

    @property
    def _aggregate(self) -> str:
        aggregate = self._query.aggregate
        return "mean" if aggregate == "sum" else aggregate  # of one GPU alone

    def _group(self, series: ResultSeries, by: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_text(series.tags.get(tag, "")) for tag in by)

    # Of GPUs.

    def _read_gpus(self, known: _TagValues) -> None:
        functions = ("mean", "count", *({self._query.aggregate} & {"max", "min"}))
        if self._query.aggregate == "sum" and self._query.top is None and not known.has_instances:
            functions = ("mean",)  # the means of boards are added: how many readings they have does not matter
        by = ("uuid", "mig_id", *(tag for tag in _TAG_OF[self._query.by] if tag != "uuid"))
        for slab, answers in self._asked(known, lambda slab: self._ask(functions, slab, by)):
            self._gatherer.add_cells(slab, *_cells(answers, slab))

    # By GPU, for those that stay with one pod.

    def _read_held(self, known: _TagValues) -> None:
        """GPUs that keep their holder through a slab are counted by the server; the points of the others are looked at."""
        functions = ("mean", "count", *({self._query.aggregate} & {"max", "min"}))
        by = ("uuid", "mig_id", *(tag for tag in _TAG_OF.get(self._query.by, ()) if tag != "uuid"))
        tenancies = self._gatherer.tenancies
        for slab, (shares, answers) in self._asked(
            known, lambda slab: (self._points(SHARE, slab), self._ask(functions, slab, by)), _HELD_READINGS_AT_ONCE
        ):
            restless = {each.gpu for each in shares.sources}
            restless |= {gpu for gpu, each in tenancies.items() if each.changes(slab.start_ns, slab.end_ns)}
            readings = self._points(GPU, slab, gpus=restless) if restless else _columns((), GPU)
            sources, cells = _cells(answers, slab)
            held: list[Pod] = []
            chosen = []
            for place, source in enumerate(sources):
                tenancy = tenancies.get(source.gpu)
                holder = None if tenancy is None else tenancy.throughout(slab.start_ns, slab.end_ns)
                if holder is not None and source.gpu not in restless:
                    held.append(holder)
                    chosen.append(place)
            found = Held([sources[place] for place in chosen], held, Partials(*(each[:, chosen] for each in cells)))
            self._gatherer.add(slab, readings, shares, found)

    # Queries to the server.

    def _asked(
        self, known: _TagValues, ask: Callable[[Buckets], _T], readings: int = _READINGS_AT_ONCE
    ) -> Iterator[tuple[Buckets, _T]]:
        """The answers slab by slab, in order of time."""
        grid = self._gatherer.grid
        longest = min(_LONGEST_SLAB_NS, readings * SECOND // max(known.gpus, 1))
        on_their_way: deque[tuple[Buckets, Future[_T]]] = deque()
        with ThreadPoolExecutor(_QUERIES_AT_ONCE, "influx-series") as threads:
            try:
                for slab in grid.slabs(longest // grid.every_ns):
                    if len(on_their_way) > _QUERIES_AT_ONCE:
                        first, future = on_their_way.popleft()
                        yield first, future.result()
                    on_their_way.append((slab, threads.submit(ask, slab)))
                for first, future in on_their_way:
                    yield first, future.result()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _ask(
        self, functions: tuple[str, ...], slab: Buckets, by: tuple[str, ...], *, in_windows: bool = True
    ) -> list[list[ResultSeries]]:
        conditions = self._conditions(GPU, slab)
        statements = [self._statement(each, slab, conditions, by, in_windows=in_windows) for each in functions]
        return self._connection.query_each(statements, conditions.params)

    def _statement(
        self, function: str, slab: Buckets, conditions: Conditions, by: tuple[str, ...], *, in_windows: bool = True
    ) -> str:
        percent = PERCENTILES.get(function)
        return select_aggregate(
            function if percent is None else "percentile",
            GPU,
            self._field,
            conditions,
            by=by,
            every_ns=slab.every_ns if in_windows else None,
            percent=percent,
        )

    def _conditions(self, measurement: str, slab: Buckets) -> Conditions:
        query, conditions = self._query, Conditions()
        conditions.between(slab.start_ns, slab.end_ns)
        if query.gpus:
            conditions.boards(query.gpus)
        if query.occupancies is not None:
            occupied = {each.gpu for each in query.occupancies}
            if len(occupied) <= _MOST_NAMED:
                conditions.gpus(sorted(occupied))
        for name, values in (("hostname", query.hostnames), ("model", query.models)):
            if values:
                is_tag = name in TAGS[measurement]
                conditions.equals(name, [as_tag(value) if is_tag else value for value in values])
        return conditions

    # By point.

    def _read_points(self) -> None:
        """Slab after slab, each as long as should hold what can be taken at once."""
        grid = self._gatherer.grid
        start, windows = grid.origin_ns, max(1, _FIRST_RANGE_NS // grid.every_ns)
        expected: float | None = None
        while start < grid.end_ns:
            slab = grid.part(start, windows)
            # A window may hold any number: what is not known to be little comes bit by bit.
            whole = expected is not None and expected * windows <= _POINTS_AT_ONCE
            readings = self._points(GPU, slab, whole=whole)
            shares = self._points(SHARE, slab, whole=whole) if self._query.occupancies is not None else None
            self._gatherer.add(slab, readings, shares)
            start += windows * grid.every_ns
            found = len(readings.times) + (len(shares.times) if shares is not None else 0)
            expected = found / windows
            windows = max(1, int(windows * min(_GROWTH, _POINTS_AT_ONCE / max(found, 1))))

    def _points(
        self, measurement: str, slab: Buckets, *, whole: bool = False, gpus: set[str] | None = None
    ) -> ReadingArrays:
        """The readings of a slab, with ``whole`` in one answer, with ``gpus`` of these alone."""
        conditions = self._conditions(measurement, slab)
        if gpus is not None and len(gpus) <= _MOST_NAMED:
            conditions.gpus(sorted(gpus))
        also = () if measurement == GPU else ("hostname", "model")
        statement = select_fields(measurement, (self._field, *also), conditions, by=TAGS[measurement])
        if whole:
            found = _columns(self._connection.query(statement, conditions.params), measurement)
        else:
            found = _columns(self._connection.stream(statement, conditions.params, _POINTS_IN_A_PART), measurement)
        if gpus is not None:
            wanted = np.array([source.gpu in gpus for source in found.sources], dtype=np.bool_)
            found = found.only(wanted[found.places])
        return self._once(found) if measurement == GPU else found

    def _once(self, readings: ReadingArrays) -> ReadingArrays:
        """One reading for each GPU and time. The one with the GPU's host at that time wins, else the last in tag order."""
        sources, places, times, _ = readings
        numbers: dict[str, int] = {}
        gpus = np.array([numbers.setdefault(source.gpu, len(numbers)) for source in sources], dtype=np.int64)
        if len(numbers) == len(sources) or not len(times):
            return readings
        of_gpu = gpus[places]
        order = np.lexsort((places, times, of_gpu))
        is_last = np.append((np.diff(of_gpu[order]) != 0) | (np.diff(times[order]) != 0), True)
        tied = order[~is_last | ~np.append(True, is_last[:-1])]
        hosts = hosts_at(self._query.hosts, {(sources[places[row]].gpu, int(times[row])) for row in tied.tolist()})
        if hosts:
            ranks = places.copy()
            for row in tied.tolist():
                source = sources[places[row]]
                if hosts.get((source.gpu, int(times[row]))) == source.hostname:
                    ranks[row] += len(sources)
            order = np.lexsort((ranks, times, of_gpu))
        return readings.only(order[is_last])


_NOTHING = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))


def _text(tag: str) -> str:
    return decode_name(tag) if tag else ""


def _source(series: ResultSeries) -> Source:
    tags = series.tags
    return Source(
        _text(tags["uuid"]), _text(tags["mig_id"]), _text(tags.get("hostname", "")), _text(tags.get("model", ""))
    )


def _cells(answers: list[list[ResultSeries]], slab: Buckets) -> tuple[list[Source], Partials]:
    """What the server counted of each GPU: answers for the mean, and if they were asked for, the count and the largest or smallest value."""
    sources: dict[Source, int] = {}
    places = [[sources.setdefault(_source(series), len(sources)) for series in answer] for answer in answers]
    arrays = [np.full((slab.count, len(sources)), np.nan) for _ in answers]
    for array, columns, answer in zip(arrays, places, answers, strict=True):
        for column, series in zip(columns, answer, strict=True):
            rows, values = _placed(series, slab)
            array[rows, column] = values
    counts = np.nan_to_num(arrays[1]) if len(arrays) > 1 else (~np.isnan(arrays[0])).astype(np.float64)
    extremes = arrays[2] if len(arrays) > 2 else np.full_like(counts, np.nan)
    return list(sources), Partials(counts, counts * np.nan_to_num(arrays[0]), extremes)


def _placed(series: ResultSeries, slab: Buckets) -> tuple[Ints, Floats]:
    """The windows that a series has values in, and the values."""
    times = np.array([row[0] for row in series.values], dtype=np.int64)
    places = times // slab.every_ns - slab.origin_ns // slab.every_ns
    return places, np.array([row[1] for row in series.values], dtype=np.float64)


def _columns(answer: Iterable[ResultSeries], measurement: str) -> ReadingArrays:
    """The readings of an answer. The sources of GPUs are in tag order, one for each series."""
    sources: list[Source] = []
    known: dict[tuple[str, ...], int] = {}
    places: list[Ints] = [_NOTHING[0]]
    times: list[Ints] = [_NOTHING[1]]
    values: list[Floats] = [_NOTHING[2]]

    def place_of(key: tuple[str, ...], source: Source) -> int:
        place = known.setdefault(key, len(sources))
        if place == len(sources):
            sources.append(source)
        return place

    count = 0
    for series in answer:
        check_readings(count := count + len(series.values))
        rows = [row for row in series.values if row[1] is not None]
        source, tags = _source(series), series.tags
        key = tuple(tags.values())
        if measurement == GPU:
            places.append(np.full(len(rows), place_of(key, source), dtype=np.int64))
        else:
            source = source._replace(holder=(_text(tags["namespace"]), _text(tags["pod"]), _text(tags["container"])))
            described = [(row[2] or "", row[3] or "") for row in rows]
            places.append(
                np.array(
                    [place_of((*key, *each), source._replace(hostname=each[0], model=each[1])) for each in described],
                    dtype=np.int64,
                )
            )
        times.append(np.array([row[0] for row in rows], dtype=np.int64))
        values.append(np.array([row[1] for row in rows], dtype=np.float64))
    return ReadingArrays(sources, np.concatenate(places), np.concatenate(times), np.concatenate(values))
