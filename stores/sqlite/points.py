"""Points of one stripe in one block as arrays: merging them, packing them into blobs and reading them back."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stores.aggregate.functions import Floats, Ints, Mask, starts_run
from stores.sqlite.schema import STRIPE, STRIPE_BITS

Chunks = Sequence[tuple[int, int, bytes]]


class Points(NamedTuple):
    """Points by source and time, each once. ``values`` has a row for each metric id; NaN where a point has no reading."""

    sources: Ints
    times: Ints
    identities: Ints
    metrics: Ints
    values: Floats

    @property
    def size(self) -> int:
        """How many points there are."""
        return len(self.times)

    def only(self, chosen: Mask | Ints | slice) -> Points:
        """Some of the points."""
        sources, times, identities, metrics, values = self
        return Points(sources[chosen], times[chosen], identities[chosen], metrics, values[:, chosen])

    def without_empty_metrics(self) -> Points:
        """The same points, without metrics that have no reading."""
        there = ~np.isnan(self.values).all(axis=1)
        return self if there.all() else self._replace(metrics=self.metrics[there], values=self.values[there])

    def readings(self) -> int:
        """How many readings they have."""
        return self.values.size - int(np.count_nonzero(np.isnan(self.values)))


def merge(parts: Sequence[Points]) -> Points:
    """One set of points from several parts. For a repeated point the last identity wins, and the last value of each metric.

    The points of a part may be in any order and may repeat; later ones count as written later.
    """
    sources, times, identities = (np.concatenate(columns) for columns in list(zip(*parts, strict=True))[:3])
    order = np.lexsort((times, sources))  # stable: equal points stay in the order of writing
    sources, times = sources[order], times[order]
    is_first = starts_run(sources, times)
    starts = np.flatnonzero(is_first)
    last = order[np.append(starts[1:], len(order)) - 1]
    metrics = parts[0].metrics
    if len(starts) == len(order) and all(np.array_equal(part.metrics, metrics) for part in parts):
        values = np.concatenate([part.values for part in parts], axis=1)[:, order]
        return Points(sources, times, identities[order], metrics, values)
    metrics = np.unique(np.concatenate([part.metrics for part in parts]))
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.cumsum(is_first) - 1
    values = np.full((len(metrics), len(starts)), np.nan)
    at = 0
    for part in parts:
        rows = np.searchsorted(metrics, part.metrics)
        columns = places[at : at + part.size]
        there_row, there_column = np.nonzero(~np.isnan(part.values))
        values[rows[there_row], columns[there_column]] = part.values[there_row, there_column]
        at += part.size
    return Points(sources[starts], times[starts], identities[last], metrics, values)


def pack_points(points: Points) -> bytes:
    """Times, identities and the sources' places in the stripe."""
    places = points.sources & (STRIPE - 1)
    return points.times.tobytes() + points.identities.astype(np.uint32).tobytes() + places.astype(np.uint8).tobytes()


def unpack_points(stripe: int, count: int, data: bytes, rows: range | None = None) -> tuple[Ints, Ints, Ints]:
    """Sources, times and identities, of all points or of some rows."""
    start, size = (0, count) if rows is None else (rows.start, len(rows))
    times = np.frombuffer(data, np.int64, size, 8 * start)
    identities = np.frombuffer(data, np.uint32, size, 8 * count + 4 * start).astype(np.int64)
    sources = np.frombuffer(data, np.uint8, size, 12 * count + start).astype(np.int64)
    sources += stripe << STRIPE_BITS
    return sources, times, identities


def rows_of(count: int, data: bytes, sources: Ints) -> range:
    """The rows between the first and the last of some sources of one stripe."""
    first, last = int(sources[0]) & (STRIPE - 1), int(sources[-1]) & (STRIPE - 1)
    start, end = 12 * count, 13 * count
    return range(bisect_left(data, first, start, end) - start, bisect_right(data, last, start, end) - start)


def pack_values(values: Floats) -> tuple[int, bytes]:
    """The number of readings, and the values: one for each point, or a bit for each point and the values present."""
    absent = np.isnan(values)
    count = len(values) - int(np.count_nonzero(absent))
    if count == len(values):
        return count, values.tobytes()
    return count, np.packbits(~absent).tobytes() + values[~absent].tobytes()


def unpack_values(points: int, readings: int, data: bytes) -> Floats:
    """The inverse of ``pack_values``."""
    if readings == points:
        return np.frombuffer(data, np.float64)
    bits = -(-points // 8)
    values = np.full(points, np.nan)
    there = np.unpackbits(np.frombuffer(data, np.uint8, bits), count=points).astype(np.bool_)
    values[there] = np.frombuffer(data[bits:], np.float64)
    return values


def recent_points(stripe: int, count: int, data: bytes, metrics: bytes, numbers: bytes) -> Points:
    """Points from a row of ``recent``."""
    ids = np.frombuffer(metrics, np.int64)
    return Points(*unpack_points(stripe, count, data), ids, np.frombuffer(numbers, np.float64).reshape(len(ids), count))


def stored_points(stripe: int, count: int, data: bytes, chunks: Chunks, rows: range | None = None) -> Points:
    """Points from a row of ``block`` and its rows of ``chunk``: metric, number of readings and values."""
    rows = range(count) if rows is None else rows
    values = np.empty((len(chunks), len(rows)))
    for place, (_, readings, packed) in enumerate(chunks):
        values[place] = unpack_values(count, readings, packed)[rows.start : rows.stop]
    metrics = np.array([metric for metric, _, _ in chunks], dtype=np.int64)
    return Points(*unpack_points(stripe, count, data, rows), metrics, values)
