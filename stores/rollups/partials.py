"""Partial aggregates of each source (a GPU or MIG instance on one host) in one window: what all levels of a roll-up are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from readings.catalogue import is_counter
from stores.aggregate.arrays import ReadingArrays, ReadingSource
from stores.aggregate.functions import Floats, Ints, in_order, increases, starts_run

NEVER_NS = int(np.iinfo(np.int64).min)
# What an array holds where a source has no reading of a metric.
_NOTHING: dict[str, float] = {
    "count": 0, "total": 0, "low": np.nan, "high": np.nan, "last": np.nan, "last_ns": NEVER_NS,
    "steps": 0, "increase": 0, "carried": np.nan,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourcePartials:
    """The readings of [begins_ns, ends_ns), by source (row) and metric (column).

    ``count``, ``total``, ``low`` and ``high`` are of the readings; ``last`` and ``last_ns`` are the newest one and its time. Of
    counters, ``steps`` is how many readings have a reading of the same GPU before them, on any host and also before the window;
    ``increase`` is how much they grew in these steps. ``carried`` is the part of it that came with the GPU's first reading in
    the window. Without a reading: count, total, steps and increase are 0, last_ns is NEVER_NS and the others are NaN, as is
    ``carried`` of all sources but one of each GPU.
    """

    begins_ns: int
    ends_ns: int
    sources: Sequence[ReadingSource]
    names: Sequence[str]
    count: Floats
    total: Floats
    low: Floats
    high: Floats
    last: Floats
    last_ns: Ints
    steps: Floats
    increase: Floats
    carried: Floats

    @classmethod
    def of(
        cls,
        begins_ns: int,
        ends_ns: int,
        readings: Mapping[str, Iterable[ReadingArrays]],
        before: Mapping[str, Mapping[str, float]] | None = None,
    ) -> SourcePartials:
        """The partials of all readings of a window, which come by metric and in parts in order of time.

        ``before`` has the newest value before the window, by counter and GPU id.
        """
        sources, columns = _Sources(), []
        for name, parts in readings.items():
            columns.append(_MetricPartials(is_counter(name), sources, (before or {}).get(name, {})))
            for part in parts:
                columns[-1].add(part)
        made = cls.empty(begins_ns, ends_ns, list(sources.rows), list(readings))
        for place, column in enumerate(columns):
            for name, values in column.arrays.items():
                getattr(made, name)[: len(values), place] = values
        return made

    @classmethod
    def empty(
        cls, begins_ns: int, ends_ns: int, sources: Sequence[ReadingSource] = (), names: Sequence[str] = ()
    ) -> SourcePartials:
        """Partials without a reading."""
        shape = (len(sources), len(names))
        return cls(begins_ns, ends_ns, sources, names, **{name: _nothing(name, shape) for name in _NOTHING})

    def merge_later(self, later: SourcePartials) -> SourcePartials:
        """The partials of this part of a window and a later one, whose steps count from the readings of this part."""
        sources, names = self.sources, self.names
        if sources != later.sources or names != later.names:
            sources = list(dict.fromkeys((*sources, *later.sources)))
            names = list(dict.fromkeys((*names, *later.names)))
        one, other = self._spread(sources, names), later._spread(sources, names)
        gpus = gpu_numbers(one.sources)
        seen = np.zeros((int(gpus.max(initial=-1)) + 1, len(one.names)), dtype=np.bool_)
        np.logical_or.at(seen, gpus, one.count > 0)
        newer = other.last_ns >= one.last_ns
        return SourcePartials(
            self.begins_ns,
            later.ends_ns,
            one.sources,
            one.names,
            count=one.count + other.count,
            total=one.total + other.total,
            low=np.fmin(one.low, other.low),
            high=np.fmax(one.high, other.high),
            last=np.where(newer, other.last, one.last),
            last_ns=np.where(newer, other.last_ns, one.last_ns),
            steps=one.steps + other.steps,
            increase=one.increase + other.increase,
            carried=np.where(seen[gpus], one.carried, other.carried),
        )

    def of_gpus(self, gpus: Collection[str]) -> SourcePartials:
        """The sources of these GPUs, by their ids."""
        wanted = frozenset(gpus)
        return self._only([place for place, source in enumerate(self.sources) if source.gpu in wanted])

    def without(self, gpus: Collection[str]) -> SourcePartials:
        """The sources of all other GPUs."""
        unwanted = frozenset(gpus)
        if not unwanted:
            return self
        return self._only([place for place, source in enumerate(self.sources) if source.gpu not in unwanted])

    def _only(self, places: list[int]) -> SourcePartials:
        return SourcePartials(
            self.begins_ns,
            self.ends_ns,
            [self.sources[place] for place in places],
            self.names,
            **{name: getattr(self, name)[places] for name in _NOTHING},
        )

    def _spread(self, sources: Sequence[ReadingSource], names: Sequence[str]) -> SourcePartials:
        """The same partials with a row for each of these sources and a column for each of these metrics."""
        if sources is self.sources and names is self.names:
            return self
        made = SourcePartials.empty(self.begins_ns, self.ends_ns, sources, names)
        self._copy_to(made, {source: row for row, source in enumerate(sources)})
        return made

    def _copy_to(self, made: SourcePartials, rows: Mapping[ReadingSource, int]) -> None:
        columns = {name: column for column, name in enumerate(made.names)}
        cells = np.ix_([rows[source] for source in self.sources], [columns[name] for name in self.names])
        for name in _NOTHING:
            getattr(made, name)[cells] = getattr(self, name)


def together(parts: Sequence[SourcePartials]) -> SourcePartials:
    """The partials of one window in which each part has other GPUs. Raises ValueError for a source that two parts have."""
    rows: dict[ReadingSource, int] = {}
    for part in parts:
        for source in part.sources:
            rows.setdefault(source, len(rows))
    if len(rows) != sum(len(part.sources) for part in parts):
        raise ValueError("a source has two partials of one window")
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    made = SourcePartials.empty(parts[0].begins_ns, parts[0].ends_ns, list(rows), names)
    for part in parts:
        part._copy_to(made, rows)
    return made


class _Sources:
    """Numbers sources and GPUs in the order in which they come."""

    def __init__(self) -> None:
        self.rows: dict[ReadingSource, int] = {}
        self.gpus: list[str] = []
        self._numbers: dict[str, int] = {}
        self._last: tuple[Sequence[ReadingSource], Ints, Ints] | None = None

    def of(self, sources: Sequence[ReadingSource]) -> tuple[Ints, Ints]:
        """The row and the GPU of each source."""
        # The same list may come with each metric.
        if self._last is None or self._last[0] is not sources:
            rows, gpus = [], []
            for source in sources:
                rows.append(self.rows.setdefault(source, len(self.rows)))
                gpus.append(self._numbers.setdefault(source.gpu, len(self.gpus)))
                if gpus[-1] == len(self.gpus):
                    self.gpus.append(source.gpu)
            self._last = sources, np.array(rows, dtype=np.int64), np.array(gpus, dtype=np.int64)
        return self._last[1:]


class _MetricPartials:
    """One metric while its readings are added: for each aggregate an array over the sources that there are so far."""

    def __init__(self, counts_up: bool, sources: _Sources, before: Mapping[str, float]) -> None:
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self._counts_up = counts_up
        self._sources = sources
        self._before = before
        # By GPU: the newest value so far, and whether there was a reading.
        self._newest: dict[int, float] = {}
        self._seen = np.zeros(0, dtype=np.bool_)

    def add(self, part: ReadingArrays) -> None:
        """Add readings that are later than all before."""
        if not len(part.times):
            return
        rows, gpus = self._sources.of(part.sources)
        places, size = rows[part.places], len(self._sources.rows)
        if not self.arrays:
            self.arrays = {name: _nothing(name, (size,)) for name in _NOTHING}
        elif len(self.arrays["count"]) < size:
            for name, values in self.arrays.items():
                self.arrays[name] = np.concatenate([values, _nothing(name, (size - len(values),))])
        arrays = self.arrays
        arrays["count"] += np.bincount(places, minlength=size)
        arrays["total"] += np.bincount(places, weights=part.values, minlength=size)
        np.fmin.at(arrays["low"], places, part.values)
        np.fmax.at(arrays["high"], places, part.values)
        latest = arrays["last_ns"]
        np.maximum.at(latest, places, part.times)
        is_last = part.times == latest[places]
        arrays["last"][places[is_last]] = part.values[is_last]
        if self._counts_up:
            self._add_steps(part, places, gpus[part.places])

    def _add_steps(self, part: ReadingArrays, places: Ints, gpus: Ints) -> None:
        ids = self._sources.gpus
        self._seen = np.append(self._seen, np.zeros(len(ids) - len(self._seen), dtype=np.bool_))
        order = in_order(gpus, part.times)
        firsts = order[starts_run(gpus[order])]
        firsts = firsts[~self._seen[gpus[firsts]]]
        for gpu in gpus[firsts].tolist():
            value = self._before.get(ids[gpu])
            if value is not None:
                self._newest[gpu] = value
        self._seen[gpus] = True
        chosen, grown = increases(gpus, part.times, part.values, self._newest)
        size = len(self._sources.rows)
        self.arrays["steps"] += np.bincount(places[chosen], minlength=size)
        self.arrays["increase"] += np.bincount(places[chosen], weights=grown, minlength=size)
        steps = np.full(len(places), np.nan)
        steps[chosen] = grown
        self.arrays["carried"][places[firsts]] = steps[firsts]


def gpu_numbers(sources: Sequence[ReadingSource]) -> Ints:
    """For each source a number, the same for all sources of one GPU."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(source.gpu, len(numbers)) for source in sources], dtype=np.int64)


def _nothing(name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    return np.full(shape, _NOTHING[name], dtype=np.int64 if name == "last_ns" else np.float64)
