"""Points as InfluxDB's line protocol: names, escaping, and one line for all readings of a GPU at one time.

A line is ``gpu,uuid=…,hostname=… DCGM_FI_DEV_GPU_UTIL=12.0,…,container="…",namespace="…",pod="…" 1752871354000000000``. The
GPU's description becomes tags, and so series; its pod becomes string fields, so that pod churn makes no series. A pod's
share of a GPU is a line of ``gpu_share``. There the pod is in the tags, because one GPU has several shares at one time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, compress, pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from readings.model import Gpu, PointBlock
from readings.times import INT64_MAX
from stores.aggregate.functions import Floats, Ints, Mask, starts_run
from stores.base import Description, describe

GPU, SHARE = "gpu", "gpu_share"
# Tags and string fields by their names on the server, in the order of stores.base.Description.
DESCRIPTION = ("uuid", "mig_id", "gpu_id", "device", "model", "hostname", "container", "pod", "namespace")
# InfluxDB's own order of tags, so that it need not sort them.
TAGS = {
    GPU: ("device", "gpu_id", "hostname", "mig_id", "model", "uuid"),
    SHARE: ("container", "mig_id", "namespace", "pod", "uuid"),
}
STRING_FIELDS = {GPU: ("container", "namespace", "pod"), SHARE: ("device", "gpu_id", "hostname", "model")}
RESERVED = frozenset({*TAGS[GPU], *STRING_FIELDS[GPU], "time", "_measurement", "_field"})

# InfluxDB reserves the outermost 64-bit values.
FIRST_NS, LAST_NS = -(1 << 63) + 2, (1 << 63) - 2

# Line protocol cannot write these in a tag or a field's name (a backslash only before some characters).
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\\\\]|%(?=[0-9A-F]{2})")
_WRITTEN = re.compile("%([0-9A-F]{2})")
# A lone % stands for an empty name; in a condition the server takes even a quoted now() for the time.
_MISUNDERSTOOD = frozenset({"%", "now()"})
_SPECIAL = re.compile("[,= ]")
_SHAPES_KNOWN = 10_000
_SOURCES_KNOWN = 200_000


_encode = msgspec.json.Encoder().encode


class Unwritable(Exception):
    """A block holds something that cannot be stored. The caller has to find it, take it out and write again."""


def encode_name(text: str) -> str:
    """A text as a tag or field name on the server: unchanged, except for %XX in place of what cannot be written."""
    if not text:
        return "%"
    if text in _MISUNDERSTOOD:
        return f"%{ord(text[0]):02X}{text[1:]}"
    return _UNWRITABLE.sub(lambda match: f"%{ord(match[0]):02X}", text)


def decode_name(text: str) -> str:
    """The inverse of ``encode_name``."""
    if text == "%":
        return ""
    return _WRITTEN.sub(lambda match: chr(int(match[1], 16)), text)


def escape(text: str) -> str:
    """A text as a tag value or field name in a line."""
    return _SPECIAL.sub(r"\\\g<0>", encode_name(text))


def quote_string(text: str) -> str:
    """A text as the value of a string field in a line."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True, slots=True, eq=False)
class LineSource:
    """What one described GPU (or share) writes before and after the values in each of its lines."""

    gpu: Gpu
    # Two points with the same key and time are one point.
    key: tuple[str, ...]
    head: str
    tail: str

    @classmethod
    def of(cls, gpu: Gpu) -> LineSource:
        """The source for a GPU. Raises Unwritable."""
        if gpu.gpu_id is not None and not FIRST_NS <= gpu.gpu_id <= LAST_NS:
            raise Unwritable
        measurement = SHARE if gpu.share else GPU
        described = dict(zip(DESCRIPTION, map(str, describe(gpu)), strict=True))
        described["gpu_id"] = "" if gpu.gpu_id is None else described["gpu_id"]
        tags = [(name, described[name]) for name in TAGS[measurement]]
        # An empty tag cannot be written. A missing one reads as empty.
        head = measurement + "".join(f",{name}={escape(value)}" for name, value in tags if value)
        texts = [(name, described[name]) for name in STRING_FIELDS[measurement]]
        if not gpu.share:
            # A field costs the server as much as a reading. A missing one reads as empty too, except in a condition.
            texts = [(name, value) for name, value in texts if value]
        tail = "".join(f",{name}={quote_string(value)}" for name, value in texts)
        return cls(gpu, (measurement, *(value for _, value in tags)) if gpu.share else (gpu.id,), head, tail)


