"""Aggregates of values by key, on arrays. A key is a number from 0; a key without a value gets NaN."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def starts_run(*columns: Ints | Floats) -> Mask:
    """Which rows differ from the row before them. The first row always does."""
    starts = np.zeros(len(columns[0]), dtype=np.bool_)
    starts[:1] = True
    for column in columns:
        starts[1:] |= column[1:] != column[:-1]
    return starts


def in_order(series: Ints, times: Ints) -> Ints:
    """The indexes of readings by series and time. Much quicker where they are in that order already."""
    after = series[1:] > series[:-1]
    after |= (series[1:] == series[:-1]) & (times[1:] >= times[:-1])
    return np.arange(len(series)) if after.all() else np.lexsort((times, series))


def numbered(ids: Ints) -> tuple[Ints, Ints]:
    """The distinct ids in ascending order, and each id's index among them. Quicker than np.unique for small ids: no sort."""
    is_there = np.zeros(int(ids.max(initial=-1)) + 1, dtype=np.bool_)
    is_there[ids] = True
    return np.flatnonzero(is_there), (np.cumsum(is_there) - 1)[ids]


# Aggregates of many values are rounded to this many digits: the rest depends on the order of adding.
DIGITS = 12
# The most cells of a table for each value in it.
_EMPTY_CELLS = 4
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


def rounded(values: Floats) -> Floats:
    """The values rounded to DIGITS significant digits. NaN stays."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        exponents = np.clip(DIGITS - 1 - np.floor(np.log10(np.abs(values))), -300, 300)
        up, down = np.power(10.0, np.maximum(exponents, 0)), np.power(10.0, np.maximum(-exponents, 0))
        result = np.rint(values * up / down) / up * down
    return np.where(np.isfinite(result), result, values)


def as_list(values: Floats) -> list[float | None]:
    """The values, with None for NaN."""
    absent = np.isnan(values)
    result: list[float | None] = values.tolist()
    # Objects take four times as long, and most answers have no gaps.
    if absent.any():
        found = values.astype(object)
        found[absent] = None
        result = found.tolist()
    return result


def newest(keys: Ints, times: Ints, values: Floats, count: int) -> Floats:
    """Each key's value at its newest time, and the largest where that time has several."""
    latest = np.full(count, np.iinfo(np.int64).min)
    np.maximum.at(latest, keys, times)
    chosen = times == latest[keys]
    result = np.full(count, np.nan)
    np.fmax.at(result, keys[chosen], values[chosen])
    return result


def percentile(keys: Ints, values: Floats, count: int, percent: int) -> Floats:
    """The value of rank floor(n·percent/100 + 0.5) among each key's n values."""
    result = np.full(count, np.nan)
    numbers = np.bincount(keys, minlength=count)
    present = np.flatnonzero(numbers)
    ranks = np.maximum(np.floor(numbers[present] * percent / 100.0 + 0.5).astype(np.int64), 1) - 1
    starts = np.cumsum(numbers) - numbers
    widest = int(numbers.max(initial=0))
    if widest * len(present) > _EMPTY_CELLS * len(keys):
        result[present] = values[np.lexsort((values, keys))][starts[present] + ranks]
        return result
    # A table with a row for each key: sorting its rows takes a quarter of the time. 16-bit keys are sorted by radix.
    order = np.argsort(keys.astype(np.uint16) if count <= 1 << 16 else keys, kind="stable")
    table = np.full((len(present), widest), np.inf)
    rows = np.repeat(np.arange(len(present)), numbers[present])
    table[rows, np.arange(len(keys)) - np.repeat(starts[present], numbers[present])] = values[order]
    table.sort(axis=1)
    result[present] = table[np.arange(len(present)), ranks]
    return result


def increases(series: Ints, times: Ints, values: Floats, before: dict[int, float]) -> tuple[Ints, Floats]:
    """How much a counter grew from each reading to the next in its series. A counter that fell restarted at 0.

    Returns the indexes of the readings that have a predecessor, and their increases. ``before`` holds the last value of each
    series from earlier calls, and is updated.
    """
    order = in_order(series, times)
    series, values = series[order], values[order]
    first = starts_run(series)
    earlier = np.empty(len(order))
    earlier[1:] = values[:-1]
    earlier[first] = [before.get(number, np.nan) for number in series[first].tolist()]
    grown = np.where(values < earlier, values, values - earlier)
    last = np.roll(first, -1)
    before.update(zip(series[last].tolist(), values[last].tolist(), strict=True))
    known = ~np.isnan(grown)
    return order[known], grown[known]
