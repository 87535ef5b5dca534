"""Aggregates of values by key, on arrays. A key is a number from 0; a key without a value gets NaN."""

from __future__ import annotations

import numpy as np

from stores.aggregate.buckets import Floats, Ints

_VALUES_HELD = 1_000_000


class RunningQuantiles:
    """The aggregate over the whole range, of what has to be worked out of the readings themselves."""

    def __init__(self, aggregate: str) -> None:
        self._aggregate = aggregate
        self._newest: dict[int, tuple[int, float]] = {}
        # Distinct values and how often each came: a metric has far fewer of them than readings.
        self._groups = np.zeros(0, dtype=np.int64)
        self._values = np.zeros(0)
        self._numbers = np.zeros(0, dtype=np.int64)
        self._held: list[tuple[Ints, Floats]] = []
        self._count = 0

    def add(self, groups: Ints, times: Ints, values: Floats, count: int) -> None:
        """Take readings by group."""
        self._count = max(self._count, count)
        if self._aggregate == "last":
            order = np.lexsort((values, times, groups))
            last = np.append(groups[order][1:] != groups[order][:-1], True) if len(order) else np.zeros(0, dtype=bool)
            for place in order[last].tolist():
                found = (int(times[place]), float(values[place]))
                group = int(groups[place])
                self._newest[group] = max(self._newest.get(group, found), found)
            return
        self._held.append((groups, values))
        if sum(len(each) for each, _ in self._held) > _VALUES_HELD:
            self._merge()

    def values(self) -> Floats:
        """The aggregate of each group; NaN where there is no reading."""
        told = np.full(self._count, np.nan)
        if self._aggregate == "last":
            for group, (_, value) in self._newest.items():
                told[group] = value
            return told
        self._merge()
        for group in np.unique(self._groups).tolist():
            mine = self._groups == group
            upto = np.cumsum(self._numbers[mine])
            rank = np.floor(upto[-1] * PERCENTILES[self._aggregate] / 100.0 + 0.5)
            told[group] = self._values[mine][np.searchsorted(upto, max(rank, 1))]
        return told

    def _merge(self) -> None:
        groups = np.concatenate([self._groups, *(each for each, _ in self._held)])
        values = np.concatenate([self._values, *(each for _, each in self._held)])
        numbers = np.concatenate([self._numbers, *(np.ones(len(each), dtype=np.int64) for each, _ in self._held)])
        self._held = []
        if not len(groups):
            return
        order = np.lexsort((values, groups))
        groups, values, numbers = groups[order], values[order], numbers[order]
        first = np.append(True, (groups[1:] != groups[:-1]) | (values[1:] != values[:-1]))
        starts = np.flatnonzero(first)
        self._groups, self._values = groups[starts], values[starts]
        self._numbers = np.add.reduceat(numbers, starts)


# What is worked out of many values is told to this many digits: those after them depend on the order of adding up.
DIGITS = 12
# How many cells a table may have for each value that it holds.
_EMPTY_CELLS = 4
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


def rounded(values: Floats) -> Floats:
    """The values to DIGITS significant digits; NaN stays."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        exponents = np.clip(DIGITS - 1 - np.floor(np.log10(np.abs(values))), -300, 300)
        up, down = np.power(10.0, np.maximum(exponents, 0)), np.power(10.0, np.maximum(-exponents, 0))
        told = np.rint(values * up / down) / up * down
    return np.where(np.isfinite(told), told, values)


def newest(keys: Ints, times: Ints, values: Floats, count: int) -> Floats:
    """The value of the newest time of each key; of several at that time the largest."""
    latest = np.full(count, np.iinfo(np.int64).min)
    np.maximum.at(latest, keys, times)
    chosen = times == latest[keys]
    found = np.full(count, np.nan)
    np.fmax.at(found, keys[chosen], values[chosen])
    return found


def percentile(keys: Ints, values: Floats, count: int, percent: int) -> Floats:
    """The value of rank floor(n·percent/100 + 0.5) among each key's n values."""
    found = np.full(count, np.nan)
    numbers = np.bincount(keys, minlength=count)
    there = np.flatnonzero(numbers)
    ranks = np.maximum(np.floor(numbers[there] * percent / 100.0 + 0.5).astype(np.int64), 1) - 1
    starts = np.cumsum(numbers) - numbers
    widest = int(numbers.max(initial=0))
    if widest * len(there) > _EMPTY_CELLS * len(keys):
        found[there] = values[np.lexsort((values, keys))][starts[there] + ranks]
        return found
    # A table with a row for each key: sorting its rows takes a quarter of the time. 16-bit keys are sorted by radix.
    order = np.argsort(keys.astype(np.uint16) if count <= 1 << 16 else keys, kind="stable")
    table = np.full((len(there), widest), np.inf)
    rows = np.repeat(np.arange(len(there)), numbers[there])
    table[rows, np.arange(len(keys)) - np.repeat(starts[there], numbers[there])] = values[order]
    table.sort(axis=1)
    found[there] = table[np.arange(len(there)), ranks]
    return found


def increases(series: Ints, times: Ints, values: Floats, before: dict[int, float]) -> tuple[Ints, Floats]:
    """By how much a counter grew from each reading to the next of its series; one that fell began again at 0.

    Returns the places of the readings that have one before them, and the increases. ``before`` holds the newest value of each
    series that was seen earlier, and then those of these.
    """
    order = np.lexsort((times, series))
    series, values = series[order], values[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = series[1:] != series[:-1]
    earlier = np.empty(len(order))
    earlier[1:] = values[:-1]
    earlier[first] = [before.get(number, np.nan) for number in series[first].tolist()]
    grown = np.where(values < earlier, values, values - earlier)
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = first[1:]
    before.update(zip(series[last].tolist(), values[last].tolist(), strict=True))
    known = ~np.isnan(grown)
    return order[known], grown[known]
