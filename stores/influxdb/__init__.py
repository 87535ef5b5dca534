"""The production store: a bucket of an InfluxDB 2, written by collectors and asked by web workers."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from readings.model import Point, PointBlock
from readings.times import format_time
from stores.base import (
    GroupSeries,
    ReadingsQuery,
    RefusedReading,
    Row,
    RowBatch,
    SeriesQuery,
    StoreError,
    StoreStats,
    WriteResult,
)
from stores.influxdb.client import PING_MS, InfluxConfig, InfluxConnection, InfluxRefused, NoSuchBucket
from stores.influxdb.counts import Counter
from stores.influxdb.line_protocol import FIRST_NS, GPU, LAST_NS, RESERVED, SHARE, Lines, Unwritable
from stores.influxdb.moves import Moves
from stores.influxdb.reader import Density, Reader
from stores.influxdb.setup import check_config, prepare
from stores.influxdb.writer import Sender
from stores.validate import split_storable

_SIZES = ("storage_shard_disk_size{", "storage_cache_inuse_bytes{", "storage_wal_size{")


class InfluxStore:
    """Readings in an InfluxDB bucket. See stores.base.Store for the methods.

    Nothing is asked of the server before the first call, so a process can start before its server. The first call checks
    server, token and bucket, and makes the bucket if it is missing: StoreUnavailable while there is no answer, StoreError
    for what somebody has to put right. Raises StoreError at once for a configuration that cannot work.
    """

    expires_by_itself = True

    def __init__(self, config: InfluxConfig) -> None:
        check_config(config)
        self.config = config
        self._connection = InfluxConnection(config)
        self._closed = False
        self._is_prepared = False
        self._writes = 0
        self._density = Density()
        self._forget()
        _stores.add(self)

    def write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        """Store all blocks. What the server refuses is told in the result, with its words."""
        with self._asking(), self._write_lock:
            self._writes += 1
            try:
                try:
                    return self._write(blocks)
                except Unwritable:
                    return self._write_what_can_be(blocks)
            except BaseException:
                # Something else may have happened to the server meanwhile.
                self._moves = Moves(self._connection, self._lines)
                raise

    def readings(self, query: ReadingsQuery) -> list[Row]:
        """The rows that match, in the query's order."""
        return self.page(query).rows()

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, as columns."""
        with self._asking():
            return Reader(self._connection, density=self._density).page(query)

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """The rows that match, a bounded number at a time; the server is asked once, and reads on as the rows are taken."""
        with self._asking():
            yield from Reader(self._connection).stream(query)

    def shares(self, query: ReadingsQuery) -> list[Row]:
        """The shares that match."""
        if query.after is not None:
            raise ValueError("shares are paged by offset: a position does not tell two pods apart")
        with self._asking():
            return Reader(self._connection, SHARE).page(query).rows()

    def series(self, query: SeriesQuery) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        from stores.influxdb.series import SeriesReader  # numpy: a collector needs none

        with self._asking():
            return SeriesReader(self._connection, query).answer()

    def metric_names(self, gpu: str | None = None) -> list[str]:
        """Names of the metrics that have readings."""
        with self._asking():
            return Reader(self._connection).metric_names(gpu)

    def stats(self) -> StoreStats:
        """What it holds; ``bytes`` as the server tells of its disk (0 if it does not). The counts may be some seconds old, or not
        be there yet, when it is large."""
        with self._asking():
            counts = self._counter.counts(self._writes)
            reader = Reader(self._connection)
            return StoreStats(
                readings=None if counts is None else counts.readings,
                series=None if counts is None else counts.series,
                oldest_ns=reader.edge_ns(newest=False),
                newest_ns=reader.edge_ns(newest=True),
                bytes=bucket_bytes(self._connection, self._bucket_id()),
                shares=None if counts is None else counts.shares,
            )

    def apply_retention(self, oldest_ns: int) -> int:
        """Drop what is older now. The bucket's own retention does so by itself: no service needs to call this."""
        with self._asking():
            dropped = 0
            for measurement in (GPU, SHARE):
                count = sum(Reader(self._connection, measurement).counts(oldest_ns).values())
                dropped += count
                if count:
                    self._delete(measurement, oldest_ns)
            self._writes += 1
            return dropped

    def ping(self) -> None:
        """Raise StoreUnavailable unless the server answers now; StoreError when it is not set up for this."""
        with self._asking():
            self._connection.request("GET", "/health", timeout_ms=PING_MS)

    def close(self) -> None:
        """Let go of the connections."""
        self._closed = True
        _stores.discard(self)
        self._connection.close()

    def _write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        gathered = self._lines.gather(blocks)
        marks = self._moves.settle(gathered)
        refused = self._sender.send(gathered.all_points())
        if marks:
            self._sender.send_lines(marks)
        self._writes += 1  # what was counted while this ran is not the whole
        return WriteResult(sum(block.count() for block in blocks) - len(refused), tuple(refused))

    def _write_what_can_be(self, blocks: Sequence[PointBlock]) -> WriteResult:
        storable, refused = split_storable(blocks)
        storable, refused_here = split_writable(storable)
        result = self._write(storable)
        return WriteResult(result.written, (*refused, *refused_here, *result.refused))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"{self._connection.name}: the store is closed")
        if not self._is_prepared:
            with self._prepare_lock:
                if not self._is_prepared:
                    prepare(self._connection)
                    self._is_prepared = True
        try:
            yield
        except NoSuchBucket:
            # Somebody deleted it: the next call makes it anew.
            self._is_prepared = False
            raise

    def _bucket_id(self) -> str:
        query = [("org", self.config.org), ("name", self.config.bucket)]
        return str(json.loads(self._connection.request("GET", "/api/v2/buckets", query=query))["buckets"][0]["id"])

    def _delete(self, measurement: str, oldest_ns: int) -> None:
        self._connection.request(
            "POST",
            "/api/v2/delete",
            query=[("org", self.config.org), ("bucket", self.config.bucket)],
            body={
                "start": format_time(FIRST_NS),
                "stop": format_time(min(max(oldest_ns, FIRST_NS + 1), LAST_NS) - 1),
                "predicate": f'_measurement="{measurement}"',
            },
        )

    def _forget(self) -> None:
        """Begin with nothing known, and with locks of this process."""
        self._prepare_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._lines = Lines()
        self._moves = Moves(self._connection, self._lines)
        self._sender = Sender(self._connection, self._lines)
        self._counter = Counter(self._connection)


