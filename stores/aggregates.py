"""Aggregates of values by key, on arrays. A key is a number from 0; a key without a value gets NaN."""

from __future__ import annotations

import numpy as np

from stores.columns import Floats, Ints

# What is worked out of many values is told to this many digits: those after them depend on the order of adding up.
DIGITS = 12
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
    found = np.full(count, np.nan)
    order = np.lexsort((values, times))
    # Of the values that one place is given, the last stays.
    found[keys[order]] = values[order]
    return found


def percentile(keys: Ints, values: Floats, count: int, percent: int) -> Floats:
    """The value of rank floor(n·percent/100 + 0.5) among each key's n values."""
    found = np.full(count, np.nan)
    numbers = np.bincount(keys, minlength=count)
    there = np.flatnonzero(numbers)
    order = np.lexsort((values, keys))
    starts = np.cumsum(numbers) - numbers
    ranks = np.floor(numbers[there] * percent / 100.0 + 0.5).astype(np.int64)
    found[there] = values[order][starts[there] + np.maximum(ranks, 1) - 1]
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
