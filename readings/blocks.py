"""Builds blocks of whole points, ordered by GPU and time, from readings in any order (captures are sorted by metric).

There are two ways to one result: ``BlockBuilder`` takes readings one by one, ``blocks`` takes them as columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from readings.checks import problem_of
from readings.labels import OWNER_LABELS, SLICE_LABEL
from readings.model import Gpu, Point, PointBlock, Reading

if TYPE_CHECKING:
    from readings.columns import Columns, Mask, PointTable

# A point's values; None in the point of a share that has no part of its own.
Values = dict[str, float | None]

_Point = tuple[Gpu, int, Values]

# A block is a table with a cell for each point and metric name. Where readings share neither GPU nor time nor name, the table
# would grow with the square of the readings, so a block also ends at this many cells per reading that it may hold.
_CELLS_PER_READING = 32
_MIN_CELLS = 500_000

# By how much, at most, the rows of the slices of one GPU differ that repeat its value.
_SLICES_DIFFER = 0.1

# The namespace, pod and container of a row; empty for the device's own row, which has no pod.
_Holder = tuple[str, ...]
_ByHolder = dict[_Holder, tuple[Gpu, float]]

# Equal descriptions have equal bytes, which cost the garbage collector nothing.
_DESCRIPTION = msgspec.msgpack.Encoder(order="deterministic")


class BlockBuilder:
    """Gathers readings one by one and returns them as blocks.

    Readings of one GPU at one time become one point, whatever order they came in. Where one (GPU, metric, time) came with
    several pods, the GPU is shared: the row without a pod, else the largest value, is the GPU's own, and each pod's row becomes
    a point of a Gpu with ``share`` set. Where the pods' rows only repeat the device's value, as with time slicing and MPS, the share
    has no value: it says that the pod was there. For one pod the later value wins, so exact duplicates fold.
    """

    def __init__(self) -> None:
        self._readings: list[Reading] = []

    def __len__(self) -> int:
        """The number of readings added since the last ``blocks()``, duplicates included."""
        return len(self._readings)

    def add(self, gpu: Gpu, metric_name: str, time_ns: int, value: float) -> None:
        """Add one reading. Cheapest when the readings of one GPU share one Gpu object."""
        self._readings.append((gpu, metric_name, time_ns, value))

    def blocks(self, batch_size: int) -> Iterator[PointBlock]:
        """Return all readings in blocks of at most ``batch_size``, and empty the builder.

        GPUs come in the order in which they were first added, a shared GPU's shares after it, times ascending. A point is cut
        only if it is larger than ``batch_size`` by itself. A block holds only the GPUs and metric names that it needs.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: must be 1 or more")
        readings, self._readings = self._readings, []
        points = _points_of(readings, _GpuNumbers())
        return _cut(((gpu, key.time_ns, values) for key, gpu, values in points), batch_size)


def blocks(parts: Sequence[Columns], batch_size: int) -> Iterator[PointBlock]:
    """Return the blocks that BlockBuilder makes of the same readings, several times as fast.

    Only the points whose readings describe their GPU differently (a shared GPU, a pod that just changed) are built one by one.
    """
    parts = [part for part in parts if part.size]
    if not parts:
        return
    table, bare = _table_of(parts)
    if (
        table is not None
        and batch_size * len(table.names) <= most_cells(batch_size)
        and table.largest_point() <= batch_size
    ):
        yield from _cut(bare, batch_size)
        for alike in table.by_metrics():
            yield from _cut_table(alike, batch_size)
        return
    builder = BlockBuilder()
    for part in parts:
        for reading in part.readings():
            builder.add(*reading)
    yield from builder.blocks(batch_size)


def most_cells(readings: int) -> int:
    """The size limit (points times metric names) of a block of that many readings."""
    return max(_MIN_CELLS, _CELLS_PER_READING * readings)