class Shape(NamedTuple):
    """A list of metrics, and what a line has before the value of each (``U=``)."""

    names: tuple[str, ...]
    fields: tuple[str, ...]


# One line: source, time, metrics and as many values, none of them None.
LinePoint = tuple[LineSource, int, Shape, Sequence[float]]


class LineTable(NamedTuple):
    """Lines with the same metrics. ``values`` (finite) has a row for each line and a column for each metric."""

    shape: Shape
    sources: Sequence[LineSource]
    times: Sequence[int]
    values: Floats

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return len(self.times)

    def part(self, start: int, end: int) -> LineTable:
        """Some of the lines."""
        shape, sources, times, values = self
        return LineTable(shape, sources[start:end], times[start:end], values[start:end])

    def points(self) -> list[LinePoint]:
        """Each line."""
        rows: list[list[float]] = self.values.tolist()
        return [
            (source, time_ns, self.shape, values)
            for source, time_ns, values in zip(self.sources, self.times, rows, strict=True)
        ]


def tables_of(points: Iterable[LinePoint]) -> list[LineTable]:
    """The same points as tables."""
    by_shape: dict[tuple[str, ...], list[LinePoint]] = {}
    for point in points:
        by_shape.setdefault(point[2].names, []).append(point)
    made = []
    for alike in by_shape.values():
        sources, times, shapes, values = zip(*alike, strict=True)
        made.append(LineTable(shapes[0], sources, times, np.array(values, dtype=np.float64)))
    return made


def render(tables: Iterable[LineTable]) -> bytes:
    """The lines. Raises Unwritable for text that is not Unicode."""
    try:
        return b"\n".join([_lines(table).encode() for table in tables])
    except UnicodeEncodeError as error:
        raise Unwritable from error


def _lines(table: LineTable) -> str:
    """Column by column, so that nothing is done for each reading but to make its text and to join it: half the time of a template.

    JSON writes a float as shortly as Python and thrice as fast.
    """
    fields, sources, width = table.shape.fields, table.sources, len(table.shape.fields)
    texts = _encode(table.values.ravel().tolist())[1:-1].decode().split(",")
    step = 2 * width + 2
    pieces = [""] * (table.lines * step)
    heads = {source: f"{source.head} {fields[0]}" for source in set(sources)}
    ends = {time_ns: f" {time_ns}\n" for time_ns in set(table.times)}
    pieces[::step] = [heads[source] for source in sources]
    for place, name in enumerate(fields):
        if place:
            pieces[2 * place :: step] = [f",{name}"] * table.lines
        pieces[2 * place + 1 :: step] = texts[place::width]
    pieces[2 * width :: step] = [source.tail for source in sources]
    pieces[2 * width + 1 :: step] = [ends[time_ns] for time_ns in table.times]
    return "".join(pieces)[:-1]


class _Lines(NamedTuple):
    """Points with a reading, of one list of metrics. ``values`` is finite where ``is_there`` says so.

    ``blocks`` has the place of each one's block: later blocks replace what earlier ones say.
    """

    names: tuple[str, ...]
    sources: list[LineSource]
    blocks: Ints
    times: Ints
    values: Floats
    is_there: Mask

    def only(self, rows: Ints) -> _Lines:
        """Some of the points."""
        names, sources, blocks, times, values, is_there = self
        chosen = [sources[row] for row in rows.tolist()]
        return _Lines(names, chosen, blocks[rows], times[rows], values[rows], is_there[rows])


