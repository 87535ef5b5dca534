"""Aggregates readings by window and group, for every store's ``series()``.

It is given batches of whole windows with all their readings (``add``), one window in parts (``add_window``), or a store's own
partial aggregates of each source (``add_partials``). Only the groups' values stay in memory, which therefore does not grow
with the readings. stores.aggregate.passes decides how much is read at a time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from readings.mig import how_parts_combine
from stores.aggregate.arrays import Pod, ReadingArrays, ReadingSource
from stores.aggregate.attribution import timelines
from stores.aggregate.boards import board_means, counted, parts_of
from stores.aggregate.buckets import Buckets
from stores.aggregate.functions import (
    PERCENTILES,
    Floats,
    Ints,
    Mask,
    as_list,
    increases,
    newest,
    percentile,
    rounded,
    starts_run,
)
from stores.aggregate.grouping import GroupIndex
from stores.aggregate.limits import limits_of
from stores.aggregate.quantiles import GroupNewest, GroupQuantiles
from stores.base import GroupSeries, SeriesQuery, TooMuch

LONGEST_SECONDS = 60.0
# Aggregates that follow from each source's count and mean (and largest or smallest value) in a window.
FROM_PARTIALS = frozenset({"mean", "sum", "count", "max", "min"})
# Aggregates that adding makes inexact.
INEXACT = frozenset({"mean", "sum", "increase"})

# All readings and shares of a part of the range; the shares where the query has assignments.
PartReadings = tuple[ReadingArrays, ReadingArrays | None]


class Partials(NamedTuple):
    """For each window (row) and source or member (column): the count of readings, their sum, and the largest or smallest."""

    counts: Floats
    totals: Floats
    extremes: Floats


# Partial aggregates for GPUs that stayed with one pod for the whole batch; column i belongs to sources[i] and pods[i].
SteadyPartials = tuple[Sequence[ReadingSource], Sequence[Pod], Partials]


class _MemberReadings(NamedTuple):
    """Readings with the member of each."""

    members: Ints
    times: Ints
    values: Floats

    def asked(self) -> _MemberReadings:
        """The readings that the query does not exclude."""
        chosen = self.members >= 0
        return _MemberReadings(self.members[chosen], self.times[chosen], self.values[chosen])


class WindowAggregator:
    """Computes the answer to one query."""

    def __init__(self, query: SeriesQuery) -> None:
        self.query = query
        self._combination = how_parts_combine(query.metric_name)
        self._members = GroupIndex(query)
        self.timelines = timelines(query.assignments or ())
        self._values: dict[int, Floats] = {}
        self._whole: Partials | None = None
        self._limits = limits_of(query.memory)
        self._ranks: GroupNewest | GroupQuantiles | None = None
        if query.top is not None and query.aggregate not in FROM_PARTIALS and query.aggregate != "increase":
            self._ranks = self._selection()
        self._ranking = False
        self._given_ranks: dict[int, float] = {}
        self._series: dict[tuple[str, ...], int] = {}
        self._before: dict[int, float] = {}
        self._until = time.monotonic() + LONGEST_SECONDS

    def add(
        self,
        batch: Buckets,
        readings: ReadingArrays,
        shares: ReadingArrays | None = None,
        steady: SteadyPartials | None = None,
    ) -> None:
        """Add all readings of a batch, and all shares where the query has assignments. Batches come in order of time.

        ``steady`` may replace the readings of some GPUs if the aggregate is one of FROM_PARTIALS.
        """
        found = self._found(readings, shares)
        columns = [self._members.number(*each) for each in zip(*steady[:2], strict=True)] if steady else []
        windows, members = batch.count, len(self._members)
        if not members or not (len(found.members) or columns):
            return
        rows = found.times // batch.every_ns - batch.origin_ns // batch.every_ns
        partials = self._partials(rows * members + found.members, found.values, (windows, members))
        aggregate = self.query.aggregate
        if aggregate in FROM_PARTIALS or aggregate == "increase":
            if steady is not None:
                numbers = np.array(columns, dtype=np.int64)
                wanted = numbers >= 0
                self._merge(partials, numbers[wanted], Partials(*(each[:, wanted] for each in steady[2])))
            self._take(batch, partials)
            return
        chosen = self._counted(partials)[rows, found.members]
        groups = self._members.group_of_member()[found.members[chosen]]
        times, values = found.times[chosen], found.values[chosen]
        count = len(self._members.groups)
        if self._ranks is not None:
            self._ranks.add(groups, times, values, count)
        if self._ranking:
            return
        keys = rows[chosen] * count + groups
        if aggregate == "last":
            result = newest(keys, times, values, windows * count)
        else:
            result = percentile(keys, values, windows * count, PERCENTILES[aggregate])
        self._store(batch, result.reshape(windows, count))

    def add_window(self, window: Buckets, parts: Callable[[], Iterator[PartReadings]]) -> None:
        """Add one window that is too large for memory, part by part. ``parts`` reads all its readings, at each call anew."""
        totals: Partials | None = None
        for found in self._each_found(parts):
            members = len(self._members)
            partials = self._partials(found.members, found.values, (1, members))
            if totals is not None:
                self._merge(partials, np.arange(totals.counts.shape[1]), totals)
            totals = partials
        if totals is None:
            return
        if self.query.aggregate in FROM_PARTIALS or self.query.aggregate == "increase":
            self._take(window, totals)
            return
        # Which members count is known only now.
        counting = self._counted(totals)[0]
        selections = [self._ranks] if self._ranks is not None else []
        own = None if self._ranking else self._selection()
        while selections or own is not None:
            for found in self._each_found(parts):
                chosen = np.append(counting, np.zeros(len(self._members) - len(counting), dtype=np.bool_))[
                    found.members
                ]
                groups = self._members.group_of_member()[found.members[chosen]]
                for selection in (*selections, *([own] if own else ())):
                    selection.add(groups, found.times[chosen], found.values[chosen], len(self._members.groups))
            selections = []
            if own is not None and own.end_pass():
                self._store(window, own.values()[np.newaxis, :])
                own = None

    def is_settled(self) -> bool:
        """Whether the answer is known. If not, all batches have to be added once more, to find the largest groups."""
        self._ranking = True
        return self._ranks is None or self._ranks.end_pass()

    @property
    def member_count(self) -> int:
        """How many members there are so far."""
        return len(self._members)

    def _selection(self) -> GroupNewest | GroupQuantiles:
        aggregate = self.query.aggregate
        return GroupNewest() if aggregate == "last" else GroupQuantiles(aggregate, self._limits.distinct)

    def _found(self, readings: ReadingArrays, shares: ReadingArrays | None) -> _MemberReadings:
        if self.query.aggregate == "increase":
            readings, shares = self._increases(readings), None if shares is None else self._increases(shares)
        if shares is not None:
            return self._attributed(readings, shares)
        return _MemberReadings(self._numbers(readings.sources)[readings.places], readings.times, readings.values)

    def _each_found(self, parts: Callable[[], Iterator[PartReadings]]) -> Iterator[_MemberReadings]:
        for readings, shares in parts():
            self._check_time()
            found = self._found(readings, shares)
            if len(found.members):
                yield found

    def add_partials(self, batch: Buckets, sources: list[ReadingSource], partials: Partials) -> None:
        """Add the partial aggregates of a batch's sources."""
        self._take(batch, self._of_members(self._numbers(sources), partials))

    def add_groups(self, batch: Buckets, by_group: Mapping[tuple[str, ...], Floats]) -> None:
        """Add the final aggregate of each group in a batch's windows; NaN where there is no reading."""
        numbers = [self._members.groups.setdefault(group, len(self._members.groups)) for group in by_group]
        values = np.full((batch.count, len(self._members.groups)), np.nan)
        for number, column in zip(numbers, by_group.values(), strict=True):
            values[:, number] = rounded(column) if self.query.aggregate in INEXACT else column
        self._store(batch, values)

    def rank_groups(self, ranks: Mapping[tuple[str, ...], float]) -> None:
        """Set the aggregate of each group over the whole range, which ``add_groups`` cannot know."""
        self._given_ranks = {self._members.groups[group]: rank for group, rank in ranks.items()}

    def answer(self) -> list[GroupSeries]:
        """The groups. Raises TooMuch."""
        names = {number: group for group, number in self._members.groups.items() if number in self._values}
        order = sorted(names, key=names.__getitem__)
        if self.query.top is not None:
            ranks = self._over_the_range()
            order = sorted(order, key=lambda number: -ranks[number])[: self.query.top]
        self._check_groups(len(order))
        return [GroupSeries(names[number], as_list(self._values[number])) for number in order]

    def _over_the_range(self) -> Mapping[int, float]:
        """The aggregate of each group over the whole range."""
        if self._given_ranks:
            return self._given_ranks
        if self._ranks is not None:
            return dict(enumerate(self._ranks.values().tolist()))
        if self._whole is None:
            return {}
        whole = self._of_members(np.arange(self._whole.counts.shape[1]), self._whole)
        return dict(enumerate(self._of_groups(whole)[0].tolist()))

    # From readings to members.

    def _numbers(self, sources: Sequence[ReadingSource]) -> Ints:
        return np.array([self._members.number(source, None) for source in sources], dtype=np.int64)

    def _attributed(self, readings: ReadingArrays, shares: ReadingArrays) -> _MemberReadings:
        """The readings of GPUs while a single pod had them, and the shares of GPUs that pods share."""
        shared_at: dict[str, list[Ints]] = defaultdict(list)
        for place, rows in _by_place(shares):
            shared_at[shares.sources[place].gpu].append(shares.times[rows])
        known = self.timelines
        of_shares = np.array(
            [self._members.number(each, each.pod) if each.gpu in known else -1 for each in shares.sources],
            dtype=np.int64,
        )
        parts = [self._folded(_MemberReadings(of_shares[shares.places], shares.times, shares.values))]
        for place, rows in _by_place(readings):
            source = readings.sources[place]
            timeline = known.get(source.gpu)
            if timeline is None:
                continue
            if source.gpu in shared_at:
                rows = rows[~np.isin(readings.times[rows], np.concatenate(shared_at[source.gpu]))]
            times = readings.times[rows]
            numbers = np.array([*(self._members.number(source, each) for each in timeline.pods), -1], dtype=np.int64)
            members = numbers[timeline.at(times)]
            parts.append(_MemberReadings(members, times, readings.values[rows]))
        found = _MemberReadings(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        return found.asked()

    def _folded(self, found: _MemberReadings) -> _MemberReadings:
        """Shares of one member at one time, combined into one reading."""
        members, times, values = found.asked()
        if not len(members):
            return _MemberReadings(members, times, values)
        order = np.lexsort((times, members))
        members, times, values = members[order], times[order], values[order]
        starts = np.flatnonzero(starts_run(members, times))
        if self._combination == "once":
            folded = np.maximum.reduceat(values, starts)
        else:
            folded = np.add.reduceat(values, starts)
            if self._combination == "average":
                folded = folded / np.diff([*starts, len(order)])
        return _MemberReadings(members[starts], times[starts], folded)

    def _increases(self, columns: ReadingArrays) -> ReadingArrays:
        numbers = np.array(
            [
                self._series.setdefault((each.gpu, *(each.pod or ())), len(self._series))
                for each in columns.sources
            ],
            dtype=np.int64,
        )  # fmt: skip
        places, values = increases(numbers[columns.places], columns.times, columns.values, self._before)
        return columns.only(places)._replace(values=values)

    # From members to groups.

    def _extreme(self) -> np.ufunc:
        return np.fmin if self.query.aggregate == "min" else np.fmax

    def _partials(self, keys: Ints, values: Floats, shape: tuple[int, int]) -> Partials:
        size = shape[0] * shape[1]
        extremes = np.full(size, np.nan)
        if self.query.aggregate in {"max", "min"}:
            self._extreme().at(extremes, keys, values)
        counts: Floats = np.bincount(keys, minlength=size).astype(np.float64)
        totals: Floats = np.bincount(keys, weights=values, minlength=size).astype(np.float64)
        return Partials(counts.reshape(shape), totals.reshape(shape), extremes.reshape(shape))

    def _of_members(self, members: Ints, partials: Partials) -> Partials:
        """The same partials with a column for every member there is."""
        shape = (len(partials.counts), len(self._members))
        whole = Partials(np.zeros(shape), np.zeros(shape), np.full(shape, np.nan))
        self._merge(whole, members, partials)
        return whole

    def _merge(self, into: Partials, members: Ints, partials: Partials) -> None:
        """Add columns to members. A GPU that moved has several sources, which may be one member."""
        np.add.at(into.counts.T, members, partials.counts.T)
        np.add.at(into.totals.T, members, partials.totals.T)
        self._extreme().at(into.extremes.T, members, partials.extremes.T)

    def _take(self, batch: Buckets, partials: Partials) -> None:
        self._store(batch, self._of_groups(partials))
        if self.query.top is None:
            return
        # The whole range as one window.
        whole = Partials(
            partials.counts.sum(axis=0, keepdims=True),
            partials.totals.sum(axis=0, keepdims=True),
            self._extreme().reduce(partials.extremes, axis=0, keepdims=True),
        )
        if self._whole is not None:
            self._merge(whole, np.arange(self._whole.counts.shape[1]), self._whole)
        self._whole = whole

    def _counted(self, partials: Partials) -> Mask:
        """Which members count in which window, so that no board counts twice."""
        return counted(parts_of(self._members), self._combination, partials.counts, partials.totals)

    def _of_groups(self, partials: Partials) -> Floats:
        """The aggregate of each window (row) and group (column); NaN where there is no reading."""
        chosen = self._counted(partials)
        counts, totals = np.where(chosen, partials.counts, 0.0), np.where(chosen, partials.totals, 0.0)
        shape = (len(self._members.groups), len(chosen))
        present = np.zeros(shape)
        groups = self._members.group_of_member()
        np.add.at(present, groups, counts.T)
        result = np.zeros(shape)
        match self.query.aggregate:
            case "count":
                result = present
            case "mean":
                np.add.at(result, groups, totals.T)
                result = rounded(result / np.maximum(present, 1))
            case "increase":
                np.add.at(result, groups, totals.T)
                result = rounded(result)
            case "sum":
                means = board_means(self._members, self._combination, counts, totals)
                np.add.at(result, np.array(self._members.group_of_board, dtype=np.int64), means)
                result = rounded(result)
            case _:
                result = np.full(shape, np.nan)
                self._extreme().at(result, groups, np.where(chosen, partials.extremes, np.nan).T)
        result[present == 0] = np.nan
        return result.T

    def _store(self, batch: Buckets, result: Floats) -> None:
        self._check_time()
        place, windows = self.query.buckets.index_of(batch), len(result)
        for number in np.flatnonzero(~np.isnan(result).all(axis=0)).tolist():
            values = self._values.get(number)
            if values is None:
                values = self._values[number] = np.full(self.query.buckets.count, np.nan)
                self._check_groups(len(self._values) if self.query.top is None else 0)
                if len(self._values) * self.query.buckets.count > self._limits.values:
                    raise TooMuch(
                        f"more than {self._limits.values:,} values would have to be gathered: ask for longer windows, a shorter range"
                        " or fewer GPUs, or raise QUERY_MEMORY"
                    )
            values[place : place + windows] = result[:, number]

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            raise TooMuch(
                f"the answer takes longer than {LONGEST_SECONDS:g} s: ask for a shorter range, fewer GPUs or another aggregate"
            )

    def _check_groups(self, count: int) -> None:
        if count > self.query.most_groups:
            raise TooMuch(f"there are more than {self.query.most_groups} groups")


def _by_place(columns: ReadingArrays) -> list[tuple[int, Ints]]:
    """The rows of each source that has rows."""
    order = np.argsort(columns.places, kind="stable")
    places, starts = np.unique(columns.places[order], return_index=True)
    return list(zip(places.tolist(), np.split(order, starts[1:]), strict=True)) if len(places) else []
