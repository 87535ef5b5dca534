"""The store for development. It keeps everything in the memory of its process and loses it with that."""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from readings.model import PointBlock
from stores.aggregate.aggregator import PartReadings
from stores.aggregate.arrays import ReadingArrays, ReadingSource, columns_of
from stores.aggregate.buckets import Buckets
from stores.aggregate.limits import READINGS_IN_A_PART, check_count
from stores.aggregate.passes import Passes, slices
from stores.base import (
    Description,
    GroupSeries,
    HostLookup,
    ReadingsQuery,
    RowBatch,
    SeriesLabels,
    SeriesQuery,
    StoreError,
    StoreStats,
    WriteResult,
    describe,
)
from stores.paging import ROWS_AT_ONCE, bounded
from stores.validate import split_storable

_BYTES_PER_READING = 200  # a time in two containers, a value and a shared description; estimated

_Key = tuple[str, str, str, str, str]  # gpu, metric, and of a share namespace, pod, container
_Reading = tuple[int, _Key, float, Description]


class _MemorySeries:
    """The readings of one metric of one GPU."""

    __slots__ = ("readings", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.readings: dict[int, tuple[float, Description]] = {}

    def put(self, time_ns: int, value: float, described: Description) -> None:
        """Store a reading."""
        if time_ns not in self.readings:
            insort(self.times, time_ns)
        self.readings[time_ns] = (value, described)

    def drop_before(self, oldest_ns: int) -> int:
        """Drop older readings. Returns how many."""
        count = bisect_left(self.times, oldest_ns)
        for time_ns in self.times[:count]:
            del self.readings[time_ns]
        del self.times[:count]
        return count


class MemoryStore:
    """Readings in memory. See stores.base.Store for the methods. Safe for threads; each process has a store of its own."""

    expires_by_itself = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[_Key, _MemorySeries] = {}
        self._shares: dict[_Key, _MemorySeries] = {}
        self._described: dict[Description, Description] = {}
        self._closed = False

    def write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        """Store all blocks."""
        storable, refused = split_storable(blocks)
        written = 0
        with self._lock:
            self._check_open()
            for block in storable:
                written += self._write_block(block)
        return WriteResult(written, tuple(refused))

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, in the query's order."""
        with self._lock:
            self._check_open()
            return _answer(self._series, query)

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """The rows that match, a bounded number at a time."""
        return bounded(self._pages(query), query)

    def _pages(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        newest = self.stats().newest_ns
        if not query.newest_first and newest is not None:
            # Else the stream would follow writers for ever.
            query = replace(query, end_ns=newest + 1 if query.end_ns is None else min(query.end_ns, newest + 1))
        query = replace(query, limit=ROWS_AT_ONCE, offset=0)
        while len(rows := self.page(query)):
            yield rows
            query = replace(query, after=rows.position(-1))

    def series(self, query: SeriesQuery) -> list[GroupSeries]:
        """The groups that have readings in the range."""

        def read(part: Buckets, most: int) -> PartReadings:
            with self._lock:
                self._check_open()
                find = partial(_columns, query.metric_name, part.start_ns, part.end_ns, partial(_is_asked, query))
                readings = find(self._series, most, shares=False)
                if query.assignments is None:
                    return readings, None
                return readings, find(self._shares, most - len(readings.times), shares=True)

        return Passes(query, read, query.buckets.count).answer()

    def readings(
        self,
        metric_name: str,
        start_ns: int,
        end_ns: int,
        *,
        gpus: Collection[str] = (),
        hosts: HostLookup | None = None,
    ) -> Iterator[ReadingArrays]:
        """All readings of one metric in [start, end), in parts."""

        def read(start: int, end: int, of_any_size: bool) -> ReadingArrays:
            most = 1 << 62 if of_any_size else READINGS_IN_A_PART
            with self._lock:
                self._check_open()
                return _columns(
                    metric_name, start, end, lambda gpu, _: not gpus or gpu in gpus, self._series, most, shares=False
                )

        return slices(start_ns, end_ns, end_ns - start_ns, read, lambda part: len(part.times), READINGS_IN_A_PART)

    def metric_names(self, gpu: str | None = None) -> list[str]:
        """Names of the metrics that have readings."""
        with self._lock:
            self._check_open()
            return sorted({key[1] for key in self._series if gpu is None or key[0] == gpu})

    def stats(self) -> StoreStats:
        """What the store holds; ``bytes`` is an estimate."""
        with self._lock:
            self._check_open()
            readings, shares = (
                sum(len(series.times) for series in by_key.values()) for by_key in (self._series, self._shares)
            )
            return StoreStats(
                readings=readings,
                series=len(self._series),
                oldest_ns=min((series.times[0] for series in self._series.values()), default=None),
                newest_ns=max((series.times[-1] for series in self._series.values()), default=None),
                bytes=(readings + shares) * _BYTES_PER_READING,
                shares=shares,
            )

    def apply_retention(self, oldest_ns: int) -> int:
        """Drop older readings, one series at a time."""
        dropped = 0
        for by_key in (self._series, self._shares):
            for key in list(by_key):
                with self._lock:
                    self._check_open()
                    series = by_key.get(key)
                    if series is None:
                        continue
                    dropped += series.drop_before(oldest_ns)
                    if not series.times:
                        del by_key[key]
        return dropped

    def ping(self) -> None:
        """Raise StoreError if the store is closed."""
        self._check_open()

    def close(self) -> None:
        """Drop everything."""
        with self._lock:
            self._closed = True
            self._series.clear()
            self._shares.clear()
            self._described.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the memory store is closed")

    def _write_block(self, block: PointBlock) -> int:
        written = 0
        descriptions = [self._described.setdefault(each, each) for each in map(describe, block.gpus)]
        for index, time_ns, values in block.points:
            gpu = block.gpus[index]
            by_key = self._shares if gpu.share else self._series
            share_of = (gpu.namespace, gpu.pod, gpu.container) if gpu.share else ("", "", "")
            for metric, value in zip(block.metric_names, values, strict=True):
                if value is None:
                    continue
                key = (gpu.id, metric, *share_of)
                series = by_key.get(key)
                if series is None:
                    series = by_key[key] = _MemorySeries()
                series.put(time_ns, value, descriptions[index])
                written += 1
        return written


def _answer(by_key: dict[_Key, _MemorySeries], query: ReadingsQuery) -> RowBatch:
    sign = -1 if query.newest_first else 1
    after = query.after
    beyond = None if after is None else (sign * after.time_ns, (after.gpu, after.metric_name))
    merged = heapq.merge(
        *(
            _walk(key, series, query, sign)
            for key, series in by_key.items()
            if (not query.gpus or key[0] in query.gpus) and (not query.metric_names or key[1] in query.metric_names)
        )
    )
    rows = (row for row in merged if beyond is None or (row[0], row[1][:2]) > beyond)
    batch, places = RowBatch([], [], [], []), dict[SeriesLabels, int]()
    for time, key, value, described in islice(rows, query.offset, query.offset + (query.limit or 0)):
        labels = SeriesLabels(key[1], *described)
        batch.times.append(sign * time)
        batch.values.append(value)
        batch.places.append(places.setdefault(labels, len(places)))
    batch.origins.extend(places)
    return batch


def _walk(key: _Key, series: _MemorySeries, query: ReadingsQuery, sign: int) -> Iterator[_Reading]:
    """A series' matching readings in the query's order. The sign of the times makes that order ascending."""
    times = series.times
    start, end = query.bounds()
    low = 0 if start is None else bisect_left(times, start)
    high = len(times) if end is None else bisect_left(times, end)
    for place in range(high - 1, low - 1, -1) if sign < 0 else range(low, high):
        value, described = series.readings[times[place]]
        if _matches(described, query):
            yield sign * times[place], key, value, described


def _matches(described: Description, query: ReadingsQuery) -> bool:
    _, _, gpu_id, _, model, host, _, pod, namespace = described
    return (
        (not query.hostnames or host in query.hostnames)
        and (not query.gpu_ids or gpu_id in query.gpu_ids)
        and (not query.models or model in query.models)
        and (not query.namespaces or namespace in query.namespaces)
        and (not query.pods or pod in query.pods)
    )


def _is_asked(query: SeriesQuery, gpu: str, described: Description) -> bool:
    """Whether readings pass the query's filters, before pods are considered."""
    uuid, _, _, _, model, host, *_ = described
    return (
        (not query.gpus or uuid in query.gpus or gpu in query.gpus)
        and (not query.hostnames or host in query.hostnames)
        and (not query.models or model in query.models)
    )


def _columns(
    metric_name: str,
    start_ns: int,
    end_ns: int,
    is_asked: Callable[[str, Description], bool],
    by_key: dict[_Key, _MemorySeries],
    most: int,
    *,
    shares: bool,
) -> ReadingArrays:
    """The readings of [start, end) whose GPU's id and description are asked for."""
    sources: dict[ReadingSource, int] = {}
    rows: list[tuple[int, int, float]] = []
    for (gpu, metric, *share_of), series in by_key.items():
        if metric != metric_name:
            continue
        low, high = bisect_left(series.times, start_ns), bisect_left(series.times, end_ns)
        for time_ns in series.times[low:high]:
            value, described = series.readings[time_ns]
            if is_asked(gpu, described):
                uuid, mig_id, _, _, model, host, *_ = described
                pod = (share_of[0], share_of[1], share_of[2]) if shares else None
                source = ReadingSource(uuid, mig_id, host, model, pod)
                rows.append((sources.setdefault(source, len(sources)), time_ns, value))
        check_count(len(rows), most)
    return columns_of(list(sources), rows)
