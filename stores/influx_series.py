"""Windows of one metric from InfluxDB: what the server can count is asked of it, the rest worked out of its points."""

from __future__ import annotations

import numpy as np

from stores.base import GroupSeries, SeriesQuery
from stores.columns import Columns, Floats, Ints, Source
from stores.grid import Grid
from stores.influx_client import InfluxConnection, Series
from stores.influx_lines import GPU, SHARE, SUPERSEDED, TAGS, decode_name
from stores.influx_query import Conditions, as_tag, encoded_metrics, select_fields
from stores.windows import Gatherer

_POINTS_AT_ONCE = 300_000
_FIRST_RANGE_NS = 300 * 1_000_000_000
_GROWTH = 8
_MOST_NAMED = 500  # GPUs in one question; more are not named, but left out of its answer
_SOURCE = {GPU: ("uuid", "mig_id", "hostname", "model"), SHARE: ("uuid", "mig_id", "namespace", "pod", "container")}


class SeriesReader:
    """Answers one query through a connection. Raises what the connection raises, and TooMuch."""

    def __init__(self, connection: InfluxConnection, query: SeriesQuery) -> None:
        self._connection = connection
        self._query = query
        self._gatherer = Gatherer(query)
        self._field = next(iter(encoded_metrics((query.metric_name,))), None)

    def answer(self) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        if self._field is not None:
            self._read_points()
        return self._gatherer.answer()

    def _read_points(self) -> None:
        """Slab after slab, each as long as should hold what can be taken at once."""
        grid = self._gatherer.grid
        start, windows = grid.origin_ns, max(1, _FIRST_RANGE_NS // grid.every_ns)
        while start < grid.end_ns:
            slab = grid.part(start, windows)
            readings = self._points(GPU, slab)
            shares = self._points(SHARE, slab) if self._query.occupancies is not None else None
            self._gatherer.add(slab, readings, shares)
            start += windows * grid.every_ns
            found = len(readings.times) + (len(shares.times) if shares is not None else 0)
            windows = max(1, int(windows * min(_GROWTH, _POINTS_AT_ONCE / max(found, 1))))

    def _points(self, measurement: str, slab: Grid) -> Columns:
        conditions = self._conditions(measurement)
        conditions.between(slab.start_ns, slab.end_ns)
        if conditions.impossible or self._field is None:
            return Columns((), *_NOTHING)
        also = (SUPERSEDED,) if measurement == GPU else ("hostname", "model")
        statement = select_fields(measurement, (self._field, *also), conditions, by=_SOURCE[measurement])
        series = self._connection.query(statement, conditions.params)
        return _columns(series, measurement)

    def _conditions(self, measurement: str) -> Conditions:
        query, conditions = self._query, Conditions()
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


_NOTHING = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))


def _columns(answer: list[Series], measurement: str) -> Columns:
    """The readings of an answer, but those of superseded points."""
    sources: dict[Source, int] = {}
    places: list[Ints] = [_NOTHING[0]]
    times: list[Ints] = [_NOTHING[1]]
    values: list[Floats] = [_NOTHING[2]]
    for series in answer:
        tags = {name: decode_name(text) if text else "" for name, text in series.tags.items()}
        rows = [row for row in series.values if row[1] is not None and row[2] is not True]
        if measurement == GPU:
            source = Source(tags["uuid"], tags["mig_id"], tags["hostname"], tags["model"])
            place = sources.setdefault(source, len(sources))
            places.append(np.full(len(rows), place, dtype=np.int64))
        else:
            holder = (tags["namespace"], tags["pod"], tags["container"])
            described = [Source(tags["uuid"], tags["mig_id"], row[2] or "", row[3] or "", holder) for row in rows]
            places.append(np.array([sources.setdefault(each, len(sources)) for each in described], dtype=np.int64))
        times.append(np.array([row[0] for row in rows], dtype=np.int64))
        values.append(np.array([row[1] for row in rows], dtype=np.float64))
    return Columns(list(sources), np.concatenate(places), np.concatenate(times), np.concatenate(values))
