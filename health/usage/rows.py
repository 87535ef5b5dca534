"""The rows of an answer about usage, and how cells add up to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from health.usage.packing import FIGURES, Figure, Ints

# A sum of times in ns may not fit 64 bits, so it is taken in two halves of this many bits.
_HALF = 32
_LARGEST = 1 << 63


class Whose(IntEnum):
    """Whose time it is."""

    HELD = 0
    FREE = 1
    GAP = 2


_NOTHING = (0,) * FIGURES


@dataclass(slots=True)
class UsageRow:
    """One group, in one day or in the whole range. Times in ns, energies in mJ, exact.

    ``group`` has the names it was grouped by. ``held``, ``free`` and ``gap`` are Figure by Figure. ``coverage`` is the share of the time that
    is known: for namespaces and pods, that of the GPUs they held, weighted by the time held. ``priced`` is the held and the idle time by
    model, where there are prices.
    """

    group: tuple[str, ...]
    day_ns: int | None = None
    gpus: int = 0
    held: Sequence[int] = _NOTHING
    free: Sequence[int] = _NOTHING
    gap: Sequence[int] = _NOTHING
    unknown_ns: int = 0
    coverage: float | None = None
    priced: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def known_ns(self) -> int:
        """Held and free."""
        return self.held[Figure.KNOWN] + self.free[Figure.KNOWN]

    @property
    def total_ns(self) -> int:
        """All the time of its GPUs."""
        return self.known_ns + self.unknown_ns

    @property
    def energy_mj(self) -> int:
        """Of all its time, also of gaps."""
        return sum(
            figures[Figure.COUNTED_MJ] + figures[Figure.ESTIMATED_MJ] for figures in (self.held, self.free, self.gap)
        )

    @property
    def energy_known_ns(self) -> int:
        """The time for which the energy is known."""
        return sum(figures[Figure.ENERGY_KNOWN] for figures in (self.held, self.free, self.gap))

    @property
    def estimated_mj(self) -> int:
        """What of the energy is an estimate."""
        return sum(figures[Figure.ESTIMATED_MJ] for figures in (self.held, self.free, self.gap))

    @property
    def power_utilisation(self) -> float | None:
        """Mean power through mean limit, where both are known."""
        limit = self.held[Figure.LIMIT_MJ] + self.free[Figure.LIMIT_MJ]
        return (self.held[Figure.DRAWN_MJ] + self.free[Figure.DRAWN_MJ]) / limit if limit else None


class RowSums:
    """The rows in the making, by group and day."""

    def __init__(self, names: list[tuple[str, ...]], days: int) -> None:
        self._names = names
        self._days = max(days, 1)
        self._rows: dict[int, UsageRow] = {}

    def _row(self, key: int) -> UsageRow:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = UsageRow(self._names[key // self._days])
        return row

    def add_cells(self, group: Ints, day: Ints, owner: Ints, figures: Ints) -> None:
        """Add up the figures of cells."""
        for (key, whose), sums in _summed([group * self._days + day, owner], figures):
            row = self._row(key)
            if whose == Whose.HELD:
                row.held = sums
            elif whose == Whose.FREE:
                row.free = sums
            else:
                row.gap = sums

    def add_unknown(self, group: Ints, day: Ints, unknown: Ints) -> None:
        """Add up unknown time."""
        for (key,), (sums,) in _summed([group * self._days + day], unknown[None, :]):
            self._row(key).unknown_ns = sums

    def count_gpus(self, group: Ints, day: Ints, gpu: Ints) -> None:
        """Count the different GPUs of each row."""
        if not len(gpu):
            return
        gpus = int(gpu.max()) + 1
        pairs = np.unique((group * self._days + day) * gpus + gpu)
        keys, counts = np.unique(pairs // gpus, return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            self._row(key).gpus = count

    def weigh(self, group: Ints, day: Ints, owner: Ints, length: Ints, covered: NDArray[np.float64]) -> None:
        """Set the coverage of what holders held."""
        held = owner == Whose.HELD
        key, length = (group * self._days + day)[held], length[held]
        keys, at = np.unique(key, return_inverse=True)
        known = np.bincount(at, weights=length * covered[held])
        whole = np.bincount(at, weights=length)
        for row_key, part, of in zip(keys.tolist(), known.tolist(), whole.tolist(), strict=True):
            self._row(row_key).coverage = min(part / of, 1.0) if of else None

    def price(self, group: Ints, day: Ints, owner: Ints, figures: Ints, models: tuple[tuple[str, ...], Ints]) -> None:
        """Keep what was held and idle of each model, for prices."""
        names, model = models
        held = owner == Whose.HELD
        columns = figures[[Figure.KNOWN, Figure.IDLE]][:, held]
        for (key, number), (known, idle) in _summed([(group * self._days + day)[held], model[held]], columns):
            self._row(key).priced[names[number]] = known, idle

    def all(self, of_holders: bool) -> list[tuple[int, UsageRow]]:
        """Every row with its day: groups with the most idle time first, then the most held time, days in order."""
        rank: dict[int, tuple[int, int]] = {}
        for key, row in self._rows.items():
            idle, held = rank.get(key // self._days, (0, 0))
            rank[key // self._days] = idle - row.held[Figure.IDLE], held - row.held[Figure.KNOWN]
            if row.coverage is None and not (of_holders and row.held[Figure.KNOWN]):
                row.coverage = row.known_ns / row.total_ns if row.total_ns else None
        order = sorted(
            self._rows, key=lambda key: (*rank[key // self._days], self._names[key // self._days], key % self._days)
        )
        return [(key % self._days, self._rows[key]) for key in order]


def _summed(keys: Sequence[Ints], figures: Ints) -> Iterable[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The sums of the columns that have the same keys, as whole numbers of any size."""
    if not len(keys[0]):
        return []
    code = keys[0]
    for key in keys[1:]:
        code = code * (int(key.max()) + 1) + key
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(is_new)
    longest = int(np.diff(np.append(starts, len(order))).max())
    columns: list[list[int]] = []
    for row in figures:
        taken = row[order]
        if int(taken.max()) * longest < _LARGEST:
            columns.append(np.add.reduceat(taken, starts).tolist())
            continue
        # In two halves, because the time of 300 GPU-years in ns does not fit 64 bits.
        high = np.add.reduceat(taken >> _HALF, starts).tolist()
        low = np.add.reduceat(taken & ((1 << _HALF) - 1), starts).tolist()
        columns.append([(above << _HALF) + below for above, below in zip(high, low, strict=True)])
    firsts = order[starts]
    return zip(zip(*(key[firsts].tolist() for key in keys), strict=True), zip(*columns, strict=True), strict=True)


def sum_exactly(values: Ints) -> int:
    """The sum as a whole number of any size. No value is below 0."""
    return (int((values >> _HALF).sum()) << _HALF) + int((values & ((1 << _HALF) - 1)).sum())