class _GpuNumbers:
    """Numbers GPUs in the order in which they are met, and keeps one Gpu object for each distinct description."""

    def __init__(self) -> None:
        self.by_object: dict[int, tuple[int, Gpu]] = {}  # by id(): the readings hold the objects
        self._by_content: dict[bytes, tuple[int, Gpu]] = {}
        self._numbers: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, gpu: Gpu) -> tuple[int, Gpu]:
        """The GPU's number, and the object that stands for this description of it."""
        entry = self.by_object.get(id(gpu))
        if entry is None:
            entry = self._by_content.get(content := _DESCRIPTION.encode(gpu))
            if entry is None:
                identity = (gpu.id, gpu.share, _holder(gpu) if gpu.share else ())
                number = self._numbers.setdefault(identity, len(self._numbers))
                entry = self._by_content[content] = (number, gpu)
            self.by_object[id(gpu)] = entry
        return entry

    def keep(self, gpu: Gpu) -> Gpu:
        """The object that stands for this description: equal ones made for many points become one entry of a block."""
        return self._by_content.setdefault(_DESCRIPTION.encode(gpu), (-1, gpu))[1]


class _PointDraft:
    """A point in the making. ``gpu`` is the description that came with its first reading."""

    __slots__ = ("gpu", "values")

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.values: Values = {}


class _PointKey(NamedTuple):
    """A point's place in the order: its GPU's number, the holder of the share (empty: the GPU itself), its time."""

    gpu_number: int
    holder: tuple[str, ...]
    time_ns: int


def _points_of(readings: Sequence[Reading], gpus: _GpuNumbers) -> Iterator[tuple[_PointKey, Gpu, Values]]:
    """The readings' points, in order."""
    drafts: dict[tuple[int, int], _PointDraft] = {}
    mixed: set[tuple[int, int]] = set()
    numbered, find = gpus.by_object, gpus.find
    for gpu, name, time_ns, value in readings:
        number, gpu = numbered.get(id(gpu)) or find(gpu)
        key = (number, time_ns)
        draft = drafts.get(key)
        if draft is None:
            draft = drafts[key] = _PointDraft(gpu)
        elif draft.gpu is not gpu:
            mixed.add(key)
        draft.values[name] = value
    points = {_PointKey(number, (), time_ns): draft for (number, time_ns), draft in drafts.items()}
    if mixed:
        _settle(points, mixed, readings, gpus)
    for place in sorted(points):
        yield place, points[place].gpu, points[place].values


def _settle(
    points: dict[_PointKey, _PointDraft],
    mixed: set[tuple[int, int]],
    readings: Sequence[Reading],
    gpus: _GpuNumbers,
) -> None:
    """Decide the GPU, the values and the shares of the points whose readings describe the GPU differently."""
    rows: dict[tuple[int, int], list[tuple[Gpu, str, float]]] = {key: [] for key in mixed}
    for gpu, name, time_ns, value in readings:
        number, described = gpus.find(gpu)
        if (number, time_ns) in mixed:
            rows[number, time_ns].append((described, name, value))
    for (number, time_ns), of_point in rows.items():
        point = points[_PointKey(number, (), time_ns)]
        shares = _share_out(point, of_point)
        point.gpu = gpus.keep(point.gpu)
        for holder, share in shares.items():
            share.gpu = gpus.keep(share.gpu)
            points[_PointKey(number, holder, time_ns)] = share


def _holder(gpu: Gpu) -> _Holder:
    return (gpu.namespace, gpu.pod, gpu.container) if gpu.pod else ()


