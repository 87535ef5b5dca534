"""Many metrics of one GPU in windows, from one pass over its readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from readings.catalogue import combine_of, info, is_counter
from stores.aggregate.buckets import Buckets
from stores.aggregate.functions import Floats, Ints, increases, rounded
from stores.base import RowBatch

How = Literal["mean", "increase", "last", "bits"]


def how_of(metric_name: str) -> How:
    """How the readings of a window become one value. ``bits``: each bit that was set in any of them."""
    metric = info(metric_name)
    if metric is not None and metric.unit == "bitmask":
        return "bits"
    if combine_of(metric_name) == "never":
        return "last"
    return "increase" if is_counter(metric_name) else "mean"


class MetricWindows(NamedTuple):
    """A metric's windows. NaN is no reading, or for a counter none with another one before it.

    ``lowest`` and ``highest`` are of the readings, and belong to means alone.
    """

    metric_name: str
    how: How
    values: Floats
    lowest: Floats | None = None
    highest: Floats | None = None


class GpuWindows:
    """Collects the readings of one GPU, oldest first, in the windows of each metric."""

    def __init__(self, metric_names: Sequence[str], buckets: Buckets) -> None:
        self._names = tuple(metric_names)
        self._buckets = buckets
        self._rows = {name: row for row, name in enumerate(self._names)}
        self._hows = np.array([how_of(name) for name in self._names])
        size = len(self._names) * buckets.count
        self._counts, self._totals = np.zeros(size), np.zeros(size)
        self._lowest, self._highest = np.full(size, np.inf), np.full(size, -np.inf)
        self._last, self._bits = np.full(size, np.nan), np.zeros(size, np.int64)
        self._before: dict[int, float] = {}

    def add(self, batch: RowBatch) -> None:
        """Add rows. None may be older than those before."""
        rows = np.array([self._rows[origin.metric_name] for origin in batch.origins], np.int64)[batch.places]
        times, values = np.array(batch.times, np.int64), np.array(batch.values)
        # Of windows since 1970, because the first may begin before the earliest time that 64 bits hold.
        windows = times // self._buckets.every_ns - self._buckets.origin_ns // self._buckets.every_ns
        keys = rows * self._buckets.count + windows
        hows = self._hows[rows]
        means, bits, counters = (np.flatnonzero(hows == how) for how in ("mean", "bits", "increase"))
        self._count(keys[means], values[means])
        np.minimum.at(self._lowest, keys[means], values[means])
        np.maximum.at(self._highest, keys[means], values[means])
        self._last[keys] = values  # of equal keys, the last row counts
        np.bitwise_or.at(self._bits, keys[bits], values[bits].astype(np.int64))
        known, grown = increases(rows[counters], times[counters], values[counters], self._before)
        self._count(keys[counters][known], grown)

    def _count(self, keys: Ints, values: Floats) -> None:
        self._counts += np.bincount(keys, minlength=len(self._counts))
        self._totals += np.bincount(keys, values, len(self._totals))

    def answer(self) -> list[MetricWindows]:
        """The windows of each metric, in the order of the names. A metric without readings has NaN alone."""
        return [self._windows(row) for row in range(len(self._names))]

    def _windows(self, row: int) -> MetricWindows:
        part = slice(row * self._buckets.count, (row + 1) * self._buckets.count)
        name, how = self._names[row], how_of(self._names[row])
        counts, totals, last = self._counts[part], self._totals[part], self._last[part]
        if how == "last":
            return MetricWindows(name, how, last)
        if how == "bits":
            return MetricWindows(name, how, np.where(np.isnan(last), np.nan, self._bits[part]))
        if how == "increase":
            return MetricWindows(name, how, rounded(np.where(counts > 0, totals, np.nan)))
        known = counts > 0
        means = rounded(np.divide(totals, counts, out=np.full(len(counts), np.nan), where=known))
        lowest, highest = (np.where(known, each[part], np.nan) for each in (self._lowest, self._highest))
        return MetricWindows(name, how, means, lowest, highest)
