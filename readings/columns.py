"""Readings as columns of numbers, without an object per reading, and the table of points that they make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from readings.model import Gpu, Reading
from readings.times import INT64_MAX

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Points are grouped by their metrics only where there are few combinations of metrics. A gap takes 5 bytes of a batch, a GPU
# some 400.
_MOST_KINDS = 16
_MOST_BITS = 62
_GAPS_PER_GPU = 80


class SeriesIndex(NamedTuple):
    """The series (GPU id, metric name) of some readings.

    ``counts`` has the number of readings of each series. Per reading, ``code`` is its series and ``before`` the number of
    earlier readings of that series.
    """

    ids: list[tuple[str, str]]
    code: Ints
    counts: Ints
    before: Ints

    def numbered(self, begin: Sequence[int]) -> Ints:
        """A number for each reading: each series counts up from its own ``begin``."""
        return cast(Ints, np.array(begin, np.int64)[self.code] + self.before)


class Columns(NamedTuple):
    """Readings as parallel arrays: an index into ``gpus``, an index into ``names``, the time in ns, the (finite) value."""

    gpus: list[Gpu]
    names: list[str]
    gpu: Ints
    name: Ints
    time_ns: Ints
    value: Floats

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> Columns:
        """Columns of these readings. Each Gpu object gets one entry in ``gpus``."""
        gpus: dict[int, int] = {}
        names: dict[str, int] = {}
        objects: list[Gpu] = []
        gpu_codes, name_codes = [], []
        for gpu, name, _, _ in readings:
            code = gpus.get(id(gpu))
            if code is None:
                code = gpus[id(gpu)] = len(objects)
                objects.append(gpu)
            gpu_codes.append(code)
            name_codes.append(names.setdefault(name, len(names)))
        return cls(
            objects,
            list(names),
            np.array(gpu_codes, np.int64),
            np.array(name_codes, np.int64),
            np.array([reading[2] for reading in readings], np.int64),
            np.array([reading[3] for reading in readings], np.float64),
        )

    @property
    def size(self) -> int:
        """The number of readings."""
        return len(self.value)

    def where(self, rows: Mask | Ints) -> Columns:
        """The readings that a mask selects, or those at these places, in this order."""
        return self._replace(
            gpu=self.gpu[rows], name=self.name[rows], time_ns=self.time_ns[rows], value=self.value[rows]
        )

    def shifted(self, shift_ns: int) -> Columns:
        """The readings with ``shift_ns`` added to their times, capped at 64 bits."""
        time_ns = np.minimum(self.time_ns, INT64_MAX - max(shift_ns, 0)) + shift_ns
        return self._replace(time_ns=time_ns)

    def series(self) -> SeriesIndex:
        """The series of the readings."""
        numbers: dict[str, int] = {}
        gpu = np.array([numbers.setdefault(each.id, len(numbers)) for each in self.gpus], np.int64)[self.gpu]
        pairs, code, count = np.unique(gpu * len(self.names) + self.name, return_inverse=True, return_counts=True)
        order = np.argsort(code, kind="stable")
        before = np.empty(len(order), np.int64)
        before[order] = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
        ids, names = list(numbers), self.names
        return SeriesIndex(
            [(ids[each // len(names)], names[each % len(names)]) for each in pairs.tolist()], code, count, before
        )

    def used_gpus(self) -> list[int]:
        """The places in ``gpus`` that have readings."""
        return np.flatnonzero(np.bincount(self.gpu, minlength=len(self.gpus))).tolist()

    def regrouped(self, gpus: list[Gpu], codes: dict[int, int]) -> Columns:
        """The same readings under other ``gpus``; ``codes`` maps each place in the old list to one in the new."""
        code = np.zeros(len(self.gpus), np.int64)
        code[list(codes)] = list(codes.values())
        return self._replace(gpus=gpus, gpu=code[self.gpu])

    def of_mixed_points(self, rank: Sequence[int]) -> Mask:
        """Which readings belong to a point whose readings differ in their entry in ``gpus``.

        Entries with the same ``rank`` describe the same GPU.
        """
        order, starts = _by_point(np.array(rank, np.int64)[self.gpu], self.time_ns)
        gpu = self.gpu[order]
        is_mixed = np.minimum.reduceat(gpu, starts) != np.maximum.reduceat(gpu, starts)
        mask = np.empty(self.size, bool)
        mask[order] = np.repeat(is_mixed, np.diff(starts, append=self.size))
        return mask

    def readings(self) -> Iterator[Reading]:
        """The readings one by one."""
        gpus, names = self.gpus, self.names
        codes = zip(self.gpu.tolist(), self.name.tolist(), self.time_ns.tolist(), self.value.tolist(), strict=True)
        for gpu, name, time_ns, value in codes:
            yield gpus[gpu], names[name], time_ns, value


def join(parts: Sequence[Columns]) -> Columns:
    """All parts as one, in order."""
    gpus: list[Gpu] = []
    names: dict[str, int] = {}
    gpu_codes, name_codes = [], []
    for part in parts:
        gpu_codes.append(part.gpu + len(gpus))
        gpus += part.gpus
        codes = np.array([names.setdefault(name, len(names)) for name in part.names], np.int64)
        name_codes.append(codes[part.name])
    return Columns(
        gpus,
        list(names),
        np.concatenate(gpu_codes),
        np.concatenate(name_codes),
        np.concatenate([part.time_ns for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


def _by_point(rank: Ints, time_ns: Ints) -> tuple[Ints, Ints]:
    """The order of readings by rank and time, and where in this order each point starts."""
    order = np.lexsort((time_ns, rank))
    rank, time_ns = rank[order], time_ns[order]
    is_start = np.ones(len(order), bool)
    is_start[1:] = (rank[1:] != rank[:-1]) | (time_ns[1:] != time_ns[:-1])
    return order, np.flatnonzero(is_start)


class PointTable(NamedTuple):
    """Points in order, each with a cell per name. ``gpu`` and ``time_ns`` have one entry per point."""

    gpus: list[Gpu]
    names: list[str]
    gpu: Ints
    time_ns: Ints
    cells: Floats
    present: Mask

    @classmethod
    def of(cls, columns: Columns, rank: Sequence[int], most_cells: int) -> PointTable | None:
        """The readings as points, by the rank of their GPU and by time; None where that takes more than ``most_cells``.

        No point may be mixed (see ``Columns.of_mixed_points``). Of a reading that occurs twice the later one stays.
        """
        order, starts = _by_point(np.array(rank, np.int64)[columns.gpu], columns.time_ns)
        shape = (len(starts), len(columns.names))
        if shape[0] * shape[1] > most_cells:
            return None
        cells = np.zeros(shape)
        present = np.zeros(shape, bool)
        point = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
        name = columns.name[order]
        cells[point, name] = columns.value[order]
        present[point, name] = True
        firsts = order[starts]
        return cls(columns.gpus, columns.names, columns.gpu[firsts], columns.time_ns[firsts], cells, present)

    def largest_point(self) -> int:
        """The most readings that a point has."""
        return int(self.present.sum(axis=1).max())

    def by_metrics(self) -> Iterator[PointTable]:
        """One table for each combination of metrics, where that saves more gaps than it repeats GPUs; else the whole table.

        Exporters read a GPU's metrics over some seconds, so captures have many points with a few metrics each.
        """
        if len(self.names) > _MOST_BITS:
            yield self
            return
        kinds, kind = np.unique(self.present @ (1 << np.arange(len(self.names))), return_inverse=True)
        members = [np.flatnonzero(kind == each) for each in range(len(kinds))] if len(kinds) <= _MOST_KINDS else []
        gaps = self.present.size - int(np.count_nonzero(self.present))
        # Each combination repeats its GPUs, and ends with a batch that is not full.
        repeated = sum(_distinct(self.gpu[rows]) for rows in members) - _distinct(self.gpu) + len(members)
        if len(members) < 2 or repeated * _GAPS_PER_GPU >= gaps:
            yield self
            return
        for rows in members:
            has = self.present[rows[0]]
            names = [name for name, here in zip(self.names, has.tolist(), strict=True) if here]
            cells, present = self.cells[rows][:, has], self.present[rows][:, has]
            yield PointTable(self.gpus, names, self.gpu[rows], self.time_ns[rows], cells, present)

    def runs(self) -> Ints:
        """The number of each point's run of points with one GPU, from 0."""
        return cast(Ints, np.cumsum(np.diff(self.gpu, prepend=self.gpu[:1]) != 0))

    def used_names(self, start: int, end: int) -> list[int]:
        """The places in ``names`` that have readings in points ``start`` to ``end``."""
        return np.flatnonzero(self.present[start:end].any(axis=0)).tolist()

    def rows(self) -> list[list[float | None]]:
        """The cells as lists; None where there is no reading."""
        if self.present.all():
            return cast("list[list[float | None]]", self.cells.tolist())
        boxed = self.cells.astype(object)
        boxed[~self.present] = None
        return cast("list[list[float | None]]", boxed.tolist())


def _distinct(numbers: Ints) -> int:
    return len(np.unique(numbers))
