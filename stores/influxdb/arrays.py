"""Readings of one metric as arrays, point by point from InfluxDB."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from functools import lru_cache

import numpy as np

from readings.times import SECOND
from stores.aggregate.arrays import ReadingArrays, ReadingSource
from stores.aggregate.functions import starts_run
from stores.aggregate.limits import READINGS_IN_A_PART, check_count
from stores.aggregate.passes import slices
from stores.base import HostLookup
from stores.influxdb.answers import ResultSeries
from stores.influxdb.client import InfluxConnection
from stores.influxdb.influxql import Conditions, encoded_metrics, select_fields
from stores.influxdb.line_protocol import GPU, TAGS, decode_name
from stores.influxdb.reader import hosts_at

POINTS_AT_ONCE = 300_000
FIRST_RANGE_NS = 300 * SECOND
_POINTS_IN_A_PART = 10_000
# More GPUs than this are filtered out of the answer instead of named in the statement: the server is slow to find many by name.
MOST_NAMED = 50


class InfluxArrayReader:
    """Reads one metric through a connection. Raises what the connection raises."""

    def __init__(self, connection: InfluxConnection, field: str, hosts: HostLookup | None) -> None:
        self._connection = connection
        self._field = field
        self._hosts = hosts

    def read(
        self,
        measurement: str,
        conditions: Conditions,
        most: int,
        *,
        whole: bool = False,
        gpus: Collection[str] | None = None,
    ) -> ReadingArrays:
        """The readings that meet the conditions: with ``whole`` in one answer, with ``gpus`` of these alone. Raises PartTooLarge."""
        if gpus is not None and len(gpus) <= MOST_NAMED:
            conditions.gpus(sorted(gpus))
        if conditions.impossible:
            return arrays_of((), measurement, most)
        also = () if measurement == GPU else ("hostname", "model")
        statement = select_fields(measurement, (self._field, *also), conditions, by=TAGS[measurement])
        if whole:
            found = arrays_of(self._connection.query(statement, conditions.params), measurement, most)
        else:
            with closing(self._connection.stream(statement, conditions.params, _POINTS_IN_A_PART)) as parts:
                found = arrays_of(parts, measurement, most)
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
        is_first = starts_run(of_gpu[order], times[order])
        is_last = np.roll(is_first, -1)
        tied = order[~(is_first & is_last)]
        hosts = hosts_at(self._hosts, {(sources[places[row]].gpu, int(times[row])) for row in tied.tolist()})
        if hosts:
            ranks = places.copy()
            for row in tied.tolist():
                source = sources[places[row]]
                if hosts.get((source.gpu, int(times[row]))) == source.hostname:
                    ranks[row] += len(sources)
            order = np.lexsort((ranks, times, of_gpu))
        return readings.only(order[is_last])


def readings(
    connection: InfluxConnection,
    metric_name: str,
    start_ns: int,
    end_ns: int,
    gpus: Collection[str],
    hosts: HostLookup | None,
) -> Iterator[ReadingArrays]:
    """See Store.readings()."""
    field = next(iter(encoded_metrics((metric_name,))), "")
    if not field:
        return
    reader, most = InfluxArrayReader(connection, field, hosts), READINGS_IN_A_PART
    asked = frozenset(gpus) if gpus else None
    rate: float | None = None  # readings in a nanosecond

    def read(start: int, end: int, of_any_size: bool) -> ReadingArrays:
        nonlocal rate
        conditions = Conditions()
        conditions.between(start, end)
        whole = rate is not None and rate * (end - start) <= most / 2
        found = reader.read(GPU, conditions, 1 << 62 if of_any_size else most, whole=whole, gpus=asked)
        rate = len(found.times) / (end - start) if asked is None or len(asked) <= MOST_NAMED else None
        return found

    yield from slices(start_ns, end_ns, FIRST_RANGE_NS, read, lambda part: len(part.times), most)


def text_of(tag: str) -> str:
    """The text that a tag stands for."""
    return decode_name(tag) if tag else ""


def source_of(series: ResultSeries) -> ReadingSource:
    """The GPU of a series."""
    tags = series.tags
    return _source(tags["uuid"], tags["mig_id"], tags.get("hostname", ""), tags.get("model", ""))


@lru_cache(maxsize=100_000)
def _source(uuid: str, mig_id: str, hostname: str, model: str) -> ReadingSource:
    return ReadingSource(text_of(uuid), text_of(mig_id), text_of(hostname), text_of(model))


def arrays_of(answer: Iterable[ResultSeries], measurement: str, most: int) -> ReadingArrays:
    """The readings of an answer. The sources of GPUs are in tag order, one for each series."""
    sources: dict[tuple[tuple[str, ...], ReadingSource], int] = {}
    # An answer has many series of a few points each, for which these take a third of the time that numpy's would.
    places, times, values = array("q"), array("q"), array("d")
    count = 0
    for series in answer:
        check_count(count := count + len(series.values), most)
        rows = [row for row in series.values if row[1] is not None]
        source, tags = source_of(series), series.tags
        key = tuple(tags.values())
        if measurement == GPU:
            places.extend([sources.setdefault((key, source), len(sources))] * len(rows))
        else:
            source = source._replace(pod=(text_of(tags["namespace"]), text_of(tags["pod"]), text_of(tags["container"])))
            described = [source._replace(hostname=row[2] or "", model=row[3] or "") for row in rows]
            places.extend([sources.setdefault((key, each), len(sources)) for each in described])
        times.extend([row[0] for row in rows])
        values.extend([row[1] for row in rows])
    found = [source for _, source in sources]
    return ReadingArrays(
        found,
        np.array(places, dtype=np.int64),
        np.array(times, dtype=np.int64),
        np.array(values, dtype=np.float64),
    )
