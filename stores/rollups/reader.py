"""Answers a question about windows from roll-ups, as stores.rollups.choice planned it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from stores.aggregate.aggregator import LONGEST_SECONDS, Partials, WindowAggregator
from stores.aggregate.arrays import ReadingArrays, ReadingSource
from stores.aggregate.buckets import Buckets
from stores.aggregate.functions import Floats, Ints, Mask, as_list, increases, rounded, starts_run
from stores.aggregate.grouping import GroupIndex
from stores.aggregate.limits import LIGHT_READINGS, limits_of
from stores.base import Aggregate, GroupSeries, Store, TooMuch
from stores.rollups.choice import NotTold, RangePart, TierPlan
from stores.rollups.windows import (
    CARRIED,
    COUNT,
    HIGH,
    INCREASE,
    LAST,
    LOW,
    MEANS,
    STEP_NS,
    TOTAL,
    Level,
    RollupStore,
    Tier,
    WindowKey,
    WindowTable,
)

# Rows in one answer of a store of roll-ups.
_ROWS_AT_ONCE = 200_000
# For the length of the first answer; the next ones follow from what was found.
_BOARDS_TO_A_KEY: dict[Level, int] = {"gpu": 1, "host": 4, "model": 1000, "fleet": 1 << 40}
_SUMS = frozenset({COUNT, TOTAL, MEANS})


def read_tier(plan: TierPlan, rollups: RollupStore, store: Store) -> list[GroupSeries]:
    """The answer, as ``Store.series`` gives it. Raises NotTold where the windows cannot tell it exactly, and what ``series`` raises."""
    reader = _WindowReader(plan, rollups, store)
    if plan.by_source:
        return _BySource(plan, reader).answer()
    return _ByGroup(plan, reader).answer()


class _WindowReader:
    """Reads parts of the range, a bounded number of rows at a time. Raises TooMuch and TooBusy."""

    def __init__(self, plan: TierPlan, rollups: RollupStore, store: Store) -> None:
        self._plan = plan
        self._rollups = rollups
        self._store = store
        self._rows = 0
        self._is_light = True
        self._until = time.monotonic() + LONGEST_SECONDS

    def tables(self, part: RangePart, stats: tuple[str, ...]) -> Iterator[WindowTable]:
        """The windows of a part, in order of time."""
        query, tier = self._plan.query, _tier_of(part)
        step, start = STEP_NS[tier], part.start_ns
        level = self._plan.level
        steps = max(1, _ROWS_AT_ONCE // max(1, self._plan.boards // _BOARDS_TO_A_KEY[level]))
        while start < part.end_ns:
            end = min(start + steps * step, part.end_ns)
            table = self._rollups.read(
                tier,
                level,
                query.metric_name,
                stats,
                start,
                end,
                gpus=query.gpus,
                hostnames=query.hostnames,
                models=query.models,
            )
            self._count(len(table))
            yield table
            steps = max(1, int(min(steps * 16, _ROWS_AT_ONCE * (end - start) / step / max(1, len(table)))))
            start = end

    def readings(self, part: RangePart) -> Iterator[ReadingArrays]:
        """The raw readings of a part that pass the filters, in order of time."""
        query = self._plan.query
        for found in self._store.readings(
            query.metric_name, part.start_ns, part.end_ns, gpus=self._plan.raw_gpus, hosts=query.hosts
        ):
            self._count(len(found.times))
            if query.hostnames or query.models:
                passes = [
                    (not query.hostnames or each.hostname in query.hostnames)
                    and (not query.models or each.model in query.models)
                    for each in found.sources
                ]
                found = found.only(np.array(passes, np.bool_)[found.places])
            if len(found.times):
                yield found

    def series(self, part: RangePart) -> list[GroupSeries]:
        """The answer for a part, from raw readings."""
        buckets = Buckets(part.start_ns, part.end_ns, self._plan.query.buckets.every_ns)
        return self._store.series(replace(self._plan.query, buckets=buckets))

    def _count(self, rows: int) -> None:
        self._rows += rows
        if self._rows > LIGHT_READINGS and self._is_light:
            self._plan.query.heavy()
            self._is_light = False
        if time.monotonic() > self._until:
            raise TooMuch(f"the answer takes longer than {LONGEST_SECONDS:g} s: ask for a shorter range or fewer GPUs")


def _tier_of(part: RangePart) -> Tier:
    if part.source == "raw":
        raise ValueError("raw readings are no windows")
    return part.source


class _ByGroup:
    """Adds up the windows of a level by group. What it keeps of each group and window has the place group * windows + window."""

    def __init__(self, plan: TierPlan, reader: _WindowReader) -> None:
        self._plan, self._query, self._reader = plan, plan.query, reader
        self._index = GroupIndex(plan.query)
        self._windows = plan.query.buckets.count
        self._most = limits_of(plan.query.memory).values
        self._stats: dict[str, Floats] = {name: np.zeros(0) for name in plan.stats}
        self._is_there: Mask = np.zeros(0, np.bool_)
        self._newest: Ints = np.zeros(0, np.int64)  # the time of LAST

    def answer(self) -> list[GroupSeries]:
        """The groups by name, or the largest first."""
        apart: list[tuple[RangePart, list[GroupSeries]]] = []
        for part in self._plan.parts:
            if part.source != "raw":
                for table in self._reader.tables(part, self._plan.stats):
                    self._add_table(table)
            elif self._plan.apart:
                apart.append((part, self._reader.series(part)))
            else:
                for found in self._reader.readings(part):
                    self._add_readings(found)
        for _, found_series in apart:
            for each in found_series:
                self._index.groups.setdefault(each.group, len(self._index.groups))
        self._grow()
        values = self._values()
        for part, found_series in apart:
            windows = self._windows_of(np.array([part.start_ns]))[0]
            for each in found_series:
                column = np.array(each.values, np.float64)
                values[self._index.groups[each.group], windows : windows + len(column)] = column
        return self._chosen(values)

    def _add_table(self, table: WindowTable) -> None:
        if not len(table):
            return
        groups = self._groups([_source(key) for key in table.keys], table.places)
        places = groups * self._windows + self._windows_of(table.starts_ns)
        if self._plan.one_key:
            order = np.lexsort((table.starts_ns, places))
            if not starts_run(places[order], table.starts_ns[order]).all():
                raise NotTold(
                    f"roll-ups do not tell which of several models or GPUs of a group had the last reading: agg {self._query.aggregate}"
                    " of them comes from raw readings"
                )
        self._add(places, table.starts_ns, {name: table.stats[name][:, 0] for name in self._plan.stats})

    def _add_readings(self, found: ReadingArrays) -> None:
        places = self._groups(found.sources, found.places) * self._windows + self._windows_of(found.times)
        ones = np.ones(len(found.values))
        stats = {name: ones if name == COUNT else found.values for name in self._plan.stats}
        self._add(places, found.times, stats)

    def _groups(self, sources: Sequence[ReadingSource], rows: Ints) -> Ints:
        """The group of each row."""
        groups = np.zeros(len(sources), np.int64)
        for place in np.flatnonzero(np.bincount(rows, minlength=len(sources))).tolist():
            board = self._index.board_of[self._index.number(sources[place], None)]
            groups[place] = self._index.group_of_board[board]
        self._grow()
        return groups[rows]

    def _windows_of(self, times: Ints) -> Ints:
        buckets = self._query.buckets
        return times // buckets.every_ns - buckets.origin_ns // buckets.every_ns

    def _grow(self) -> None:
        """Make room for all groups. Raises TooMuch."""
        groups = len(self._index.groups)
        if self._query.top is None and groups > self._query.most_groups:
            raise TooMuch(f"there are more than {self._query.most_groups} groups")
        size = groups * self._windows
        if size > self._most:
            raise TooMuch(
                f"more than {self._most:,} values would have to be gathered: ask for longer windows, a shorter range"
                " or fewer GPUs, or raise QUERY_MEMORY"
            )
        more = max(size - len(self._is_there), 0)
        if not more:
            return
        for name, values in self._stats.items():
            self._stats[name] = np.append(values, np.full(more, 0.0 if name in _SUMS else np.nan))
        self._is_there = np.append(self._is_there, np.zeros(more, np.bool_))
        self._newest = np.append(self._newest, np.full(more, np.iinfo(np.int64).min))

    def _add(self, places: Ints, times: Ints, stats: Mapping[str, Floats]) -> None:
        there = ~np.isnan(next(iter(stats.values())))
        places, times = places[there], times[there]
        self._is_there[places] = True
        for name, values in stats.items():
            values, into = values[there], self._stats[name]
            match name:
                case _ if name in _SUMS:
                    np.add.at(into, places, values)
                case "low":
                    np.fmin.at(into, places, values)
                case "high":
                    np.fmax.at(into, places, values)
                case _:
                    self._take_newest(into, places, times, values)

    def _take_newest(self, into: Floats, places: Ints, times: Ints, values: Floats) -> None:
        order = np.lexsort((values, times, places))
        newest = order[np.roll(starts_run(places[order]), -1)] if len(order) else order
        places, times, values = places[newest], times[newest], values[newest]
        known = self._newest[places]
        later = (times > known) | ((times == known) & (values > into[places]))
        into[places[later]] = values[later]
        self._newest[places[later]] = times[later]

    def _values(self) -> Floats:
        """The value of each group (row) in each window; NaN where there is no reading."""
        shape = (len(self._index.groups), self._windows)
        stats = {name: values.reshape(shape) for name, values in self._stats.items()}
        return _aggregated(self._query.aggregate, stats, self._is_there.reshape(shape))

    def _ranks(self) -> Floats:
        """The value of each group over the whole range."""
        shape = (len(self._index.groups), self._windows)
        if LAST in self._stats:
            newest = np.argmax(self._newest.reshape(shape), axis=1)
            last: Floats = self._stats[LAST].reshape(shape)[np.arange(shape[0]), newest]
            return last
        over = {LOW: np.fmin.reduce, HIGH: np.fmax.reduce}
        stats = {
            name: over.get(name, np.add.reduce)(values.reshape(shape), axis=1) for name, values in self._stats.items()
        }
        is_there: Mask = np.logical_or.reduce(self._is_there.reshape(shape), axis=1)
        return _aggregated(self._query.aggregate, stats, is_there)

    def _chosen(self, values: Floats) -> list[GroupSeries]:
        names = list(self._index.groups)
        has_values = (~np.isnan(values)).any(axis=1)
        order = sorted(np.flatnonzero(has_values).tolist(), key=names.__getitem__)
        if self._query.top is not None:
            ranks = self._ranks()
            order = sorted(order, key=lambda number: -ranks[number])[: self._query.top]
        if len(order) > self._query.most_groups:
            raise TooMuch(f"there are more than {self._query.most_groups} groups")
        return [GroupSeries(names[number], as_list(values[number])) for number in order]


def _aggregated(aggregate: Aggregate, stats: Mapping[str, Floats], is_there: Mask) -> Floats:
    """The aggregate from the statistics that the plan names for it."""
    if TOTAL in stats:  # a mean, or the sum of a single board's
        result = rounded(stats[TOTAL] / np.maximum(stats[COUNT], 1))
    elif MEANS in stats:
        result = rounded(stats[MEANS])
    else:
        (result,) = stats.values()
    return np.where(is_there, result, np.nan)


class _BySource:
    """Aggregates the windows of single GPUs (level ``gpu``) as if they were readings, some windows of the answer at a time."""

    def __init__(self, plan: TierPlan, reader: _WindowReader) -> None:
        self._plan, self._query, self._reader = plan, plan.query, reader
        self._aggregator = WindowAggregator(plan.query)
        self._sources: dict[ReadingSource, int] = {}
        self._gpus: dict[str, int] = {}
        self._gpu_of: list[int] = []  # of each source
        # Of each GPU, for increases: whether it had a reading in the range so far, and its last value.
        self._seen: Mask = np.zeros(0, np.bool_)
        self._before: dict[int, float] = {}
        # Only readings after the windows need their last values.
        self._stats = tuple(
            name
            for name in plan.stats
            if name != LAST or plan.query.aggregate != "increase" or plan.parts[-1].source == "raw"
        )

    def answer(self) -> list[GroupSeries]:
        """The groups by name, or the largest first."""
        buckets = self._query.buckets
        rows_of_window = self._plan.boards * max(1, buckets.every_ns // STEP_NS[self._plan.tier])
        for batch in buckets.batches(_ROWS_AT_ONCE // max(1, rows_of_window)):
            rows = [each for part in self._plan.parts for each in self._rows(part, batch)]
            if rows:
                self._add(batch, *(np.concatenate(column) for column in zip(*rows, strict=True)))
        return self._aggregator.answer()

    def _add(self, batch: Buckets, places: Ints, times: Ints, counts: Floats, totals: Floats, extremes: Floats) -> None:
        used, columns = np.unique(places, return_inverse=True)
        shape = (batch.count, len(used))
        keys = (times // batch.every_ns - batch.origin_ns // batch.every_ns) * len(used) + columns
        size = shape[0] * shape[1]
        extreme = np.full(size, np.nan)
        (np.fmin if self._query.aggregate == "min" else np.fmax).at(extreme, keys, extremes)
        counted, added = (np.bincount(keys, each, size).astype(np.float64) for each in (counts, totals))
        partials = Partials(counted.reshape(shape), added.reshape(shape), extreme.reshape(shape))
        sources = list(self._sources)
        self._aggregator.add_partials(batch, [sources[place] for place in used.tolist()], partials)

    def _rows(self, part: RangePart, batch: Buckets) -> Iterator[tuple[Ints, Ints, Floats, Floats, Floats]]:
        """Sources, times, counts, totals and extremes of what a part has in the batch."""
        part = part._replace(start_ns=max(part.start_ns, batch.start_ns), end_ns=min(part.end_ns, batch.end_ns))
        if part.start_ns >= part.end_ns:
            return
        if part.source == "raw":
            for found in self._reader.readings(part):
                places = self._numbers(found.sources)
                times, values = found.times, found.values
                rows = np.arange(len(times)) if self._query.aggregate != "increase" else None
                if rows is None:
                    gpus = np.array(self._gpu_of, np.int64)[places[found.places]]
                    rows, values = increases(gpus, times, values, self._before)
                    self._seen[gpus] = True
                yield places[found.places][rows], times[rows], np.ones(len(rows)), values, values
            return
        for table in self._reader.tables(part, self._stats):
            if len(table):
                places = self._numbers([_source(key) for key in table.keys])[table.places]
                stats = {name: values[:, 0] for name, values in table.stats.items()}
                yield from self._of_table(places, table.starts_ns, stats)

    def _of_table(
        self, places: Ints, starts: Ints, stats: Mapping[str, Floats]
    ) -> Iterator[tuple[Ints, Ints, Floats, Floats, Floats]]:
        counts = stats[COUNT]
        if self._query.aggregate != "increase":
            extremes = stats.get(HIGH, stats.get(LOW, counts))
            yield places, starts, counts, stats[TOTAL], extremes
            return
        totals = np.nan_to_num(stats[INCREASE])
        first = self._first_of_gpu(places, starts)
        # A GPU's first reading in the range has no reading before it there.
        totals = np.where(first, totals - np.nan_to_num(stats[CARRIED]), totals)
        counts = counts - first
        if LAST in stats:
            self._remember(places, starts, stats[LAST])
        there = counts > 0
        yield places[there], starts[there], counts[there], totals[there], totals[there]

    def _first_of_gpu(self, places: Ints, starts: Ints) -> Mask:
        """Which rows are of a GPU's first window in the range. Raises NotTold where two of its sources have that window."""
        gpus = np.array(self._gpu_of, np.int64)[places]
        earliest = np.full(len(self._seen), np.iinfo(np.int64).max)
        np.minimum.at(earliest, gpus, starts)
        first: Mask = (starts == earliest[gpus]) & ~self._seen[gpus]
        _check_single(gpus[first])
        self._seen[gpus] = True
        return first

    def _remember(self, places: Ints, starts: Ints, last: Floats) -> None:
        """Keep each GPU's last value. Raises NotTold where it may be either of two sources'."""
        gpus = np.array(self._gpu_of, np.int64)[places]
        latest = np.full(len(self._seen), np.iinfo(np.int64).min)
        np.maximum.at(latest, gpus, starts)
        newest = starts == latest[gpus]
        _check_single(gpus[newest])
        self._before.update(zip(gpus[newest].tolist(), last[newest].tolist(), strict=True))

    def _numbers(self, sources: Sequence[ReadingSource]) -> Ints:
        numbers = np.array([self._sources.setdefault(each, len(self._sources)) for each in sources], np.int64)
        for each in list(self._sources)[len(self._gpu_of) :]:
            self._gpu_of.append(self._gpus.setdefault(each.gpu, len(self._gpus)))
        self._seen = np.append(self._seen, np.zeros(len(self._gpus) - len(self._seen), np.bool_))
        return numbers


def _check_single(gpus: Ints) -> None:
    if len(np.unique(gpus)) < len(gpus):
        raise NotTold("a GPU changed its host at an end of the range: what it counted there comes from raw readings")


def _source(key: WindowKey) -> ReadingSource:
    return ReadingSource(*key)
