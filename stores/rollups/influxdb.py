"""Roll-ups in an InfluxDB: one bucket for each tier beside the bucket of the readings.

A level is a measurement, the parts of its key are tags, and each statistic of each metric is a float field,
``DCGM_FI_DEV_GPU_UTIL.total``. A window is a point at the window's start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import repeat

import numpy as np

from stores.aggregate.functions import Floats, Ints
from stores.base import StoreError
from stores.influxdb import bucket_figures, delete
from stores.influxdb.answers import InfluxRefused
from stores.influxdb.client import PING_TIMEOUT, InfluxConfig, InfluxConnection
from stores.influxdb.influxql import Conditions, as_tag, select_fields
from stores.influxdb.line_protocol import FIRST_NS, LAST_NS, decode_name, encode_name, escape
from stores.influxdb.setup import Preparation, check_config, find_bucket
from stores.influxdb.writer import SENDERS, compress
from stores.rollups.windows import KEY_FIELDS, STEP_NS, Level, Tier, WindowKey, WindowTable

# Values in one request: about 2 MB of lines.
_VALUES_AT_ONCE = 50_000
# A long answer is read in parts of about so many windows, the first of so many steps.
_ROWS_AT_ONCE = 100_000
_FIRST_STEPS = 64
_BEYOND_RETENTION = "beyond retention policy"


class InfluxRollups:
    """Roll-ups in the buckets ``BUCKET_1m`` and ``BUCKET_1h``. See stores.rollups.windows.RollupStore for the methods.

    ``retention`` has the seconds that each tier is kept (0: for ever), and ``given`` the tiers for which they apply to a
    bucket that is there already. Like InfluxStore it sends nothing before the first call, which makes missing buckets.
    """

    def __init__(self, config: InfluxConfig, *, retention: Mapping[Tier, float], given: Sequence[Tier] = ()) -> None:
        self._buckets = {tier: _TierBucket(config, tier, retention[tier], is_given=tier in given) for tier in STEP_NS}

    def write(self, tables: Sequence[WindowTable]) -> None:
        """Store all windows. Those that are older than the server keeps are left out."""
        running: deque[Future[None]] = deque()
        with ThreadPoolExecutor(SENDERS, "influx-rollups") as threads:
            for table in filter(len, tables):
                with self._buckets[table.tier].prepared() as connection:
                    for body in encode(table):
                        if len(running) == SENDERS:
                            running.popleft().result()
                        running.append(threads.submit(_deliver, connection, body))
            for each in running:
                each.result()

    def read(
        self,
        tier: Tier,
        level: Level,
        metric_name: str,
        stats: Sequence[str],
        start_ns: int,
        end_ns: int,
        *,
        gpus: Sequence[str] = (),
        hostnames: Sequence[str] = (),
        models: Sequence[str] = (),
    ) -> WindowTable:
        """The windows of one metric that begin in [start_ns, end_ns), in order of time."""
        conditions = Conditions()
        if gpus:
            conditions.boards(gpus)
        for name, values in (("hostname", hostnames), ("model", models)):
            if values:
                conditions.equals(name, [as_tag(value) for value in values])
        found = _AnswerRows(tier, level, metric_name, stats)
        with self._buckets[tier].prepared() as connection:
            for part_start, part_end in found.parts(start_ns, end_ns):
                asked = conditions.branch()
                asked.between(part_start, part_end)
                if not asked.impossible:
                    statement = select_fields(level, found.fields, asked, by=())
                    for series in connection.query(statement, asked.params):
                        found.add(series.values)
        return found.table()

    def drop(self, tier: Tier, start_ns: int, end_ns: int) -> None:
        """Remove the windows that begin in [start_ns, end_ns)."""
        with self._buckets[tier].prepared() as connection:
            delete(connection, start_ns, end_ns)

    def apply_retention(self, now_ns: int) -> None:
        """Nothing: the server drops old windows by itself."""

    def bytes(self) -> dict[Tier, int]:
        """The size of each bucket as the server's own metrics report it."""
        sizes: dict[Tier, int] = {}
        for tier, bucket in self._buckets.items():
            with bucket.prepared() as connection:
                found = find_bucket(connection) or {}
                sizes[tier], _ = bucket_figures(connection, found.get("id", ""))
        return sizes

    def ping(self) -> None:
        """Raise StoreUnavailable unless the server answers now, and StoreError where it has no buckets for roll-ups."""
        for bucket in self._buckets.values():
            with bucket.prepared() as connection:
                connection.request("GET", "/health", timeout=PING_TIMEOUT)

    def close(self) -> None:
        """Close the connections. Idempotent."""
        for bucket in self._buckets.values():
            bucket.close()


