"""The production store: a bucket of an InfluxDB 2 that collectors write and web workers query."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from readings.model import PointBlock
from readings.times import format_time
from stores.base import (
    GroupSeries,
    HostLookup,
    ReadingsQuery,
    RefusedReading,
    RowBatch,
    SeriesQuery,
    StoreError,
    StoreStats,
    WriteResult,
)
from stores.influxdb.answers import InfluxRefused
from stores.influxdb.client import PING_TIMEOUT, InfluxConfig, InfluxConnection
from stores.influxdb.line_protocol import FIRST_NS, GPU, LAST_NS, RESERVED, SHARE, LineBuilder, Unwritable
from stores.influxdb.reader import InfluxReader
from stores.influxdb.setup import Preparation, check_config, find_bucket
from stores.influxdb.writer import PointWriter
from stores.validate import split, split_storable

if TYPE_CHECKING:
    from stores.aggregate.arrays import ReadingArrays

_SIZES = ("storage_shard_disk_size{", "storage_cache_inuse_bytes{", "storage_wal_size{")
_SERIES = "storage_bucket_series_num{"


class InfluxStore:
    """Readings in an InfluxDB bucket. See stores.base.Store for the methods.

    The store sends nothing before the first call, so a process can start before its server. The first call checks
    server, token and bucket, and makes a missing bucket. It raises StoreUnavailable while the server does not answer, and
    StoreError for what an operator has to fix. The constructor raises StoreError for a configuration that cannot work.
    """

    expires_by_itself = True

    def __init__(self, config: InfluxConfig) -> None:
        check_config(config)
        self.config = config
        self._connection = InfluxConnection(config)
        self._preparation = Preparation(self._connection)
        self._closed = False
        self._reader = InfluxReader(self._connection)
        self._reset()
        _stores.add(self)

    def write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        """Store all blocks. The result names the readings that the server refused, with its reasons."""
        with self._prepared(), self._write_lock:
            try:
                return self._write(blocks)
            except Unwritable:
                storable, refused = split_storable(blocks)
                storable, refused_here = split_writable(storable)
                result = self._write(storable)
                return WriteResult(result.written, (*refused, *refused_here, *result.refused))

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, in the query's order."""
        with self._prepared():
            return self._reader.page(query)

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """The rows that match, a bounded number at a time. One request: the server reads on as the rows are consumed."""
        with self._prepared():
            yield from self._reader.stream(query)

    def series(self, query: SeriesQuery) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        from stores.influxdb.series import InfluxSeriesReader  # imports numpy, which a collector does not need

        with self._prepared():
            return InfluxSeriesReader(self._connection, query).answer()

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
        from stores.influxdb.arrays import readings

        with self._prepared():
            yield from readings(self._connection, metric_name, start_ns, end_ns, gpus, hosts)

    def metric_names(self, gpu: str | None = None) -> list[str]:
        """Names of the metrics that have readings."""
        with self._prepared():
            return self._reader.metric_names(gpu)

    def stats(self) -> StoreStats:
        """Size and series as the server's own metrics report them. Anything else would need a scan, so it is None."""
        with self._prepared():
            bucket = find_bucket(self._connection) or {}
            size, series = bucket_figures(self._connection, bucket.get("id", ""))
            return StoreStats(readings=None, series=series, oldest_ns=None, newest_ns=None, bytes=size, shares=None)

    def apply_retention(self, oldest_ns: int) -> int:
        """Drop older readings now. The bucket's own retention does the same, so no service needs to call this."""
        with self._prepared():
            dropped = {measurement: self._reader.count_before(measurement, oldest_ns) for measurement in (GPU, SHARE)}
            for measurement, count in dropped.items():
                if count:
                    delete(self._connection, FIRST_NS, max(oldest_ns, FIRST_NS + 1), measurement)
            return sum(dropped.values())

    def ping(self) -> None:
        """Raise StoreUnavailable unless the server answers now, and StoreError when it is not set up for this store."""
        with self._prepared():
            self._connection.request("GET", "/health", timeout=PING_TIMEOUT)

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._closed = True
        _stores.discard(self)
        self._connection.close()

    def _write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        refused = self._writer.write(self._lines.tables(blocks))
        return WriteResult(self._lines.readings - len(refused), tuple(refused))

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        """Runs the block once server and bucket have been checked."""
        if self._closed:
            raise StoreError(f"{self._connection.name}: the store is closed")
        with self._preparation.done():
            yield

    def _reset(self) -> None:
        """Start with empty caches and with a lock of this process."""
        self._write_lock = threading.Lock()
        self._lines = LineBuilder()
        self._writer = PointWriter(self._connection, self._lines)


def split_writable(blocks: Sequence[PointBlock]) -> tuple[list[PointBlock], list[RefusedReading]]:
    """The blocks without the names and times that InfluxDB reserves, and the readings that were taken out."""
    return split(
        blocks,
        lambda gpu: None,
        lambda time_ns: None if FIRST_NS <= time_ns <= LAST_NS else "the time is one that InfluxDB cannot have",
        lambda name: f"InfluxDB cannot have a metric named {name!r}" if name in RESERVED else None,
    )


def bucket_figures(connection: InfluxConnection, bucket_id: str) -> tuple[int, int | None]:
    """Bytes (files, and what waits to be put into them) and series of a bucket, from the server's own metrics.

    0 and None for a server that publishes none.
    """
    try:
        text = connection.request("GET", "/metrics").decode("utf-8", "replace")
    except InfluxRefused:
        return 0, None
    label = f'bucket="{bucket_id}"'
    size, series = 0, 0
    for line in text.splitlines():
        if line.startswith((*_SIZES, _SERIES)) and label in line:
            value = int(float(line.rsplit(" ", 1)[1]))
            if line.startswith(_SERIES):
                series += value
            else:
                size += value
    return size, series


def delete(connection: InfluxConnection, start_ns: int, end_ns: int, measurement: str = "") -> None:
    """Delete the points in [start, end), of one measurement or of all."""
    start_ns, end_ns = max(start_ns, FIRST_NS), min(end_ns, LAST_NS)
    if start_ns >= end_ns:
        return
    connection.request(
        "POST",
        "/api/v2/delete",
        query={"org": connection.config.org, "bucket": connection.config.bucket},
        body={
            "start": format_time(start_ns),
            "stop": format_time(end_ns - 1),
            "predicate": f'_measurement="{measurement}"' if measurement else "",
        },
    )


_stores: weakref.WeakSet[InfluxStore] = weakref.WeakSet()


def _leave_locks_to_parent() -> None:
    for store in list(_stores):
        store._reset()


os.register_at_fork(after_in_child=_leave_locks_to_parent)
