"""The figures of the hours that are still open, cell by cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from health.usage.packing import FIGURES, Ints
from health.usage.spans import changes

# Unit, place and holder, by their numbers.
Cell = tuple[int, int, int]


class HourBook:
    """The cells of one hour."""

    def __init__(self) -> None:
        self.cells: dict[Cell, int] = {}
        self._figures = np.zeros((FIGURES, 16), np.int64)

    def add(self, cells: list[Cell], figures: Ints) -> None:
        """Add to these cells, each of which is there once."""
        at_of = self.cells
        at = np.array([at_of.setdefault(cell, len(at_of)) for cell in cells], np.int64)
        have = self._figures.shape[1]
        if len(at_of) > have:
            grown = np.zeros((FIGURES, max(2 * have, len(at_of))), np.int64)
            grown[:, :have] = self._figures
            self._figures = grown
        self._figures[:, at] += figures

    @property
    def keys(self) -> Ints:
        """The cells as an array, cells x 3."""
        return np.array(list(self.cells), np.int64).reshape(-1, 3)

    @property
    def figures(self) -> Ints:
        """The figures of the cells, in the same order."""
        return self._figures[:, : len(self.cells)]


class HourBooks:
    """The open hours, by their number since 1970."""

    def __init__(self) -> None:
        self._books: dict[int, HourBook] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._books))

    def __getitem__(self, hour: int) -> HourBook:
        return self._books[hour]

    def pop(self, hour: int) -> HourBook:
        """Take an hour out."""
        return self._books.pop(hour)

    def add(self, hour: Ints, unit: Ints, place: Ints, holder: Ints, figures: Ints) -> None:
        """Add figures (Figure x pieces) to the cells of their hours."""
        if not len(hour):
            return
        order = np.lexsort((holder, place, unit, hour))
        hour, unit, place, holder = hour[order], unit[order], place[order], holder[order]
        starts = np.flatnonzero(changes(hour) | changes(unit) | changes(place) | changes(holder))
        sums = np.add.reduceat(figures[:, order], starts, axis=1)
        hour = hour[starts]
        cells = list(zip(unit[starts].tolist(), place[starts].tolist(), holder[starts].tolist(), strict=True))
        for begin, end in itertools.pairwise([*np.flatnonzero(changes(hour)).tolist(), len(hour)]):
            self._books.setdefault(int(hour[begin]), HourBook()).add(cells[begin:end], sums[:, begin:end])

    def renumber_holders(self, new: Ints) -> None:
        """Holder ``h`` is ``new[h]`` from now on."""
        for book in self._books.values():
            book.cells = {(unit, place, int(new[holder])): at for (unit, place, holder), at in book.cells.items()}

    def renumber_places(self, new: Ints) -> None:
        """Place ``p`` is ``new[p]`` from now on."""
        for book in self._books.values():
            book.cells = {(unit, int(new[place]), holder): at for (unit, place, holder), at in book.cells.items()}

    def state(self) -> list[tuple[int, bytes, bytes]]:
        """Everything, for ``restore``."""
        return [(hour, self[hour].keys.tobytes(), self[hour].figures.tobytes()) for hour in self]

    def restore(self, state: list[tuple[int, bytes, bytes]]) -> None:
        """Take over what ``state`` gave. Raises ValueError for anything else."""
        for hour, keys, figures in state:
            cells = np.frombuffer(keys, np.int64).reshape(-1, 3).tolist()
            book = self._books[hour] = HourBook()
            book.add(
                [(unit, place, holder) for unit, place, holder in cells],
                np.frombuffer(figures, np.int64).reshape(FIGURES, -1),
            )
