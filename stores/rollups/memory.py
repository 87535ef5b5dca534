"""Partial aggregates of the newest windows, from what a collector writes: a shortcut past the store.

What it gives is what raw readings give. It says where it cannot give that: of windows that it has not seen whole, and of single GPUs
whose readings were late, came again, or count from a reading that it has not seen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain, pairwise
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from readings.catalogue import is_counter
from readings.model import Gpu, PointBlock
from stores.aggregate.arrays import ReadingArrays, ReadingSource
from stores.aggregate.functions import Floats, Ints, Mask, in_order, numbered, starts_run
from stores.rollups.partials import NEVER_NS, SourcePartials, together
from stores.rollups.windows import STEP_NS, Tier
from stores.validate import split_storable

_MINUTE, _HOUR = STEP_NS["1m"], STEP_NS["1h"]
# A minute is let go once so many later ones have half as many points, and the oldest one where there are more than _MOST.
_LATER = 3
_MOST = 10
# A minute's points wait to be added up until they have so many values.
_WAITING = 4_000_000


class MemoryWindow(NamedTuple):
    """A window. ``partials`` is of all GPUs but those in ``untrusted`` (their ids), whose readings have to be read from the store."""

    tier: Tier
    start_ns: int
    partials: SourcePartials
    untrusted: frozenset[str]
    version: int


class WindowMemory:
    """Keeps partial aggregates of the newest minutes and hours. Windows that begin at or before ``trusted_from_ns`` are never given.

    It has to be given every block that this process writes from then on. Safe for threads. It takes a few hundred bytes for each
    metric of each GPU; readings of odd times only make it give up windows sooner.
    """

    def __init__(self, trusted_from_ns: int) -> None:
        self.trusted_from_ns = trusted_from_ns
        self._lock = threading.Lock()
        self._known = _NewestReadings(trusted_from_ns + _MINUTE)
        self._minutes: dict[int, _Minute] = {}
        self._hours: dict[int, _Hour] = {}
        # Windows before these are not kept any more.
        self._first_minute_ns = self._first_hour_ns = NEVER_NS

    def add(self, blocks: Sequence[PointBlock]) -> None:
        """Add what was written, after it was and before anybody is told of it. What stores refuse in any block is left out."""
        with self._lock:
            try:
                tables = list(self._known.tables(blocks))
            except ValueError:
                tables = list(self._known.tables(split_storable(blocks)[0]))
            # Minute by minute: no table is late because another one that came with it reaches further.
            parts = [(start, part) for table in tables for start, part in table.by_minute()]
            for start, part in sorted(parts, key=itemgetter(0)):
                self._add(start, part)

    def distrust(self, gpu: str, time_ns: int) -> None:
        """A reading of a GPU (its id) at this time is not in the store as it was added, or may not be."""
        with self._lock:
            self._doubt(np.array([self._known.gpu(gpu)]), time_ns // _MINUTE * _MINUTE)
            self._known.forget(self._known.gpu(gpu))

    def window(self, tier: Tier, start_ns: int) -> MemoryWindow | None:
        """The window that begins at ``start_ns``, as far as it has come. None: read all of it from the store."""
        with self._lock:
            if start_ns <= self.trusted_from_ns:
                return None
            return self._minute_window(start_ns) if tier == "1m" else self._hour_window(start_ns)

    def settle(self, window: MemoryWindow, partials: SourcePartials) -> None:
        """Take the partials of a minute's untrusted GPUs, read from the store after the minute was given, so that its hour has them.

        They are left out if anything of that minute has come meanwhile.
        """
        with self._lock:
            minute = self._minutes.get(window.start_ns)
            if minute is None or window.tier != "1m" or minute.version != window.version:
                return
            numbers = {self._known.gpu(gpu) for gpu in window.untrusted}
            kept = [] if minute.settled is None else [minute.settled.without(window.untrusted)]
            minute.settled = together([*kept, partials.of_gpus(window.untrusted)])
            minute.settled_gpus |= numbers
            minute.doubtful -= numbers

    def _minute_window(self, start_ns: int) -> MemoryWindow | None:
        minute = self._minutes.get(start_ns)
        if minute is None:
            return None
        partials, doubtful = minute.result(self._known)
        return MemoryWindow("1m", start_ns, partials, self._known.ids(doubtful), minute.version)

    def _hour_window(self, start_ns: int) -> MemoryWindow | None:
        hour = self._hours.get(start_ns)
        if hour is None:
            return None
        parts = [] if hour.partials is None else [hour.partials]
        doubtful = set(hour.doubtful)
        for minute in self._of_hour(start_ns):
            part, also = minute.result(self._known)
            parts.append(part)
            doubtful |= also
        untrusted = self._known.ids(doubtful)
        partials = reduce(SourcePartials.merge_later, parts, SourcePartials.empty(start_ns, start_ns + _HOUR))
        partials = replace(partials.without(untrusted), ends_ns=start_ns + _HOUR)
        return MemoryWindow("1h", start_ns, partials, untrusted, 0)

    def _of_hour(self, start_ns: int) -> list[_Minute]:
        return [self._minutes[each] for each in sorted(self._minutes) if each // _HOUR * _HOUR == start_ns]

    # From points to minutes.

    def _add(self, start_ns: int, points: _PointRows) -> None:
        """Add the points of one minute."""
        known = self._known
        again = ~starts_run(points.gpus, points.times)
        if again.any():
            self._doubt(points.gpus[again], start_ns)
        late = known.late(start_ns, points)
        if len(late):
            points = self._without_late(start_ns, points, late)
        if not len(points.times):
            return
        minute = self._minute(start_ns)
        if minute is not None:
            minute.add(points, known)
        elif (hour := self._hour(start_ns)) is not None:
            hour.doubtful.update(points.gpus.tolist())
        known.remember(points)
        self._let_go()

    def _without_late(self, start_ns: int, points: _PointRows, rows: Ints) -> _PointRows:
        """Leave out readings that are not newer than the newest of their GPU and metric, and doubt their windows.

        The newest reading again, with the same value, changes nothing.
        """
        known, late = self._known, points.only(rows)
        newest_ns, newest = known.newest_of(late)
        times = late.times[:, np.newaxis]
        behind = ~np.isnan(late.values) & (times <= newest_ns)
        same = (
            (times == newest_ns) & (late.values == newest) & (known.source_of[late.gpus] == late.sources)[:, np.newaxis]
        )
        # A new reading of an earlier minute may be what a counter in a later one counts from.
        earlier = start_ns < known.latest[late.gpus] // _MINUTE * _MINUTE
        doubtful = (behind & ~same).any(axis=1) | (earlier & (~np.isnan(late.values) & ~behind).any(axis=1))
        if doubtful.any():
            self._doubt(late.gpus[doubtful], start_ns)
        for gpu in np.unique(late.gpus[(behind & ~same & (times == newest_ns)).any(axis=1)]).tolist():
            known.forget(gpu)
        values = points.values.copy()
        values[rows] = np.where(behind, np.nan, late.values)
        return points._replace(values=values).only(np.flatnonzero(~np.isnan(values).all(axis=1)))

    def _doubt(self, gpus: Ints, start_ns: int) -> None:
        """What there is of some GPUs from this minute on may be wrong."""
        numbers = set(gpus.tolist())
        if self._minute(start_ns) is None:
            self._hour(start_ns)
            for hour_ns, hour in self._hours.items():
                if hour_ns + _HOUR > start_ns:
                    hour.doubtful |= numbers
        for minute in self._minutes.values():
            if minute.start_ns >= start_ns:
                minute.doubtful |= numbers
                minute.version += 1

    def _minute(self, start_ns: int) -> _Minute | None:
        """A minute; None if it was let go."""
        if start_ns < self._first_minute_ns:
            return None
        if start_ns not in self._minutes:
            self._minutes[start_ns] = _Minute(start_ns)
            self._hour(start_ns)
        return self._minutes[start_ns]

    def _hour(self, time_ns: int) -> _Hour | None:
        start = time_ns // _HOUR * _HOUR
        return self._hours.setdefault(start, _Hour()) if start >= self._first_hour_ns else None

    def _let_go(self) -> None:
        """Move the oldest minutes into their hours."""
        while self._minutes:
            oldest = self._minutes[min(self._minutes)]
            later = sum(2 * each.count >= oldest.count for each in self._minutes.values()) - 1
            if later < _LATER and len(self._minutes) <= _MOST:
                return
            del self._minutes[oldest.start_ns]
            self._first_minute_ns = oldest.start_ns + _MINUTE
            hour = self._hour(oldest.start_ns)
            if hour is not None and oldest.start_ns // _HOUR * _HOUR > self.trusted_from_ns:
                partials, doubtful = oldest.result(self._known)
                hour.partials = partials if hour.partials is None else hour.partials.merge_later(partials)
                hour.doubtful |= doubtful
            # The hour before is kept for late callers.
            self._first_hour_ns = max(self._first_hour_ns, self._first_minute_ns // _HOUR * _HOUR - _HOUR)
            self._hours = {start: each for start, each in self._hours.items() if start >= self._first_hour_ns}


class _PointRows(NamedTuple):
    """Points with the same metrics, by GPU and time. ``values`` has a column for each metric; NaN where there is no reading."""

    columns: Ints
    sources: Ints
    gpus: Ints
    times: Ints
    values: Floats

    def only(self, chosen: Mask | Ints) -> _PointRows:
        columns, sources, gpus, times, values = self
        return _PointRows(columns, sources[chosen], gpus[chosen], times[chosen], values[chosen])

    def by_minute(self) -> Iterator[tuple[int, _PointRows]]:
        """The points of each minute, and its begin."""
        minutes = self.times // _MINUTE
        if minutes.min() == minutes.max():
            yield int(minutes[0]) * _MINUTE, self
            return
        order = np.argsort(minutes, kind="stable")
        minutes = minutes[order]
        for start, end in pairwise([*np.flatnonzero(starts_run(minutes)).tolist(), len(minutes)]):
            yield int(minutes[start]) * _MINUTE, self.only(order[start:end])


class _NewestReadings:
    """The GPUs, their sources and the metrics that there were, by number; and the newest reading of each GPU and metric."""

    def __init__(self, since_ns: int) -> None:
        # Of what is older others may have written more.
        self._since_ns = since_ns
        self.sources: list[ReadingSource] = []
        self.names: list[str] = []
        self.counters: list[int] = []  # columns
        self._ids: list[str] = []
        self._gpus: dict[str, int] = {}
        self._columns: dict[str, int] = {}
        self._sources: dict[tuple[str, str, str, str], int] = {}
        self._gpu_of = np.zeros(0, dtype=np.int64)  # by source
        self._new_sources: list[int] = []
        # By GPU: the time of the newest reading, and its source.
        self.latest = np.zeros(0, dtype=np.int64)
        self.source_of = np.zeros(0, dtype=np.int64)
        # By GPU and metric: the newest reading.
        self._newest_ns = np.zeros((0, 0), dtype=np.int64)
        self._newest = np.zeros((0, 0))

    def gpu(self, gpu: str) -> int:
        """The number of a GPU."""
        number = self._gpus.setdefault(gpu, len(self._ids))
        if number == len(self._ids):
            self._ids.append(gpu)
        return number

    def ids(self, gpus: Iterable[int]) -> frozenset[str]:
        """The ids of GPUs."""
        return frozenset(self._ids[gpu] for gpu in gpus)

    def each_id(self, gpus: Ints) -> list[str]:
        """The id of each of some GPUs."""
        return [self._ids[gpu] for gpu in gpus.tolist()]

    def tables(self, blocks: Sequence[PointBlock]) -> Iterator[_PointRows]:
        """The points of blocks, those with the same metrics together. Raises ValueError for what no store takes."""
        by_names: dict[tuple[str, ...], list[PointBlock]] = {}
        for block in blocks:
            if block.points:
                by_names.setdefault(tuple(block.metric_names), []).append(block)
        for names, alike in by_names.items():
            points = self._table(names, alike)
            if len(points.times):
                yield points

    def _table(self, names: tuple[str, ...], blocks: Sequence[PointBlock]) -> _PointRows:
        values = np.concatenate([block.arrays.values for block in blocks])
        times = np.concatenate([block.arrays.time_ns for block in blocks])
        sources = np.concatenate(
            [np.array([self._source(gpu) for gpu in block.gpus], dtype=np.int64)[block.arrays.gpu] for block in blocks]
        )
        columns = [self._column(name) for name in names]
        self._grow()
        values[np.isinf(values)] = np.nan
        for place, column in enumerate(columns):  # of a name that a block has twice, the later value stays
            if column in columns[:place]:
                first = columns.index(column)
                values[:, first] = np.where(np.isnan(values[:, place]), values[:, first], values[:, place])
        kept = [place for place, column in enumerate(columns) if column >= 0 and column not in columns[:place]]
        if len(kept) < len(columns):
            values = values[:, kept]
        there = sources >= 0
        absent = np.isnan(values)
        if absent.any():
            there &= ~absent.all(axis=1)
        if not there.all():
            sources, times, values = sources[there], times[there], values[there]
        gpus = self._gpu_of[sources]
        order = in_order(gpus, times)
        kept_columns = np.array([columns[place] for place in kept], dtype=np.int64)
        return _PointRows(kept_columns, sources, gpus, times, values).only(order)

    def late(self, start_ns: int, points: _PointRows) -> Ints:
        """The rows of those points of a minute that may not be newer than what there is of their GPUs."""
        starts = np.flatnonzero(starts_run(points.gpus))
        gpus, first = points.gpus[starts], points.times[starts]
        suspects = np.flatnonzero(first <= self.latest[gpus])
        if len(suspects):
            # Other metrics of the GPU may be newer by seconds, as in a capture, where each has rows of its own: no harm.
            own = self._newest_ns[np.ix_(gpus[suspects], points.columns)].max(axis=1, initial=NEVER_NS)
            is_late = (first[suspects] <= own) | (self.latest[gpus[suspects]] >= start_ns + _MINUTE)
            suspects = suspects[is_late]
        if not len(suspects):
            return suspects
        of_run = np.zeros(len(starts), dtype=np.bool_)
        of_run[suspects] = True
        mine = np.repeat(of_run, np.diff(np.append(starts, len(points.gpus))))
        return np.flatnonzero(mine & (points.times <= self.latest[points.gpus]))

    def newest_of(self, points: _PointRows) -> tuple[Ints, Floats]:
        """Time and value of the newest reading of each GPU and metric of some points."""
        cells = np.ix_(points.gpus, points.columns)
        return self._newest_ns[cells], self._newest[cells]

    def counts(self, gpus: Ints) -> Floats:
        """The newest value of each counter (column) of some GPUs (rows); NaN where it is not known."""
        cells = np.ix_(gpus, np.array(self.counters, dtype=np.int64))
        return np.where(self._newest_ns[cells] >= self._since_ns, self._newest[cells], np.nan)

    def remember(self, points: _PointRows) -> None:
        """These readings are the newest of their GPUs and metrics."""
        starts = np.flatnonzero(starts_run(points.gpus))
        if not len(starts):
            return
        gpus, ends = points.gpus[starts], np.append(starts[1:], len(points.gpus)) - 1
        cells = np.ix_(gpus, points.columns)
        present = ~np.isnan(points.values)
        if present.all():
            self._newest[cells] = points.values[ends]
            self._newest_ns[cells] = points.times[ends][:, np.newaxis]
        else:
            rows = np.where(present, np.arange(len(present))[:, np.newaxis], -1)
            last = np.maximum.reduceat(rows, starts, axis=0)
            values = points.values[last, np.arange(len(points.columns))]
            self._newest[cells] = np.where(last >= 0, values, self._newest[cells])
            self._newest_ns[cells] = np.where(last >= 0, points.times[last], self._newest_ns[cells])
        is_newest = points.times[ends] >= self.latest[gpus]
        self.latest[gpus[is_newest]] = points.times[ends][is_newest]
        self.source_of[gpus[is_newest]] = points.sources[ends][is_newest]

    def forget(self, gpu: int) -> None:
        """What the next readings of a GPU count from is not known. What is not newer than its newest readings stays late."""
        if gpu < len(self.latest):
            self._newest[gpu] = np.nan

    def _source(self, gpu: Gpu) -> int:
        """The number of a source; -1 for shares, and for text that no store takes."""
        if gpu.share:
            return -1
        key = (gpu.uuid, gpu.mig_id, gpu.hostname, gpu.model_name)
        number = self._sources.get(key)
        if number is None:
            number = len(self.sources) if all(map(_is_unicode, key)) else -1
            if number < 0:
                return number
            self._sources[key] = number
            self.sources.append(ReadingSource(*key))
            self._new_sources.append(self.gpu(gpu.id))
        return number

    def _column(self, name: str) -> int:
        """The number of a metric; -1 for text that no store takes."""
        number = self._columns.get(name)
        if number is None:
            if not _is_unicode(name):
                return -1
            number = self._columns[name] = len(self.names)
            self.names.append(name)
            if is_counter(name):
                self.counters.append(number)
        return number

    def _grow(self) -> None:
        """Make room for what has a number now."""
        if self._new_sources:
            self._gpu_of = np.append(self._gpu_of, np.array(self._new_sources, dtype=np.int64))
            self._new_sources.clear()
        missing = len(self._ids) - len(self.latest)
        self.latest = np.append(self.latest, np.full(missing, NEVER_NS))
        self.source_of = np.append(self.source_of, np.full(missing, -1))
        more = ((0, missing), (0, len(self.names) - self._newest.shape[1]))
        if missing or more[1][1]:
            self._newest = np.pad(self._newest, more, constant_values=np.nan)
            self._newest_ns = np.pad(self._newest_ns, more, constant_values=NEVER_NS)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(slots=True)
class _Minute:
    """What came of one minute."""

    start_ns: int
    version: int = 0
    # How many points came.
    count: int = 0
    # What is not in ``partials`` yet; the GPUs that it has; and the newest value of their counters before it.
    waiting: list[_PointRows] = field(default_factory=list)
    cells: int = 0
    there: Mask = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    before: list[tuple[Ints, Floats]] = field(default_factory=list)
    partials: SourcePartials | None = None
    # GPUs for which this is not what the store has, and those that were read from there.
    doubtful: set[int] = field(default_factory=set)
    settled_gpus: set[int] = field(default_factory=set)
    settled: SourcePartials | None = None

    def add(self, points: _PointRows, known: _NewestReadings) -> None:
        """Add points that are newer than what there is of their GPUs and metrics."""
        self.version += 1
        self.count += len(points.times)
        self.waiting.append(points)
        gpus = points.gpus[starts_run(points.gpus)]
        self.there = np.append(self.there, np.zeros(max(0, len(known.latest) - len(self.there)), dtype=np.bool_))
        new = gpus[~self.there[gpus]]
        if len(new):
            self.there[new] = True
            self.before.append((new, known.counts(new)))
        if self.settled_gpus:
            self.doubtful.update(self.settled_gpus.intersection(gpus.tolist()))
        self.cells += points.values.size
        if self.cells > _WAITING:
            self._add_up(known)

    def result(self, known: _NewestReadings) -> tuple[SourcePartials, set[int]]:
        """The partials of the GPUs that are not doubtful, and those that are."""
        self._add_up(known)
        partials = self.partials or SourcePartials.empty(self.start_ns, self.start_ns + _MINUTE)
        partials = partials.without(known.ids(self.settled_gpus))
        counters = [column for column, name in enumerate(partials.names) if is_counter(name)]
        # A counter's first reading counts from one that may be in the store.
        unknown = (partials.count[:, counters] > partials.steps[:, counters]).any(axis=1)
        doubtful = self.doubtful | {known.gpu(partials.sources[row].gpu) for row in np.flatnonzero(unknown).tolist()}
        ids = known.ids(doubtful)
        partials = partials.without(ids)
        return partials if self.settled is None else together([partials, self.settled.without(ids)]), doubtful

    def _add_up(self, known: _NewestReadings) -> None:
        if not self.waiting:
            return
        readings = self._readings(known)
        before: dict[str, dict[str, float]] = {}
        for place, column in enumerate(known.counters):
            of_counter = before.setdefault(known.names[column], {})
            for gpus, values in self.before:
                if place < values.shape[1]:
                    there = ~np.isnan(values[:, place])
                    of_counter.update(zip(known.each_id(gpus[there]), values[there, place].tolist(), strict=True))
        part = SourcePartials.of(self.start_ns, self.start_ns + _MINUTE, readings, before)
        self.partials = part if self.partials is None else self.partials.merge_later(part)
        self.waiting, self.before, self.cells = [], [], 0
        self.there[:] = False

    def _readings(self, known: _NewestReadings) -> dict[str, list[ReadingArrays]]:
        """What waits, by metric."""
        alike: dict[tuple[int, ...], list[_PointRows]] = {}
        for points in self.waiting:
            alike.setdefault(tuple(points.columns.tolist()), []).append(points)
        tables = [
            _PointRows(parts[0].columns, *map(np.concatenate, list(zip(*parts, strict=True))[1:]))
            for parts in alike.values()
        ]
        if len(set(chain.from_iterable(alike))) < sum(map(len, alike)):  # some have a metric in common
            tables = [_under_one(tables)]
        used, places = numbered(np.concatenate([points.sources for points in tables]))
        sources = [known.sources[number] for number in used.tolist()]
        readings, at = {}, 0
        for points in tables:
            of, at = places[at : at + len(points.times)], at + len(points.times)
            order = in_order(of, points.times)
            of, times, values = of[order], points.times[order], np.ascontiguousarray(points.values[order].T)
            for column, mine in zip(points.columns.tolist(), values, strict=True):
                arrays = ReadingArrays(sources, of, times, mine)
                there = ~np.isnan(mine)
                readings[known.names[column]] = [arrays if there.all() else arrays.only(there)]
        return readings


def _under_one(tables: Sequence[_PointRows]) -> _PointRows:
    """One table with the metrics of all."""
    columns, places = numbered(np.concatenate([points.columns for points in tables]))
    sources, gpus, times = (np.concatenate(each) for each in list(zip(*tables, strict=True))[1:4])
    values = np.full((len(times), len(columns)), np.nan)
    row = at = 0
    for points in tables:
        high, width = row + len(points.times), len(points.columns)
        values[row:high, places[at : at + width]] = points.values
        row, at = high, at + width
    return _PointRows(columns, sources, gpus, times, values)


@dataclass(slots=True)
class _Hour:
    """The minutes of an hour that were let go."""

    partials: SourcePartials | None = None
    doubtful: set[int] = field(default_factory=set)