def _share_out(point: _PointDraft, rows: list[tuple[Gpu, str, float]]) -> dict[_Holder, _PointDraft]:
    """Set the point's GPU and values from all its rows; returns the shares, by holder."""
    by_name: dict[str, _ByHolder] = {}
    for gpu, name, value in rows:
        by_name.setdefault(name, {})[_holder(gpu)] = (gpu, value)
    for name, by_holder in by_name.items():
        point.values[name] = _own_value(name, by_holder)
    held = {name: by_holder for name, by_holder in by_name.items() if len(by_holder) > 1}
    copied = _copied(held, sliced=any(SLICE_LABEL in gpu.labels for gpu, _, _ in rows))
    shares: dict[_Holder, _PointDraft] = {}
    for name, by_holder in held.items():
        for holder, (gpu, value) in by_holder.items():
            if holder:
                share = shares.get(holder)
                if share is None:
                    gpu = msgspec.structs.replace(gpu, share=True, labels=_without_owners(gpu.labels))
                    share = shares[holder] = _PointDraft(gpu)
                if name not in copied:
                    share.values[name] = value
    for share in shares.values():
        share.values = share.values or {next(iter(held)): None}
    point.gpu = _merged([gpu for gpu, _, _ in rows], shared=bool(shares))
    return shares


def _copied(held: Mapping[str, _ByHolder], *, sliced: bool) -> set[str]:
    """The metrics whose rows all repeat the device's value, so that no pod has a part of its own.

    Equal values are copies: as parts they would be more than the whole. On a ``sliced`` GPU (time slicing, MPS), which an exporter
    may read once for each slice, about equal ones are copies too; where most metrics are, a metric without a row of the device is.
    """
    tolerance = _SLICES_DIFFER if sliced else 0.0
    copied = set()
    for name, by_holder in held.items():
        values = [value for _, value in by_holder.values()]
        several = len(by_holder) > 2 or () not in by_holder
        if several and max(values) - min(values) <= tolerance * max(map(abs, values)):
            copied.add(name)
    if sliced and 2 * len(copied) > len(held):
        copied.update(name for name, by_holder in held.items() if () not in by_holder)
    return copied


def _without_owners(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name not in OWNER_LABELS}


def _own_value(name: str, by_holder: _ByHolder) -> float:
    """The GPU's own value among those of its holders: the device's, else the largest that is within the metric's range."""
    if () in by_holder:
        return by_holder[()][1]
    values = [value for _, value in by_holder.values()]
    return max([value for value in values if problem_of(name, value) is None] or values)


def _merged(gpus: Sequence[Gpu], *, shared: bool) -> Gpu:
    """One description made from several of the same GPU: the latest (with a pod if any has one), with the labels of all."""
    newest_first = list({id(gpu): gpu for gpu in reversed(gpus)}.values())
    labels: dict[str, str] = {}
    for gpu in reversed(newest_first):
        labels |= gpu.labels
    if shared:
        return msgspec.structs.replace(
            newest_first[0], labels=_without_owners(labels), pod="", namespace="", container=""
        )
    latest = next((gpu for gpu in newest_first if gpu.pod), newest_first[0])
    return msgspec.structs.replace(latest, labels=labels)


def _cut(points: Iterable[_Point], batch_size: int) -> Iterator[PointBlock]:
    limit = most_cells(batch_size)
    rows: list[_Point] = []
    names: dict[str, None] = {}
    readings = 0
    for point in points:
        for gpu, time_ns, values in _pieces(point, batch_size):
            new = values.keys() - names.keys()
            cells = (len(rows) + 1) * (len(names) + len(new))
            if rows and (readings + len(values) > batch_size or cells > limit):
                yield _block(rows, list(names))
                rows, names, readings = [], {}, 0
            rows.append((gpu, time_ns, values))
            readings += len(values)
            names.update(dict.fromkeys(values))
    if rows:
        yield _block(rows, list(names))


def _pieces(point: _Point, batch_size: int) -> Iterator[_Point]:
    gpu, time_ns, values = point
    if len(values) <= batch_size:
        yield point
        return
    items = list(values.items())
    for start in range(0, len(items), batch_size):
        yield gpu, time_ns, dict(items[start : start + batch_size])


