"""From the partial aggregates of each source to the windows of every level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from readings.mig import Combination, how_parts_combine
from stores.aggregate.arrays import ReadingSource
from stores.aggregate.boards import board_means, counted, parts_of
from stores.aggregate.functions import Floats, Ints, Mask, percentile, starts_run
from stores.aggregate.grouping import MemberIndex
from stores.rollups.partials import NEVER_NS, SourcePartials
from stores.rollups.windows import (
    CARRIED,
    COUNT,
    HIGH,
    INCREASE,
    LAST,
    LEVELS,
    LOW,
    MEANS,
    P5,
    P50,
    P95,
    TOTAL,
    Level,
    Tier,
    WindowKey,
    WindowTable,
    stats_of,
)

_KEY_OF: Mapping[Level, Callable[[ReadingSource], WindowKey]] = {
    "gpu": lambda source: WindowKey(source.uuid, source.mig_id, source.hostname, source.model),
    "host": lambda source: WindowKey(hostname=source.hostname, model=source.model),
    "model": lambda source: WindowKey(model=source.model),
    "fleet": lambda source: WindowKey(),
}
_T = TypeVar("_T", bound=np.generic)
_PERCENTS = {P5: 5, P50: 50, P95: 95}


def combine(partials: SourcePartials, tier: Tier, start_ns: int) -> list[WindowTable]:
    """The windows that begin at ``start_ns``, for each level that the tier keeps, with the statistics of stats_of().

    A board counts once, as in SeriesQuery: a statistic of a group is what ``series()`` computes from the same readings, unrounded.
    CARRIED is NaN where ``series()``, asked from this window on, would find no increase in it.
    """
    # In an order of their own, so that nothing depends on the order in which readings came.
    order = sorted(range(len(partials.sources)), key=lambda place: partials.sources[place])
    return [_table(_Groups(partials, order, level), tier, level, start_ns) for level in LEVELS[tier]]


def _table(groups: _Groups, tier: Tier, level: Level, start_ns: int) -> WindowTable:
    stats: dict[str, Floats] = {}
    for stat, values in groups.stats().items():
        wanted = np.array([stat in stats_of(name, level) for name in groups.names], dtype=np.bool_)
        kept = np.where(wanted, values.T, np.nan)
        if not np.isnan(kept).all():
            stats[stat] = kept
    there = np.zeros(len(groups.keys), dtype=np.bool_)
    for values in stats.values():
        there |= ~np.isnan(values).all(axis=1)
    places = np.flatnonzero(there)
    starts = np.full(len(places), start_ns, dtype=np.int64)
    of_rows = {stat: values[places] for stat, values in stats.items()}
    return WindowTable(tier, level, groups.keys, groups.names, places, starts, of_rows)


class _Groups:
    """The groups of a level. Its arrays have a row for each metric, and a column for each source, member, board or group."""

    def __init__(self, partials: SourcePartials, order: list[int], level: Level) -> None:
        key_of, members, numbers = _KEY_OF[level], MemberIndex(), []
        for source in (partials.sources[place] for place in order):
            board, part = (source.gpu, "") if level == "gpu" else (source.uuid, source.mig_id)
            numbers.append(members.member(key_of(source), board, part))
        self.keys = [WindowKey(*key) for key in members.groups]
        self.names = partials.names
        self._partials, self._order, self._has_percentiles = partials, order, level == "fleet"
        self._members, self._parts = members, parts_of(members)
        self._member_of = np.array(numbers, dtype=np.int64)
        self._by_member = _Runs(self._member_of)
        self._by_group = _Runs(members.group_of_member())
        self._rows: dict[Combination, list[int]] = {}
        for row, name in enumerate(self.names):
            self._rows.setdefault(how_parts_combine(name), []).append(row)

    def stats(self) -> dict[str, Floats]:
        """Every statistic; NaN where a group has no reading of a metric."""
        if not self.keys or not self.names:
            return {}
        return self._of_readings() | self._of_steps()

    def _of_readings(self) -> dict[str, Floats]:
        counts, totals = (self._by_member.reduce(np.add, self._of_sources(name)) for name in ("count", "total"))
        chosen = self._counted(counts, totals)
        counts, totals = np.where(chosen, counts, 0.0), np.where(chosen, totals, 0.0)
        low = self._by_member.reduce(np.fmin, self._of_sources("low"))
        high = self._by_member.reduce(np.fmax, self._of_sources("high"))
        count = self._by_group.reduce(np.add, counts)
        stats = {
            COUNT: count,
            TOTAL: self._by_group.reduce(np.add, totals),
            LOW: self._by_group.reduce(np.fmin, np.where(chosen, low, np.nan)),
            HIGH: self._by_group.reduce(np.fmax, np.where(chosen, high, np.nan)),
            LAST: self._last(chosen),
            **self._of_boards(counts, totals),
        }
        return {stat: np.where(count > 0, values, np.nan) for stat, values in stats.items()}

    def _of_steps(self) -> dict[str, Floats]:
        """The increase of counters, and how much of it was carried."""
        steps, increase, carried = (self._of_sources(name) for name in ("steps", "increase", "carried"))
        whole = self._increase(steps, increase)
        since = self._increase(steps - ~np.isnan(carried), increase - np.nan_to_num(carried))
        return {INCREASE: whole, CARRIED: whole - since}

    def _increase(self, steps: Floats, increase: Floats) -> Floats:
        steps, increase = self._by_member.reduce(np.add, steps), self._by_member.reduce(np.add, increase)
        chosen = self._counted(steps, increase)
        found = self._by_group.reduce(np.add, np.where(chosen, increase, 0.0))
        return np.where(self._by_group.reduce(np.logical_or, chosen), found, np.nan)

    def _of_sources(self, name: str) -> Floats:
        values: Floats = getattr(self._partials, name)[self._order].T
        return values

    def _counted(self, counts: Floats, totals: Floats) -> Mask:
        result = np.zeros(counts.shape, dtype=np.bool_)
        for combination, rows in self._rows.items():
            result[rows] = counted(self._parts, combination, counts[rows], totals[rows])
        return result

    def _last(self, chosen: Mask) -> Floats:
        """The newest reading among those that count; of equally new ones the largest."""
        group_of = self._members.group_of_member()[self._member_of]
        by_group, times = _Runs(group_of), self._partials.last_ns[self._order].T
        times = np.where(chosen[:, self._member_of], times, NEVER_NS)
        newest = by_group.reduce(np.maximum, times)[:, group_of]
        return by_group.reduce(np.fmax, np.where(times == newest, self._of_sources("last"), np.nan))

    def _of_boards(self, counts: Floats, totals: Floats) -> dict[str, Floats]:
        """What is made of the boards' means."""
        members = self._members
        means = np.zeros((len(self.names), len(members.group_of_board)))
        for combination, rows in self._rows.items():
            means[rows] = board_means(members, combination, counts[rows], totals[rows]).T
        stats = {MEANS: _Runs(np.array(members.group_of_board, dtype=np.int64)).reduce(np.add, means)}
        if self._has_percentiles:
            boards = _Runs(np.array(members.board_of, dtype=np.int64))
            metrics, present = np.nonzero(boards.reduce(np.add, counts))
            for stat, percent in _PERCENTS.items():
                found = percentile(metrics, means[metrics, present], len(self.names), percent)
                stats[stat] = found[:, np.newaxis]
        return stats


class _Runs:
    """Reduces columns that belong together. ``numbers`` says to which each belongs: all numbers from 0 occur."""

    def __init__(self, numbers: Ints) -> None:
        self._order = np.argsort(numbers, kind="stable")
        self._starts = np.flatnonzero(starts_run(numbers[self._order]))

    def reduce(self, function: np.ufunc, values: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """``function`` over the columns of each number."""
        if len(self._starts) == len(self._order):
            return values[:, self._order]
        return function.reduceat(values[:, self._order], self._starts, axis=1)