def _once(parts: list[_Lines]) -> list[_Lines]:
    """The points, of which those that are of one GPU (or share) and time have become one."""
    cells = _cells(parts)
    in_order = np.sort(cells)
    is_again = np.isin(cells, in_order[1:][in_order[1:] == in_order[:-1]])
    starts = list(accumulate((len(part.times) for part in parts), initial=0))
    for part, (start, end) in zip(parts, pairwise(starts), strict=True):
        is_again[start:end] |= len(set(part.names)) < len(part.names)
    if not is_again.any():
        return parts
    kept, merged = [], []
    for part, (start, end) in zip(parts, pairwise(starts), strict=True):
        kept.append(part.only(np.flatnonzero(~is_again[start:end])))
        merged.append(part.only(np.flatnonzero(is_again[start:end])))
    return [*kept, _merged(merged, cells[is_again])]


def _cells(parts: Iterable[_Lines]) -> Ints:
    """A number for each point of all parts, the same for all that are of one GPU (or share) and time."""
    keys: dict[tuple[str, ...], int] = {}
    numbers = {source: keys.setdefault(source.key, len(keys)) for part in parts for source in set(part.sources)}
    of = np.array([numbers[source] for part in parts for source in part.sources], dtype=np.int64)
    times = np.concatenate([part.times for part in parts])
    first = int(times.min())
    span = int(times.max()) - first + 1
    if span * len(keys) > INT64_MAX:  # some are far from the others
        times = np.unique(times, return_inverse=True)[1]
        first, span = 0, len(times)
    cells: Ints = of * span + (times - first)
    return cells


def _merged(parts: Sequence[_Lines], cells: Ints) -> _Lines:
    """One point for each cell: the later description, and of each metric the later value."""
    columns: dict[str, int] = {}
    for part in parts:
        columns.update((name, len(columns)) for name in part.names if name not in columns)
    _, firsts, places = np.unique(cells, return_index=True, return_inverse=True)
    values = np.full((len(firsts), len(columns)), np.nan)
    blocks = np.concatenate([part.blocks for part in parts])
    order = np.argsort(blocks, kind="stable")
    of_part, start = [], 0
    for part in parts:
        rows, told = np.nonzero(part.is_there)
        column = np.array([columns[name] for name in part.names], dtype=np.int64)[told]
        of_part.append((part.blocks[rows], places[start + rows], column, part.values[rows, told]))
        start += len(part.times)
    told_in, row, column, value = map(np.concatenate, zip(*of_part, strict=True))
    later = np.argsort(told_in, kind="stable")  # of what is assigned twice the last stays
    values[row[later], column[later]] = value[later]
    sources = list(chain.from_iterable(part.sources for part in parts))
    last = np.empty(len(firsts), dtype=np.int64)
    last[places[order]] = order
    times = np.concatenate([part.times for part in parts])
    chosen = [sources[place] for place in last.tolist()]
    return _Lines(tuple(columns), chosen, blocks[last], times[last], values, ~np.isnan(values))