def _block(rows: list[_Point], names: list[str]) -> PointBlock:
    gpus: list[Gpu] = []
    indexes: dict[int, int] = {}
    points = []
    for gpu, time_ns, values in rows:
        index = indexes.setdefault(id(gpu), len(gpus))
        if index == len(gpus):
            gpus.append(gpu)
        points.append((index, time_ns, [values.get(name) for name in names]))
    return PointBlock(gpus, names, points)


def _table_of(parts: Sequence[Columns]) -> tuple[PointTable | None, list[_Point]]:
    """All readings as a table of points, None where the cells would be far more than the readings; and the points without a
    value.
    """
    from readings.columns import PointTable, join  # with numpy, which a live source does without

    columns = join(parts)
    numbered = _GpuNumbers()
    by_object, find = numbered.by_object, numbered.find
    places: dict[int, int] = {}  # of a description in ``gpus``, by id()
    gpus: list[Gpu] = []
    numbers: list[int] = []
    codes: dict[int, int] = {}
    for old in columns.used_gpus():
        gpu = columns.gpus[old]
        number, gpu = by_object.get(id(gpu)) or find(gpu)
        code = codes[old] = places.setdefault(id(gpu), len(gpus))
        if code == len(gpus):
            gpus.append(gpu)
            numbers.append(number)
    columns = columns.regrouped(gpus, codes)
    bare: list[_Point] = []
    if len(gpus) > len(numbered):
        mixed = columns.of_mixed_points(numbers)
        if mixed.any():
            columns, numbers, bare = _settle_mixed(columns, mixed, numbers, numbered)
    return PointTable.of(columns, numbers, most_cells(columns.size)), bare


def _settle_mixed(
    columns: Columns, mixed: Mask, numbers: list[int], numbered: _GpuNumbers
) -> tuple[Columns, list[int], list[_Point]]:
    """Replace the readings of mixed points by those of the points that are built of them.

    Returns all readings, the rank of each GPU (shares come after their GPU), and the points without a value.
    """
    from readings.columns import Columns, join

    settled: list[Reading] = []
    bare: list[_Point] = []
    place_of: dict[int, tuple[int, tuple[str, ...]]] = {}
    for key, gpu, values in _points_of(list(columns.where(mixed).readings()), numbered):
        place_of[id(gpu)] = key.gpu_number, key.holder
        readings = [(gpu, name, key.time_ns, value) for name, value in values.items() if value is not None]
        settled += readings
        if not readings:
            bare.append((gpu, key.time_ns, values))
    added = Columns.of(settled)
    places = [*[(number, ()) for number in numbers], *[place_of[id(gpu)] for gpu in added.gpus]]
    ranks = {place: rank for rank, place in enumerate(sorted(set(places)))}
    return join([columns.where(~mixed), added]), [ranks[place] for place in places], bare


def _cut_table(table: PointTable, batch_size: int) -> Iterator[PointBlock]:
    """Cut a table, in which no point is larger than ``batch_size``, into blocks with only the GPUs and names that they need."""
    total = table.present.sum(axis=1).cumsum()
    is_full = int(total[-1]) == table.present.size
    place, times, rows = table.runs(), table.time_ns.tolist(), table.rows()
    places, gpus = place.tolist(), table.gpu
    start, before = 0, 0
    while start < len(rows):
        end = int(total.searchsorted(before + batch_size, "right"))
        names, values = table.names, rows[start:end]
        if not is_full:
            used = table.used_names(start, end)
            if len(used) < len(names):
                names = [names[column] for column in used]
                values = [[row[column] for column in used] for row in values]
        first, last = places[start], places[end - 1]
        used_gpus = gpus[place.searchsorted(range(first, last + 1))].tolist()
        indexes = places[start:end] if not first else (place[start:end] - first).tolist()
        points: list[Point] = list(zip(indexes, times[start:end], values, strict=True))
        yield PointBlock([table.gpus[gpu] for gpu in used_gpus], names, points)
        start, before = end, int(total[end - 1])
