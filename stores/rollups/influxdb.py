"""Roll-ups in an InfluxDB: one bucket for each tier beside the bucket of the readings.

A level is a measurement, the parts of its key are tags, and each statistic of each metric is a float field,
``DCGM_FI_DEV_GPU_UTIL.total``. A window is a point at the window's start.
"""

from __future__ import annotations

import gzip
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import chain, repeat
from operator import itemgetter

import numpy as np

from stores.aggregate.functions import Floats, Ints
from stores.base import StoreError
from stores.influxdb import bucket_figures, delete
from stores.influxdb.answers import InfluxRefused
from stores.influxdb.client import PING_TIMEOUT, InfluxConfig, InfluxConnection
from stores.influxdb.influxql import Conditions, as_tag, select_fields
from stores.influxdb.line_protocol import FIRST_NS, LAST_NS, decode_name, encode_name, escape
from stores.influxdb.setup import Preparation, check_config, find_bucket
from stores.rollups.windows import COUNT, KEY_FIELDS, MEANS, STEP_NS, TOTAL, Level, Tier, WindowKey, WindowTable

# What is stored in place of most MEANS: from how many boards they are.
BOARDS = "boards"
# A sum of means may differ in its last bits, as it would had it been added in another order.
_CLOSE = 1e-14
# Values in one request, which makes about 2 MB of lines, and how many requests run at once.
_VALUES_AT_ONCE = 50_000
_SENDERS = 2
_HEADS_KNOWN = 100_000
# A long answer is read in parts of about so many windows, the first of so many steps.
_ROWS_AT_ONCE = 100_000
_FIRST_STEPS = 64
# Older servers say "beyond".
_TOO_OLD = re.compile("(outside|beyond) retention policy")


class InfluxRollups:
    """Roll-ups in the buckets ``BUCKET_1m`` and ``BUCKET_1h``. See stores.rollups.windows.RollupStore for the methods.

    ``retention`` has the seconds that each tier is kept (0: for ever), and ``given`` the tiers for which they apply to a
    bucket that is there already. Like InfluxStore it sends nothing before the first call, which makes missing buckets.
    """

    def __init__(self, config: InfluxConfig, *, retention: Mapping[Tier, float], given: Sequence[Tier] = ()) -> None:
        self._buckets = {tier: _TierBucket(config, tier, retention[tier], is_given=tier in given) for tier in STEP_NS}

    def write(self, tables: Sequence[WindowTable]) -> None:
        """Store all windows. Those that are older than the server keeps are left out."""
        for tier, bucket in self._buckets.items():
            chosen = [table for table in tables if table.tier == tier and len(table)]
            if chosen:
                with bucket.prepared() as connection:
                    _send(connection, encode(chosen))

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


