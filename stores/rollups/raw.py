"""Partial aggregates of a window from the store's raw readings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from readings.catalogue import is_counter
from readings.times import SECOND
from stores.aggregate.arrays import ReadingArrays
from stores.aggregate.functions import Ints, starts_run
from stores.base import HostLookup, ReadingsQuery, Store
from stores.rollups.partials import SourcePartials, gpu_numbers

# Nearly all GPUs have a reading within this time, so it is looked at for all of them together.
NEAR_NS = 120 * SECOND
# So few GPUs are looked for one by one, and also those that are left when a look for all together found less than one in _RARE.
_FEW = 10
_RARE = 10
# More GPUs than this are not named in a question, which would be slow.
_NAMED = 50


def partials_from_raw(
    store: Store,
    start_ns: int,
    end_ns: int,
    *,
    gpus: Collection[str] = (),
    names: Sequence[str] | None = None,
    hosts: HostLookup | None = None,
) -> SourcePartials:
    """The partials of all readings in [start, end), or of those of some GPUs, by their ids. Raises StoreError.

    ``names`` are the metrics, None: all that the store has. Counters count from the newest reading before ``start_ns``, however old.
    ``hosts`` is as in ReadingsQuery. There is never more in memory than a part of Store.readings() and the result.
    """
    names = store.metric_names() if names is None else names
    readings: dict[str, Iterable[ReadingArrays]] = {}
    before: dict[str, dict[str, float]] = {}
    for name in names:
        readings[name] = store.readings(name, start_ns, end_ns, gpus=gpus, hosts=hosts)
        if is_counter(name):
            earlier = _Earlier(store, name, start_ns, gpus, hosts)
            readings[name], before[name] = earlier.known_for(readings[name]), earlier.values
    return SourcePartials.of(start_ns, end_ns, readings, before)


def windows_after(store: Store, partials: SourcePartials, step_ns: int, *, hosts: HostLookup | None = None) -> set[int]:
    """The starts of the windows of ``step_ns`` that hold the first reading of a GPU's counters after those of ``partials``.

    Their increase counts from readings of ``partials``, so it has changed if these have. Raises StoreError.
    """
    found: set[int] = set()
    near_ns = partials.ends_ns + NEAR_NS
    for column, name in enumerate(partials.names):
        missing = {partials.sources[row].gpu for row in np.flatnonzero(partials.count[:, column]).tolist()}
        if not is_counter(name) or not missing:
            continue
        for part in store.readings(name, partials.ends_ns, near_ns, gpus=missing, hosts=hosts):
            for gpu, time_ns, _ in _first_of_each(part):
                if gpu in missing:
                    missing.discard(gpu)
                    found.add(time_ns // step_ns * step_ns)
        query = ReadingsQuery(metric_names=(name,), start_ns=near_ns, newest_first=False, limit=1, hosts=hosts)
        if missing and len(store.page(query)):
            for gpu in missing:
                found.update(each // step_ns * step_ns for each in store.page(replace(query, gpus=(gpu,))).times)
    return found


class _Earlier:
    """The newest value of a counter before a window, by GPU id. ``values`` has what is known so far."""

    def __init__(self, store: Store, name: str, start_ns: int, gpus: Collection[str], hosts: HostLookup | None) -> None:
        self.values: dict[str, float] = {}
        self._store = store
        self._name = name
        self._gpus = gpus
        self._near_ns = start_ns - NEAR_NS
        self._query = ReadingsQuery(metric_names=(name,), limit=1, hosts=hosts)

    def known_for(self, parts: Iterable[ReadingArrays]) -> Iterator[ReadingArrays]:
        """The same parts. When one is given, the values of all its GPUs are known."""
        looked_for: set[str] = set()
        for part in parts:
            there = {part.sources[place].gpu for place in np.unique(part.places).tolist()}
            if not looked_for:
                self._look(self._near_ns, self._near_ns + NEAR_NS, self._gpus)
            self._find(there - looked_for - self.values.keys())
            looked_for |= there
            yield part

    def _find(self, missing: set[str]) -> None:
        """Look further back: for all together, as long as that finds many, and then for each."""
        before_ns = self._near_ns
        while len(missing) > _FEW:
            newest = self._newest(before_ns, () if len(self._gpus) > _NAMED else self._gpus)
            if newest is None:
                return
            # After the newest of all there is nothing to look at.
            count, before_ns = len(missing), newest[0] + 1 - NEAR_NS
            self._look(before_ns, newest[0] + 1, missing)
            missing -= self.values.keys()
            if (count - len(missing)) * _RARE < count:
                break
        for gpu in missing:
            newest = self._newest(before_ns, (gpu,))
            if newest is not None:
                self.values[gpu] = newest[1]

    def _newest(self, before_ns: int, gpus: Collection[str]) -> tuple[int, float] | None:
        """Time and value of the newest reading of these GPUs (none: all) before a time."""
        rows = self._store.page(replace(self._query, end_ns=before_ns, gpus=tuple(gpus)))
        return (rows.times[0], rows.values[0]) if len(rows) else None

    def _look(self, start_ns: int, end_ns: int, gpus: Collection[str]) -> None:
        found: dict[str, float] = {}
        for part in self._store.readings(self._name, start_ns, end_ns, gpus=gpus, hosts=self._query.hosts):
            found.update((gpu, value) for gpu, _, value in _last_of_each(part))
        for gpu, value in found.items():
            self.values.setdefault(gpu, value)


def _first_of_each(part: ReadingArrays) -> Iterator[tuple[str, int, float]]:
    """GPU, time and value of the first reading of each GPU."""
    return _one_of_each(part, part.times)


def _last_of_each(part: ReadingArrays) -> Iterator[tuple[str, int, float]]:
    """GPU, time and value of the last reading of each GPU."""
    return _one_of_each(part, ~part.times)  # ~ turns the order round without leaving 64 bits


def _one_of_each(part: ReadingArrays, ranks: Ints) -> Iterator[tuple[str, int, float]]:
    gpus = gpu_numbers(part.sources)[part.places]
    order = np.lexsort((ranks, gpus))
    chosen = order[starts_run(gpus[order])]
    names = [part.sources[place].gpu for place in part.places[chosen].tolist()]
    return zip(names, part.times[chosen].tolist(), part.values[chosen].tolist(), strict=True)