@dataclass(slots=True)
class LineBuilder:
    """Turns blocks into points. Caches sources and shapes, since a fleet has few. One thread at a time."""

    readings: int = 0  # of the last call's blocks
    _sources: dict[tuple[Description, bool], LineSource] = field(default_factory=dict)
    _shapes: dict[tuple[str, ...], Shape] = field(default_factory=dict)

    def tables(self, blocks: Sequence[PointBlock]) -> list[LineTable]:
        """The points of all blocks, one for each GPU and time. Of a reading that occurs twice the later one stays.

        Raises Unwritable.
        """
        by_names: dict[tuple[str, ...], list[tuple[int, PointBlock]]] = {}
        for place, block in enumerate(blocks):
            if block.points and block.metric_names:
                by_names.setdefault(tuple(block.metric_names), []).append((place, block))
        try:
            parts = [self._lines(names, alike) for names, alike in by_names.items()]
        except (TypeError, ValueError, OverflowError) as error:  # a value that is not a number, or too large
            raise Unwritable from error
        self.readings = sum(int(np.count_nonzero(part.is_there)) for part in parts)
        parts = [part for part in parts if part.sources]
        return [table for part in _once(parts) for table in self._split(part)] if parts else []

    def _lines(self, names: tuple[str, ...], blocks: Sequence[tuple[int, PointBlock]]) -> _Lines:
        """The points with a reading of blocks that have these metrics, with the blocks' places. Most are whole."""
        places, counts = [place for place, _ in blocks], [len(block.points) for _, block in blocks]
        times = np.concatenate([block.arrays.time_ns for _, block in blocks])
        values = np.concatenate([block.arrays.values for _, block in blocks])
        is_there = np.isfinite(values)
        absent = values.size - int(np.count_nonzero(is_there))
        if absent and absent != values.size - sum(block.count() for _, block in blocks):
            raise Unwritable
        has_any = is_there.any(axis=1)
        sources: list[LineSource] = []
        at = 0
        for _, block in blocks:
            indexes = block.arrays.gpu.tolist()
            if absent:
                indexes = list(compress(indexes, has_any[at : at + len(indexes)].tolist()))
            at += len(block.points)
            of_gpu = {index: self._source(block.gpus[index]) for index in set(indexes)}
            sources += [of_gpu[index] for index in indexes]
        of_block = np.repeat(np.array(places, dtype=np.int64), counts)
        if absent:
            of_block, times, values, is_there = (each[has_any] for each in (of_block, times, values, is_there))
        if len(times) and not FIRST_NS <= times.min() <= times.max() <= LAST_NS:
            raise Unwritable
        return _Lines(names, sources, of_block, times, values, is_there)

    def _split(self, lines: _Lines) -> Iterator[LineTable]:
        """A table for each set of metrics that lines have. Raises Unwritable for a reserved name."""
        names, sources, _, times, values, is_there = lines
        if is_there.all():
            if len(times):
                yield LineTable(self.shape(names), sources, times.tolist(), values)
            return
        _, sets = np.unique(np.packbits(is_there, axis=1), axis=0, return_inverse=True)
        sets = sets.reshape(-1)
        order = np.argsort(sets, kind="stable")
        for start, end in pairwise([*np.flatnonzero(starts_run(sets[order])).tolist(), len(order)]):
            rows = order[start:end]
            columns = np.flatnonzero(is_there[rows[0]])
            shape = self.shape(tuple(names[column] for column in columns.tolist()))
            mine = [sources[row] for row in rows.tolist()]
            yield LineTable(shape, mine, times[rows].tolist(), values[np.ix_(rows, columns)])

    def shape(self, names: tuple[str, ...]) -> Shape:
        """The shape of a point with these metrics. Raises Unwritable for a reserved name."""
        known = self._shapes.get(names)
        if known is None:
            if not RESERVED.isdisjoint(names):
                raise Unwritable
            if len(self._shapes) > _SHAPES_KNOWN:
                self._shapes.clear()
            known = self._shapes[names] = Shape(names, tuple(f"{escape(name)}=" for name in names))
        return known

    def only(self, point: LinePoint, names: Iterable[str]) -> LinePoint:
        """The same point with some of its metrics."""
        values = readings_of(point)
        kept = tuple(names)
        return (point[0], point[1], self.shape(kept), [values[name] for name in kept])

    def _source(self, gpu: Gpu) -> LineSource:
        described = (describe(gpu), gpu.share)
        known = self._sources.get(described)
        if known is None:
            if len(self._sources) > _SOURCES_KNOWN:
                self._sources.clear()
            known = self._sources[described] = LineSource.of(gpu)
        return known


def readings_of(point: LinePoint) -> dict[str, float]:
    """A point's values by metric."""
    _, _, shape, values = point
    return dict(zip(shape.names, values, strict=True))
