"""Aggregates over a whole range of what has to be worked out of the readings themselves."""

from __future__ import annotations

import numpy as np

from stores.aggregates import PERCENTILES
from stores.columns import Floats, Ints

_VALUES_HELD = 1_000_000


class Ranks:
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
