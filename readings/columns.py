"""Readings as columns: what a columnar reader gives, and how it becomes blocks without an object per reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from readings.blocks import BlockBuilder, Reading, most_cells
from readings.model import Gpu, Point, PointBlock
from readings.times import INT64_MAX

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Points are put together by their metrics only where there are few combinations of them. A gap takes 5 bytes of a batch, a GPU
# some 400.
_MOST_KINDS = 16
_MOST_BITS = 62
_GAPS_PER_GPU = 80


class Series(NamedTuple):
    """The series (GPU id, metric name) of some readings, and of each how many there are (``counts``); for each reading which it is of (``code``),
    and how many of the same come before it."""

    ids: list[tuple[str, str]]
    code: Ints
    counts: Ints
    before: Ints

    def numbered(self, begin: Sequence[int]) -> Ints:
        """For each reading a number: those of a series count up from the one that is given for it."""
        return cast(Ints, np.array(begin, np.int64)[self.code] + self.before)


class Columns(NamedTuple):
    """Readings, one per place in the arrays: which of ``gpus``, which of ``names``, when (ns) and what (finite)."""

    gpus: list[Gpu]
    names: list[str]
    gpu: Ints
    name: Ints
    time_ns: Ints
    value: Floats

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> Columns:
        """The same readings as columns."""
        gpus: dict[int, int] = {}
        names: dict[str, int] = {}
        found: list[Gpu] = []
        gpu_codes, name_codes = [], []
        for gpu, name, _, _ in readings:
            code = gpus.get(id(gpu))
            if code is None:
                code = gpus[id(gpu)] = len(found)
                found.append(gpu)
            gpu_codes.append(code)
            name_codes.append(names.setdefault(name, len(names)))
        return cls(
            found,
            list(names),
            np.array(gpu_codes, np.int64),
            np.array(name_codes, np.int64),
            np.array([reading[2] for reading in readings], np.int64),
            np.array([reading[3] for reading in readings], np.float64),
        )

    @property
    def size(self) -> int:
        """How many."""
        return len(self.value)

    def where(self, mask: Mask) -> Columns:
        """Those readings for which the mask says yes."""
        return self._replace(
            gpu=self.gpu[mask], name=self.name[mask], time_ns=self.time_ns[mask], value=self.value[mask]
        )

    def shifted(self, shift_ns: int) -> Columns:
        """The readings that much later, none beyond 64 bits."""
        time_ns = np.minimum(self.time_ns, INT64_MAX - max(shift_ns, 0)) + shift_ns
        return self._replace(time_ns=time_ns)

    def series(self) -> Series:
        """Which series the readings are of."""
        numbers: dict[str, int] = {}
        gpu = np.array([numbers.setdefault(each.id, len(numbers)) for each in self.gpus], np.int64)[self.gpu]
        pairs, code, count = np.unique(gpu * len(self.names) + self.name, return_inverse=True, return_counts=True)
        order = np.argsort(code, kind="stable")
        before = np.empty(len(order), np.int64)
        before[order] = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
        ids, names = list(numbers), self.names
        return Series(
            [(ids[each // len(names)], names[each % len(names)]) for each in pairs.tolist()], code, count, before
        )

    def readings(self) -> Iterator[Reading]:
        """One by one."""
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
        name_codes.append(_recoded(part, names))
    return Columns(
        gpus,
        list(names),
        np.concatenate(gpu_codes),
        np.concatenate(name_codes),
        np.concatenate([part.time_ns for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


def _recoded(part: Columns, names: dict[str, int]) -> Ints:
    return np.array([names.setdefault(name, len(names)) for name in part.names], np.int64)[part.name]


def blocks(parts: Sequence[Columns], batch_size: int) -> Iterator[PointBlock]:
    """What BlockBuilder makes of the same readings, some ten times as fast where no GPU is shared or described twice."""
    parts = [part for part in parts if part.size]
    if not parts:
        return
    joined = _joined(parts)
    points = None if joined is None else _Points.of(joined)
    if points is None or not points.fit(batch_size):
        builder = BlockBuilder()
        for part in parts:
            for reading in part.readings():
                builder.add(*reading)
        yield from builder.blocks(batch_size)
        return
    for alike in points.alike():
        yield from alike.table().cut(batch_size)


def _joined(parts: Sequence[Columns]) -> Columns | None:
    """All parts as one; None where a GPU is described in two ways: its readings need a look one by one."""
    described: dict[str, Gpu] = {}
    gpus: dict[str, int] = {}
    names: dict[str, int] = {}
    gpu_codes, name_codes = [], []
    for part in parts:
        used = np.zeros(len(part.gpus), bool)
        used[part.gpu] = True
        codes = np.zeros(len(part.gpus), np.int64)
        for number, gpu in enumerate(part.gpus):
            if not used[number]:
                continue
            key = gpu.id
            known = described.setdefault(key, gpu)
            if gpu.share or (known is not gpu and known != gpu):
                return None
            codes[number] = gpus.setdefault(key, len(gpus))
        gpu_codes.append(codes[part.gpu])
        name_codes.append(_recoded(part, names))
    return Columns(
        list(described.values()),
        list(names),
        np.concatenate(gpu_codes),
        np.concatenate(name_codes),
        np.concatenate([part.time_ns for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


class _Points(NamedTuple):
    """Points in order, each with a cell per name."""

    gpus: list[Gpu]
    names: list[str]
    gpu: Ints
    time_ns: Ints
    cells: Floats
    present: Mask

    @classmethod
    def of(cls, columns: Columns) -> _Points | None:
        """The readings as points by GPU and time; None where the cells would be far more than the readings."""
        order = np.lexsort((columns.time_ns, columns.gpu))
        gpu, time_ns = columns.gpu[order], columns.time_ns[order]
        is_new = np.empty(len(order), bool)
        is_new[0] = True
        is_new[1:] = (gpu[1:] != gpu[:-1]) | (time_ns[1:] != time_ns[:-1])
        point = np.cumsum(is_new) - 1
        shape = (int(point[-1]) + 1, len(columns.names))
        if shape[0] * shape[1] > most_cells(len(order)):
            return None
        cells = np.zeros(shape)
        present = np.zeros(shape, bool)
        name = columns.name[order]
        cells[point, name] = columns.value[order]  # of the same reading given twice the later stays
        present[point, name] = True
        firsts = np.flatnonzero(is_new)
        return cls(columns.gpus, columns.names, gpu[firsts], time_ns[firsts], cells, present)

    def fit(self, batch_size: int) -> bool:
        """Whether every point is within a batch, and every batch within the bounds of a block."""
        return int(self.present.sum(axis=1).max()) <= batch_size and batch_size * len(self.names) <= most_cells(
            batch_size
        )

    def alike(self) -> Iterator[_Points]:
        """The points in groups that have the same metrics, where that leaves out more than it repeats; else all as they are.

        Exporters give a GPU's metrics over some seconds, so that captures have many points with a few metrics each.
        """
        if len(self.names) > _MOST_BITS:
            yield self
            return
        kinds, kind = np.unique(self.present @ (1 << np.arange(len(self.names))), return_inverse=True)
        members = [np.flatnonzero(kind == each) for each in range(len(kinds))] if len(kinds) <= _MOST_KINDS else []
        told = [np.unique(self.gpu[rows]) for rows in members]
        gaps = self.present.size - int(np.count_nonzero(self.present))
        again = sum(map(len, told)) - len(self.gpus) + len(members)  # each kind ends with a batch that is not full
        if len(members) < 2 or again * _GAPS_PER_GPU >= gaps:
            yield self
            return
        for rows, gpus in zip(members, told, strict=True):
            has = self.present[rows[0]]
            yield _Points(
                [self.gpus[each] for each in gpus.tolist()],
                [name for name, here in zip(self.names, has.tolist(), strict=True) if here],
                np.searchsorted(gpus, self.gpu[rows]),
                self.time_ns[rows],
                self.cells[rows][:, has],
                self.present[rows][:, has],
            )

    def table(self) -> _Table:
        """The same as lists."""
        if self.present.all():
            rows: list[list[float | None]] = cast("list[list[float | None]]", self.cells.tolist())
        else:
            boxed = self.cells.astype(object)
            boxed[~self.present] = None
            rows = boxed.tolist()
        held = np.cumsum(self.present.sum(axis=1))
        return _Table(self.gpus, self.names, self.gpu.tolist(), self.time_ns.tolist(), rows, self.present, held)


class _Table(NamedTuple):
    """Points in order as lists; ``held`` counts the readings up to and including each point."""

    gpus: list[Gpu]
    names: list[str]
    gpu: list[int]
    time_ns: list[int]
    rows: list[list[float | None]]
    present: Mask
    held: Ints

    def cut(self, batch_size: int) -> Iterator[PointBlock]:
        """Blocks of at most ``batch_size`` readings, with just the GPUs and names that they need."""
        start, before = 0, 0
        while start < len(self.rows):
            end = int(np.searchsorted(self.held, before + batch_size, "right"))
            yield self._block(start, end)
            start, before = end, int(self.held[end - 1])

    def _block(self, start: int, end: int) -> PointBlock:
        first, last = self.gpu[start], self.gpu[end - 1]
        names, rows = self.names, self.rows[start:end]
        used = self.present[start:end].any(axis=0)
        if not used.all():
            kept = np.flatnonzero(used).tolist()
            names = [names[column] for column in kept]
            rows = [[row[column] for column in kept] for row in rows]
        points: list[Point] = list(
            zip([gpu - first for gpu in self.gpu[start:end]], self.time_ns[start:end], rows, strict=True)
        )
        return PointBlock(self.gpus[first : last + 1], names, points)