def encode(tables: Sequence[WindowTable]) -> Iterator[bytes]:
    """The windows of some tables as gzipped lines, in parts of about _VALUES_AT_ONCE values."""
    waiting: list[str] = []
    room = _VALUES_AT_ONCE
    for table in tables:
        stats = spare_means(table.stats)
        # A row for each window, a column for each field.
        values = np.stack(list(stats.values()), axis=2).reshape(len(table), -1)
        fields = [escape(_field(name, stat)) for name in table.names for stat in stats]
        rows = np.flatnonzero((table.starts_ns >= FIRST_NS) & (table.starts_ns <= LAST_NS))
        rows_at_once = max(1, _VALUES_AT_ONCE // max(1, len(fields)))
        for first in range(0, len(rows), rows_at_once):
            part = rows[first : first + rows_at_once]
            waiting += _lines(table, part, fields, values[part])
            room -= len(part) * len(fields)
            if room <= 0:
                yield _compressed(waiting)
                waiting, room = [], _VALUES_AT_ONCE
    if waiting:
        yield _compressed(waiting)


def spare_means(stats: Mapping[str, Floats]) -> dict[str, Floats]:
    """The statistics with BOARDS, and with MEANS only where it does not follow.

    Where all boards of a group have as many readings as each other, the sum of their means is total / count * boards. A mean takes more
    room than any other statistic, and the number of boards nearly none. Where MEANS does not follow, BOARDS is 0: so what was
    stored before, either way, counts no longer.
    """
    means = stats.get(MEANS)
    if means is None:
        return dict(stats)
    total, count = (stats.get(stat, np.full(means.shape, np.nan)) for stat in (TOTAL, COUNT))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        boards = np.where(total == 0, 1.0, np.rint(means * count / total))
        follows = (boards >= 1) & (np.abs(total * boards / count - means) <= _CLOSE * np.abs(means))
    return {
        **stats,
        MEANS: np.where(follows, np.nan, means),
        BOARDS: np.where(np.isnan(means), np.nan, np.where(follows, boards, 0.0)),
    }


def means_of(stats: Mapping[str, Floats]) -> Floats:
    """The inverse: MEANS from COUNT, TOTAL, MEANS and BOARDS."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(stats[BOARDS] > 0, stats[TOTAL] * stats[BOARDS] / stats[COUNT], stats[MEANS])


def _lines(table: WindowTable, rows: Ints, fields: Sequence[str], values: Floats) -> list[str]:
    """A line for each row that has a value. Rows that lack the same fields share a template."""
    there = np.isfinite(values)
    patterns = np.packbits(there, axis=1)
    _, firsts, which = np.unique(
        patterns.view(f"V{max(1, patterns.shape[1])}").reshape(-1), return_index=True, return_inverse=True
    )
    lines: list[str] = []
    for pattern, first in enumerate(firsts.tolist()):
        columns = np.flatnonzero(there[first])
        if not len(columns):
            continue
        chosen = np.flatnonzero(which == pattern)
        template = ",".join(f"{fields[column].replace('%', '%%')}=%r" for column in columns.tolist())
        heads = (_head(table.level, table.keys[place]) for place in table.places[rows[chosen]].tolist())
        of_rows = map(template.__mod__, map(tuple, values[np.ix_(chosen, columns)].tolist()))
        times = table.starts_ns[rows[chosen]].tolist()
        lines += map("%s %s %d".__mod__, zip(heads, of_rows, times, strict=True))
    return lines


@lru_cache(_HEADS_KNOWN)
def _head(level: Level, key: WindowKey) -> str:
    tags = ((name, getattr(key, name)) for name in KEY_FIELDS[level])
    # An empty tag cannot be written. A missing one reads as empty.
    return level + "".join(f",{name}={escape(value)}" for name, value in tags if value)


def _compressed(lines: Sequence[str]) -> bytes:
    return gzip.compress("\n".join(lines).encode(), 1)


def _send(connection: InfluxConnection, bodies: Iterator[bytes]) -> None:
    """Send one request, or several at once: then the server works on some while others are made."""
    first, second = next(bodies, None), next(bodies, None)
    if first is not None and second is None:
        _deliver(connection, first)
    elif first is not None and second is not None:
        running: deque[Future[None]] = deque()
        with ThreadPoolExecutor(_SENDERS, "influx-rollups") as threads:
            for body in chain((first, second), bodies):
                if len(running) == _SENDERS:
                    running.popleft().result()
                running.append(threads.submit(_deliver, connection, body))
            for each in running:
                each.result()


def _field(metric_name: str, stat: str) -> str:
    return f"{metric_name}.{stat}"


def _deliver(connection: InfluxConnection, body: bytes) -> None:
    try:
        connection.write(body)
    except InfluxRefused as error:
        # The server has stored the others.
        if error.status != 422 or not _TOO_OLD.search(error.reason):
            raise


class _AnswerRows:
    """Rows of answers as arrays, and how much of a range to ask for at once."""

    def __init__(self, tier: Tier, level: Level, metric_name: str, stats: Sequence[str]) -> None:
        self._tier, self._level, self._metric_name, self._stats = tier, level, metric_name, stats
        self._tags = KEY_FIELDS[level]
        self._asked = [*stats]
        if MEANS in stats:
            self._asked += [stat for stat in (COUNT, TOTAL, BOARDS) if stat not in stats]
        self.fields = [*(encode_name(_field(metric_name, stat)) for stat in self._asked), *self._tags]
        self._numbers: dict[tuple[str | None, ...], int] = {}
        self._places = [np.zeros(0, dtype=np.int64)]
        self._times = [np.zeros(0, dtype=np.int64)]
        self._values = [np.zeros((0, len(self._asked)))]
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
        ends = 1 + len(self._asked)
        # Column by column: zip(*rows) needs an iterator for each row, and takes six times as long.
        columns = [list(map(itemgetter(place), rows)) for place in range(ends + len(self._tags))]
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
        columns: Floats = np.concatenate(self._values)
        stats = dict(zip(self._asked, columns.T, strict=True))
        if MEANS in stats:
            stats[MEANS] = means_of(stats)
        kept = [stats[stat] for stat in self._stats]
        there = np.flatnonzero(~np.isnan(kept).all(axis=0))
        keys = [
            WindowKey(**{name: decode_name(tag) for name, tag in zip(self._tags, tags, strict=True) if tag})
            for tags in self._numbers
        ]
        return WindowTable(
            self._tier,
            self._level,
            keys,
            (self._metric_name,),
            np.concatenate(self._places)[there],
            np.concatenate(self._times)[there],
            {stat: values[there, np.newaxis] for stat, values in zip(self._stats, kept, strict=True)},
        )