def split_writable(blocks: Sequence[PointBlock]) -> tuple[list[PointBlock], list[RefusedReading]]:
    """Blocks that every store can keep, without what InfluxDB cannot: names and times that are its own."""
    refused: list[RefusedReading] = []
    kept = []
    for block in blocks:
        name_faults = [
            f"InfluxDB cannot have a metric named {name!r}" if name in RESERVED else "" for name in block.metric_names
        ]
        points: list[Point] = []
        for index, time_ns, values in block.points:
            time_fault = "" if FIRST_NS <= time_ns <= LAST_NS else "the time is one that InfluxDB cannot have"
            writable: list[float | None] = []
            for name, name_fault, value in zip(block.metric_names, name_faults, values, strict=True):
                fault = time_fault or name_fault
                if value is not None and fault:
                    refused.append(RefusedReading(block.gpus[index].id, name, time_ns, value, fault))
                writable.append(None if fault else value)
            points.append((index, time_ns, writable))
        kept.append(PointBlock(block.gpus, block.metric_names, points))
    return kept, refused


def bucket_bytes(connection: InfluxConnection, bucket_id: str) -> int:
    """The size of a bucket's files and of what waits to be put into them, as the server's own metrics tell; 0 if they do not."""
    try:
        text = connection.request("GET", "/metrics").decode("utf-8", "replace")
    except InfluxRefused:
        return 0
    mine = f'bucket="{bucket_id}"'
    return sum(
        int(float(line.rsplit(" ", 1)[1])) for line in text.splitlines() if line.startswith(_SIZES) and mine in line
    )


_stores: weakref.WeakSet[InfluxStore] = weakref.WeakSet()


def _leave_locks_to_parent() -> None:
    for store in list(_stores):
        store._forget()


os.register_at_fork(after_in_child=_leave_locks_to_parent)
