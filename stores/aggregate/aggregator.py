"""Readings put into windows and groups: what every store's ``series()`` does with the readings that it finds.

A store hands over slabs, each a few whole windows with all their readings (``add``) or with what it counted of each source
itself (``add_cells``). Nothing of a slab is kept but its groups' values, so memory does not grow with the range.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from readings.mig import how_parts_combine
from stores.aggregate.attribution import Pod, tenancies
from stores.aggregate.buckets import Buckets, Floats, Ints, Mask
from stores.aggregate.functions import PERCENTILES, RunningQuantiles, increases, newest, percentile, rounded
from stores.aggregate.grouping import GroupIndex, ReadingArrays, Source
from stores.base import GroupSeries, SeriesQuery, TooMuch

# The most values (groups times windows) that are gathered before the largest groups are chosen.
MOST_VALUES = 10_000_000
# The most readings that are taken at once, where a single window has so many.
MOST_READINGS = 10_000_000
LONGEST_SECONDS = 60.0
# What can be worked out of each source's count and mean (and largest or smallest value) in a window.
FROM_CELLS = frozenset({"mean", "sum", "count", "max", "min"})
# What adding up makes inexact.
WORKED_OUT = frozenset({"mean", "sum", "increase"})

_READINGS_AT_ONCE = 1_000_000
_CELLS_AT_ONCE = 2_000_000


def windows_at_once(grid: Buckets, readings: float, sources: int) -> int:
    """How many windows a slab should have, where the whole range holds about so many readings of so many sources."""
    by_readings = grid.count * _READINGS_AT_ONCE / max(readings, 1.0)
    return max(1, int(min(by_readings, _CELLS_AT_ONCE / max(sources, 1), grid.count)))


def check_readings(count: int) -> None:
    """Raise TooMuch for more readings than should be in memory at once."""
    if count > MOST_READINGS:
        raise TooMuch(
            f"a window holds more than {MOST_READINGS:,} readings that have to be looked at together: ask for shorter windows or"
            " fewer GPUs"
        )


class Partials(NamedTuple):
    """Of each window (row) and member (column): how many readings, their sum, and their largest or smallest value."""

    counts: Floats
    totals: Floats
    extremes: Floats


class Held(NamedTuple):
    """Partials of GPUs that one holder had in all of their windows: a source and a holder for each column."""

    sources: Sequence[Source]
    holders: Sequence[Pod]
    cells: Partials


class _Found(NamedTuple):
    """Readings by member."""

    members: Ints
    times: Ints
    values: Floats


class WindowAggregator:
    """Gathers the answer to one query."""

    def __init__(self, query: SeriesQuery) -> None:
        self.query = query
        self.grid = Buckets(query.start_ns, query.end_ns, query.every_ns)
        self._combination = how_parts_combine(query.metric_name)
        self._members = GroupIndex(query)
        self.tenancies = tenancies(query.occupancies or ())
        self._values: dict[int, Floats] = {}
        self._whole: Partials | None = None
        self._ranks = RunningQuantiles(query.aggregate)
        self._given: dict[int, float] = {}
        self._series: dict[tuple[str, ...], int] = {}
        self._before: dict[int, float] = {}
        self._until = time.monotonic() + LONGEST_SECONDS

    def add(
        self, slab: Buckets, readings: ReadingArrays, shares: ReadingArrays | None = None, held: Held | None = None
    ) -> None:
        """Take all readings of a slab, and where the query has occupancies, all shares. Slabs come in order of time.

        ``held`` may stand for the readings of some GPUs where the aggregate is one of FROM_CELLS.
        """
        if self.query.aggregate == "increase":
            readings, shares = self._increases(readings), None if shares is None else self._increases(shares)
        found = self._found(readings) if shares is None else self._attributed(readings, shares)
        columns = [] if held is None else [self._members.number(*each) for each in zip(held[0], held[1], strict=True)]
        windows, members = slab.count, len(self._members)
        if not members or not (len(found.members) or columns):
            return
        rows = found.times // slab.every_ns - slab.origin_ns // slab.every_ns
        cells = self._cells(rows * members + found.members, found.values, (windows, members))
        aggregate = self.query.aggregate
        if aggregate in FROM_CELLS or aggregate == "increase":
            if held is not None:
                asked = np.array(columns, dtype=np.int64) >= 0
                self._merge(
                    cells, np.array(columns, dtype=np.int64)[asked], Partials(*(each[:, asked] for each in held.cells))
                )
            self._take(slab, cells)
            return
        kept = self._kept(cells)
        chosen = kept[rows, found.members]
        groups = self._group_of_member()[found.members[chosen]]
        times, values = found.times[chosen], found.values[chosen]
        count = len(self._members.groups)
        keys = rows[chosen] * count + groups
        if aggregate == "last":
            told = newest(keys, times, values, windows * count)
        else:
            told = percentile(keys, values, windows * count, PERCENTILES[aggregate])
        self._keep(slab, told.reshape(windows, count))
        if self.query.top is not None:
            self._ranks.add(groups, times, values, count)

    def add_cells(self, slab: Buckets, sources: list[Source], cells: Partials) -> None:
        """Take what a slab's windows (rows) hold of each source (columns)."""
        numbers = np.array([self._members.number(source, None) for source in sources], dtype=np.int64)
        shape = (slab.count, len(self._members))
        whole = Partials(np.zeros(shape), np.zeros(shape), np.full(shape, np.nan))
        self._merge(whole, numbers, cells)
        self._take(slab, whole)

    def add_groups(self, slab: Buckets, told: Mapping[tuple[str, ...], Floats]) -> None:
        """Take the finished aggregate of each group in a slab's windows; NaN where there is no reading."""
        numbers = [self._members.groups.setdefault(group, len(self._members.groups)) for group in told]
        values = np.full((slab.count, len(self._members.groups)), np.nan)
        for number, column in zip(numbers, told.values(), strict=True):
            values[:, number] = rounded(column) if self.query.aggregate in WORKED_OUT else column
        self._keep(slab, values)

    def rank_groups(self, ranks: Mapping[tuple[str, ...], float]) -> None:
        """Take the aggregate of each group over the whole range, where ``add_groups`` was given no more than windows."""
        self._given = {self._members.groups[group]: rank for group, rank in ranks.items()}

    def answer(self) -> list[GroupSeries]:
        """The groups. Raises TooMuch."""
        names = {number: group for group, number in self._members.groups.items() if number in self._values}
        order = sorted(names, key=names.__getitem__)
        if self.query.top is not None:
            ranks = self._over_the_range()
            order = sorted(order, key=lambda number: -ranks[number])[: self.query.top]
        self._check_groups(len(order))
        return [GroupSeries(names[number], _as_list(self._values[number])) for number in order]

    def _over_the_range(self) -> Mapping[int, float]:
        """The aggregate of each group over the whole range."""
        if self._given:
            return self._given
        if self._whole is None:
            return dict(enumerate(self._ranks.values().tolist()))
        return dict(enumerate(self._of_groups(_widened(self._whole, len(self._members)))[0].tolist()))

    # From readings to members.

    def _found(self, columns: ReadingArrays) -> _Found:
        numbers = np.array([self._members.number(source, None) for source in columns.sources], dtype=np.int64)
        return _Found(numbers[columns.places], columns.times, columns.values)

    def _attributed(self, readings: ReadingArrays, shares: ReadingArrays) -> _Found:
        """What the holders had: readings of GPUs that one holder had alone, and of shared ones the holders' parts."""
        shared_at: dict[str, list[Ints]] = defaultdict(list)
        for place, rows in _by_place(shares):
            shared_at[shares.sources[place].gpu].append(shares.times[rows])
        known = self.tenancies
        of_shares = np.array(
            [self._members.number(each, each.holder) if each.gpu in known else -1 for each in shares.sources],
            dtype=np.int64,
        )
        parts = [self._folded(_Found(of_shares[shares.places], shares.times, shares.values))]
        for place, rows in _by_place(readings):
            source = readings.sources[place]
            tenancy = known.get(source.gpu)
            if tenancy is None:
                continue
            if source.gpu in shared_at:
                rows = rows[~np.isin(readings.times[rows], np.concatenate(shared_at[source.gpu]))]
            times = readings.times[rows]
            numbers = np.array([*(self._members.number(source, each) for each in tenancy.holders), -1], dtype=np.int64)
            members = numbers[tenancy.at(times)]
            parts.append(_Found(members, times, readings.values[rows]))
        found = _Found(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        asked = found.members >= 0
        return _Found(found.members[asked], found.times[asked], found.values[asked])

    def _folded(self, found: _Found) -> _Found:
        """Parts of one member at one time made one reading."""
        asked = found.members >= 0
        members, times, values = found.members[asked], found.times[asked], found.values[asked]
        if not len(members):
            return _Found(members, times, values)
        order = np.lexsort((times, members))
        members, times, values = members[order], times[order], values[order]
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = (members[1:] != members[:-1]) | (times[1:] != times[:-1])
        starts = np.flatnonzero(first)
        if self._combination == "one":
            folded = np.maximum.reduceat(values, starts)
        else:
            folded = np.add.reduceat(values, starts)
            if self._combination == "average":
                folded = folded / np.diff([*starts, len(order)])
        return _Found(members[starts], times[starts], folded)

    def _increases(self, columns: ReadingArrays) -> ReadingArrays:
        numbers = np.array(
            [
                self._series.setdefault((each.gpu, *(each.holder or ())), len(self._series))
                for each in columns.sources
            ],
            dtype=np.int64,
        )  # fmt: skip
        places, values = increases(numbers[columns.places], columns.times, columns.values, self._before)
        return columns.only(places)._replace(values=values)

    # From members to groups.

    def _extreme(self) -> np.ufunc:
        return np.fmin if self.query.aggregate == "min" else np.fmax

    def _cells(self, keys: Ints, values: Floats, shape: tuple[int, int]) -> Partials:
        size = shape[0] * shape[1]
        extremes = np.full(size, np.nan)
        if self.query.aggregate in {"max", "min"}:
            self._extreme().at(extremes, keys, values)
        counts: Floats = np.bincount(keys, minlength=size).astype(np.float64)
        totals: Floats = np.bincount(keys, weights=values, minlength=size).astype(np.float64)
        return Partials(counts.reshape(shape), totals.reshape(shape), extremes.reshape(shape))

    def _merge(self, into: Partials, members: Ints, cells: Partials) -> None:
        """Add columns to members. A GPU that moved is several sources, and may be one member."""
        np.add.at(into.counts.T, members, cells.counts.T)
        np.add.at(into.totals.T, members, cells.totals.T)
        self._extreme().at(into.extremes.T, members, cells.extremes.T)

    def _take(self, slab: Buckets, cells: Partials) -> None:
        self._keep(slab, self._of_groups(cells))
        if self.query.top is not None:
            self._add_to_whole(cells)

    def _add_to_whole(self, cells: Partials) -> None:
        """The range as one window."""
        extreme = self._extreme()
        added = Partials(
            cells.counts.sum(axis=0, keepdims=True),
            cells.totals.sum(axis=0, keepdims=True),
            extreme.reduce(cells.extremes, axis=0, keepdims=True),
        )
        if self._whole is None:
            self._whole = added
            return
        known = _widened(self._whole, added.counts.shape[1])
        self._whole = Partials(
            known.counts + added.counts, known.totals + added.totals, extreme(known.extremes, added.extremes)
        )

    def _kept(self, cells: Partials) -> Mask:
        """Which members count in which window, so that no board counts twice."""
        kept = cells.counts > 0
        for own, instances in self._members.several():
            if own:
                kept[:, instances] &= ~kept[:, own]
            if self._combination == "one":
                members = own + instances
                means = np.where(kept[:, members], cells.totals[:, members], -np.inf)
                means /= np.maximum(cells.counts[:, members], 1)
                kept[:, members] &= np.argmax(means, axis=1)[:, np.newaxis] == np.arange(len(members))
        return kept

    def _of_groups(self, cells: Partials) -> Floats:
        """The aggregate of each window (row) and group (column); NaN where there is no reading."""
        kept = self._kept(cells)
        counts, totals = np.where(kept, cells.counts, 0.0), np.where(kept, cells.totals, 0.0)
        shape = (len(self._members.groups), len(kept))
        there = np.zeros(shape)
        groups = self._group_of_member()
        np.add.at(there, groups, counts.T)
        told = np.zeros(shape)
        match self.query.aggregate:
            case "count":
                told = there.copy()
            case "mean":
                np.add.at(told, groups, totals.T)
                told = rounded(told / np.maximum(there, 1))
            case "increase":
                np.add.at(told, groups, totals.T)
                told = rounded(told)
            case "sum":
                np.add.at(told, np.array(self._members.group_of_board, dtype=np.int64), self._of_boards(counts, totals))
                told = rounded(told)
            case _:
                told = np.full(shape, np.nan)
                self._extreme().at(told, groups, np.where(kept, cells.extremes, np.nan).T)
        told[there == 0] = np.nan
        return told.T

    def _of_boards(self, counts: Floats, totals: Floats) -> Floats:
        """The mean of each board (row) in each window (column), 0 where it has no reading."""
        boards = np.array(self._members.board_of, dtype=np.int64)
        means = (totals / np.maximum(counts, 1)).T
        told = np.zeros((len(self._members.group_of_board), len(counts)))
        np.add.at(told, boards, means)
        if self._combination == "average":
            parts = np.zeros_like(told)
            np.add.at(parts, boards, (counts > 0).T.astype(np.float64))
            told /= np.maximum(parts, 1)
        return told

    def _group_of_member(self) -> Ints:
        return np.array(self._members.group_of_board, dtype=np.int64)[np.array(self._members.board_of, dtype=np.int64)]

    def _keep(self, slab: Buckets, told: Floats) -> None:
        if time.monotonic() > self._until:
            raise TooMuch(
                f"the answer takes longer than {LONGEST_SECONDS:g} s: ask for a shorter range, fewer GPUs or another aggregate"
            )
        place, windows = self.grid.place_of(slab), len(told)
        for number in np.flatnonzero(~np.isnan(told).all(axis=0)).tolist():
            values = self._values.get(number)
            if values is None:
                values = self._values[number] = np.full(self.grid.count, np.nan)
                self._check_groups(len(self._values) if self.query.top is None else 0)
                if len(self._values) * self.grid.count > MOST_VALUES:
                    raise TooMuch(
                        f"more than {MOST_VALUES:,} values would have to be gathered: ask for longer windows, a shorter range or fewer GPUs"
                    )
            values[place : place + windows] = told[:, number]

    def _check_groups(self, count: int) -> None:
        if count > self.query.most_groups:
            raise TooMuch(f"there are more than {self.query.most_groups} groups")


def _widened(cells: Partials, members: int) -> Partials:
    """The same cells, with room for members that were not known yet."""
    more = (len(cells.counts), members - cells.counts.shape[1])
    return Partials(
        np.hstack([cells.counts, np.zeros(more)]),
        np.hstack([cells.totals, np.zeros(more)]),
        np.hstack([cells.extremes, np.full(more, np.nan)]),
    )


def _by_place(columns: ReadingArrays) -> list[tuple[int, Ints]]:
    """The rows of each source that has some."""
    order = np.argsort(columns.places, kind="stable")
    places, starts = np.unique(columns.places[order], return_index=True)
    return list(zip(places.tolist(), np.split(order, starts[1:]), strict=True)) if len(places) else []


def _as_list(values: Floats) -> list[float | None]:
    told: list[float | None] = values.tolist()
    for place in np.flatnonzero(np.isnan(values)).tolist():
        told[place] = None
    return told