class _TierBucket:
    """The bucket of one tier."""

    def __init__(self, config: InfluxConfig, tier: Tier, retention: float, *, is_given: bool) -> None:
        config = replace(
            config,
            bucket=f"{config.bucket}_{tier}",
            retention=retention,
            retention_is_given=is_given,
            retention_setting=f"RETENTION_{tier.upper()}",
        )
        check_config(config)
        self._connection = InfluxConnection(config)
        self._preparation = Preparation(self._connection)
        self._closed = False

    @contextmanager
    def prepared(self) -> Iterator[InfluxConnection]:
        """The connection, once server and bucket have been checked."""
        if self._closed:
            raise StoreError(f"{self._connection.name}: the roll-ups are closed")
        with self._preparation.done():
            yield self._connection

    def close(self) -> None:
        self._closed = True
        self._connection.close()


def encode(table: WindowTable) -> Iterator[bytes]:
    """A table's windows as gzipped lines, in parts of about _VALUES_AT_ONCE values.

    The lines of rows that lack the same statistics are made by one template.
    """
    # A row for each window, a column for each field.
    values = np.stack(list(table.stats.values()), axis=2).reshape(len(table), -1)
    fields = [escape(_field(name, stat)) for name in table.names for stat in table.stats]
    there = np.isfinite(values)
    is_writable = there.any(axis=1) & (table.starts_ns >= FIRST_NS) & (table.starts_ns <= LAST_NS)
    heads = [_head(table.level, key) for key in table.keys]
    rows_at_once = max(1, _VALUES_AT_ONCE // max(1, len(fields)))
    written = np.flatnonzero(is_writable)
    for first in range(0, len(written), rows_at_once):
        part = written[first : first + rows_at_once]
        patterns, which = np.unique(np.packbits(there[part], axis=1), axis=0, return_inverse=True)
        lines: list[str] = []
        for pattern in range(len(patterns)):
            rows = part[which.reshape(-1) == pattern]
            columns = np.flatnonzero(there[rows[0]])
            template = ",".join(f"{fields[column].replace('%', '%%')}=%r" for column in columns.tolist())
            lines += map(
                "%s %s %d".__mod__,
                zip(
                    map(heads.__getitem__, table.places[rows].tolist()),
                    map(template.__mod__, map(tuple, values[np.ix_(rows, columns)].tolist())),
                    table.starts_ns[rows].tolist(),
                    strict=True,
                ),
            )
        yield compress("\n".join(lines).encode())


def _head(level: Level, key: WindowKey) -> str:
    tags = ((name, getattr(key, name)) for name in KEY_FIELDS[level])
    # An empty tag cannot be written. A missing one reads as empty.
    return level + "".join(f",{name}={escape(value)}" for name, value in tags if value)


def _field(metric_name: str, stat: str) -> str:
    return f"{metric_name}.{stat}"


def _deliver(connection: InfluxConnection, body: bytes) -> None:
    try:
        connection.write(body)
    except InfluxRefused as error:
        # The server has stored the others.
        if error.status != 422 or _BEYOND_RETENTION not in error.reason:
            raise


class _AnswerRows:
    """Rows of answers as arrays, and how much of a range to ask for at once."""

    def __init__(self, tier: Tier, level: Level, metric_name: str, stats: Sequence[str]) -> None:
        self._tier, self._level, self._metric_name, self._stats = tier, level, metric_name, stats
        self._tags = KEY_FIELDS[level]
        self.fields = [*(encode_name(_field(metric_name, stat)) for stat in stats), *self._tags]
        self._numbers: dict[tuple[str | None, ...], int] = {}
        self._places = [np.zeros(0, dtype=np.int64)]
        self._times = [np.zeros(0, dtype=np.int64)]
        self._values = [np.zeros((0, len(stats)))]
        self._count = 0

    def parts(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
        """Parts of a range, each as long as the rows of the part before it allow."""
        step = STEP_NS[self._tier]
        length = _FIRST_STEPS * step
        while start_ns < end_ns:
            before = self._count
            yield start_ns, min(start_ns + length, end_ns)
            start_ns += length
            length = max(step, length * _ROWS_AT_ONCE // max(self._count - before, _ROWS_AT_ONCE // 16))

    def add(self, rows: Sequence[Sequence[float | str | None]]) -> None:
        """Rows of time, statistics and tags."""
        columns = list(zip(*rows, strict=True))
        ends = 1 + len(self._stats)
        keys: Iterator[tuple[str | None, ...]] = (
            zip(*columns[ends:], strict=True) if self._tags else repeat((), len(rows))
        )
        numbers = self._numbers
        self._places.append(np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(rows)))
        self._times.append(np.array(columns[0], dtype=np.int64))
        # None becomes NaN.
        self._values.append(np.array(columns[1:ends], dtype=np.float64).T)
        self._count += len(rows)

    def table(self) -> WindowTable:
        values: Floats = np.concatenate(self._values)
        keys = [
            WindowKey(**{name: decode_name(tag) for name, tag in zip(self._tags, tags, strict=True) if tag})
            for tags in self._numbers
        ]
        places: Ints = np.concatenate(self._places)
        stats = {stat: values[:, place : place + 1] for place, stat in enumerate(self._stats)}
        return WindowTable(
            self._tier, self._level, keys, (self._metric_name,), places, np.concatenate(self._times), stats
        )
