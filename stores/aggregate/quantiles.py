"""The value of one rank among each group's readings, exactly, in memory that does not grow with the readings.

Each group's distinct values are counted. Where there are too many of them, neighbouring values share a count: the lowest
bits of the number are left out. Then the readings are passed again, to look into the one interval of each group that holds
the rank. Every pass narrows the intervals, so a few suffice.
"""

from __future__ import annotations

import numpy as np

from stores.aggregate.functions import PERCENTILES, Floats, Ints, starts_run
from stores.base import TooMuch

_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_MOST_SHIFT = 63  # what is left then is the sign


class GroupNewest:
    """The newest value of each group; of equally new ones the largest. One pass."""

    def __init__(self) -> None:
        self._newest: dict[int, tuple[int, float]] = {}
        self._count = 0

    def add(self, groups: Ints, times: Ints, values: Floats, count: int) -> None:
        """Add readings with their groups, of which there are ``count`` now."""
        self._count = max(self._count, count)
        order = np.lexsort((values, times, groups))
        last = np.roll(starts_run(groups[order]), -1)
        for place in order[last].tolist():
            candidate = (int(times[place]), float(values[place]))
            group = int(groups[place])
            self._newest[group] = max(self._newest.get(group, candidate), candidate)

    def end_pass(self) -> bool:
        """Whether every value is known."""
        return True

    def values(self) -> Floats:
        """The value of each group; NaN where there is no reading."""
        result = np.full(self._count, np.nan)
        for group, (_, value) in self._newest.items():
            result[group] = value
        return result


class GroupQuantiles:
    """The value of rank floor(n·percent/100 + 0.5) of each group's n readings.

    Add all readings, then call ``end_pass``. If that is false, add the same readings again. ``most`` is how many distinct
    values are counted at once. Raises TooMuch if there are more than half as many groups.
    """

    def __init__(self, aggregate: str, most: int) -> None:
        self._percent = PERCENTILES[aggregate]
        self._most = most
        self._first = True
        self._most_shift = _MOST_SHIFT
        # Of each group: the interval in which the value is, and the value's rank there.
        self._low = self._high = self._rank = np.zeros(0, dtype=np.int64)
        self._count = 0
        self._result = np.zeros(0)
        self._begin()

    def add(self, groups: Ints, times: Ints, values: Floats, count: int) -> None:
        """Add readings with their groups, of which there are ``count`` now. Their times do not matter."""
        self._count = max(self._count, count)
        keys = _sortable(values)
        if not self._first:
            # Readings that were written since the first pass may be of groups that it did not see.
            wanted = groups < len(self._low)
            groups, keys = groups[wanted], keys[wanted]
            wanted = (keys >= self._low[groups]) & (keys <= self._high[groups])
            groups, keys = groups[wanted], keys[wanted]
        self._pending.append((groups, keys >> self._shift))
        self._waiting += len(groups)
        if self._waiting > self._most:
            self._merge()

    def end_pass(self) -> bool:
        """Whether every value is known. If not, the readings have to be added once more."""
        self._merge()
        groups, bins, numbers = self._groups, self._bins, self._numbers
        starts = np.flatnonzero(starts_run(groups)) if len(groups) else np.zeros(0, dtype=np.int64)
        present = groups[starts]
        totals = np.add.reduceat(numbers, starts) if len(groups) else numbers
        if self._first:
            self._low = np.full(self._count, _LOWEST)
            self._high = np.full(self._count, _HIGHEST)
            self._rank = np.zeros(self._count, dtype=np.int64)
            self._rank[present] = np.maximum(np.floor(totals * self._percent / 100.0 + 0.5).astype(np.int64), 1)
            self._result = np.full(self._count, np.nan)
        within = np.cumsum(numbers) - np.repeat(np.cumsum(totals) - totals, np.diff([*starts, len(groups)]))
        ranks = np.minimum(self._rank[present], totals)  # retention may have dropped readings since the first pass
        reached = np.flatnonzero(within >= np.repeat(ranks, np.diff([*starts, len(groups)])))
        chosen = reached[starts_run(groups[reached])] if len(reached) else reached
        self._rank[present] = ranks - (within[chosen] - numbers[chosen])
        self._low[present] = bins[chosen] << self._shift
        self._high[present] = self._low[present] + ((1 << self._shift) - 1)
        settled = self._shift == 0
        self._most_shift = self._shift - 1
        self._result[present] = _values_of(self._low[present])
        self._first = False
        self._begin()
        return settled

    def values(self) -> Floats:
        """The value of each group; NaN where there is no reading."""
        return self._result

    def _begin(self) -> None:
        self._shift = 0
        self._groups = self._bins = self._numbers = np.zeros(0, dtype=np.int64)
        self._pending: list[tuple[Ints, Ints]] = []
        self._waiting = 0

    def _merge(self) -> None:
        if not self._pending:
            return
        groups = np.concatenate([self._groups, *(each for each, _ in self._pending)])
        bins = np.concatenate([self._bins, *(each for _, each in self._pending)])
        numbers = np.concatenate([self._numbers, np.ones(self._waiting, dtype=np.int64)])
        self._pending, self._waiting = [], 0
        order = np.lexsort((bins, groups))
        self._keep(groups[order], bins[order], numbers[order])
        while len(self._groups) > self._most:
            # Each pass must narrow the intervals.
            if self._shift == self._most_shift:
                raise TooMuch(
                    f"there are more than {self._most // 2:,} groups to compare: ask for fewer GPUs, or raise QUERY_MEMORY"
                )
            self._shift += 1
            self._keep(self._groups, self._bins >> 1, self._numbers)

    def _keep(self, groups: Ints, bins: Ints, numbers: Ints) -> None:
        """Counts equal rows together. They are in order."""
        starts = np.flatnonzero(starts_run(groups, bins))
        self._groups, self._bins = groups[starts], bins[starts]
        self._numbers = np.add.reduceat(numbers, starts) if len(starts) else numbers


def _sortable(values: Floats) -> Ints:
    """Whole numbers in the order of the values. There are no NaN, and -0.0 is 0.0."""
    bits = (values + 0.0).view(np.int64)
    return bits ^ ((bits >> 63) & _HIGHEST)


def _values_of(keys: Ints) -> Floats:
    """The values of ``_sortable`` numbers."""
    return (keys ^ ((keys >> 63) & _HIGHEST)).view(np.float64)
