"""From readings as they come (captures are sorted by metric) to blocks of whole points, ordered by GPU and time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from readings.checks import problem_of
from readings.model import Gpu, PointBlock

Reading = tuple[Gpu, str, int, float]  # GPU, metric name, time, value
Values = dict[str, float]

# A block is a table with a cell for each point and metric name. Where readings share neither GPU nor time nor name the table would
# grow with the square of the readings, so a block also ends at this many cells per reading that it may hold.
_CELLS_PER_READING = 32
_MIN_CELLS = 500_000


class BlockBuilder:
    """Gathers readings one by one and gives them back as blocks.

    Readings of one GPU at one time become one point, whatever order they came in. Where one (GPU, metric, time) came with
    several pods the GPU is shared: the row without a pod, else the largest value, is the GPU's own, and each pod's row becomes
    a point of a Gpu with ``share`` set. For one pod the later value wins, so exact duplicates fold.
    """

    def __init__(self) -> None:
        self._readings: list[Reading] = []

    def __len__(self) -> int:
        """How many readings were added since the last ``blocks()``, duplicates too."""
        return len(self._readings)

    def add(self, gpu: Gpu, metric_name: str, time_ns: int, value: float) -> None:
        """Take one reading. Cheapest when the rows of one GPU share one Gpu object."""
        self._readings.append((gpu, metric_name, time_ns, value))

    def blocks(self, batch_size: int) -> Iterator[PointBlock]:
        """All that was gathered, in blocks of at most ``batch_size`` readings; the builder is empty afterwards.

        GPUs come in the order in which they were first added, a shared GPU's shares after it, times ascending. A point is cut
        only where it alone is larger than ``batch_size``. A block holds just the GPUs and metric names that it needs.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: must be 1 or more")
        readings, self._readings = self._readings, []
        return _cut(_Gathering(readings).points(), batch_size)


def most_cells(readings: int) -> int:
    """How large (points times metric names) a block of that many readings may be."""
    return max(_MIN_CELLS, _CELLS_PER_READING * readings)


class _Draft:
    """A point in the making. ``gpu`` is what its first reading said of the GPU."""

    __slots__ = ("gpu", "values")

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.values: Values = {}


class _Key(NamedTuple):
    """A point's place in the order: its GPU's number, the share (empty: the GPU itself), its time."""

    gpu_number: int
    holder: tuple[str, ...]
    time_ns: int


class _Gathering:
    """The readings of one call of ``blocks()``, turned into points."""

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings
        self._numbers: dict[Hashable, int] = {}
        self._by_object: dict[int, tuple[int, Gpu]] = {}  # by id(): the readings hold the objects
        self._by_content: dict[Hashable, tuple[int, Gpu]] = {}

    def points(self) -> Iterator[tuple[Gpu, int, Values]]:
        drafts: dict[tuple[int, int], _Draft] = {}
        unsettled: set[tuple[int, int]] = set()
        known = self._by_object
        for gpu, name, time_ns, value in self._readings:
            number, gpu = known.get(id(gpu)) or self._intern(gpu)
            key = (number, time_ns)
            draft = drafts.get(key)
            if draft is None:
                draft = drafts[key] = _Draft(gpu)
            elif draft.gpu is not gpu:
                unsettled.add(key)
            draft.values[name] = value
        points = {_Key(number, (), time_ns): draft for (number, time_ns), draft in drafts.items()}
        if unsettled:
            self._settle(points, unsettled)
        for place in sorted(points):
            yield points[place].gpu, place.time_ns, points[place].values

    def _intern(self, gpu: Gpu) -> tuple[int, Gpu]:
        """The GPU's number and the one object that stands for this description of it."""
        fields = msgspec.structs.astuple(gpu)
        content = (*fields[:-1], frozenset(gpu.labels.items()))
        entry = self._by_content.get(content)
        if entry is None:
            identity = (gpu.id, gpu.share, _holder(gpu) if gpu.share else ())
            number = self._numbers.setdefault(identity, len(self._numbers))
            entry = self._by_content[content] = (number, gpu)
        self._by_object[id(gpu)] = entry
        return entry

    def _settle(self, points: dict[_Key, _Draft], unsettled: set[tuple[int, int]]) -> None:
        """A second look at those points whose readings describe the GPU differently: shared GPUs are among them."""
        rows: dict[tuple[int, int], list[tuple[Gpu, str, float]]] = {key: [] for key in unsettled}
        for gpu, name, time_ns, value in self._readings:
            number, described = self._by_object[id(gpu)]
            found = rows.get((number, time_ns))
            if found is not None:
                found.append((described, name, value))
        for (number, time_ns), found in rows.items():
            point = points[_Key(number, (), time_ns)]
            shares = _share_out(point, found)
            point.gpu = self._keep(point.gpu)
            for holder, share in shares.items():
                share.gpu = self._keep(share.gpu)
                points[_Key(number, holder, time_ns)] = share

    def _keep(self, gpu: Gpu) -> Gpu:
        """The object that stands for this description; equal ones made for many points become one entry of a block."""
        content = (*msgspec.structs.astuple(gpu)[:-1], frozenset(gpu.labels.items()))
        return self._by_content.setdefault(content, (-1, gpu))[1]


def _holder(gpu: Gpu) -> tuple[str, ...]:
    """What the rows of a shared GPU differ in; empty for the device's own row, which has no pod."""
    return (gpu.namespace, gpu.pod, gpu.container) if gpu.pod else ()


def _share_out(point: _Draft, rows: list[tuple[Gpu, str, float]]) -> dict[tuple[str, ...], _Draft]:
    """Set the point's GPU and values from all its rows; returns the shares, by holder."""
    by_name: dict[str, dict[tuple[str, ...], tuple[Gpu, float]]] = {}
    for gpu, name, value in rows:
        by_name.setdefault(name, {})[_holder(gpu)] = (gpu, value)
    shares: dict[tuple[str, ...], _Draft] = {}
    for name, held in by_name.items():
        point.values[name] = _own_value(name, held)
        if len(held) == 1:
            continue
        for holder, (gpu, value) in held.items():
            if holder:
                share = shares.setdefault(holder, _Draft(msgspec.structs.replace(gpu, share=True)))
                share.values[name] = value
    point.gpu = _merged([gpu for gpu, _, _ in rows], shared=bool(shares))
    return shares


def _own_value(name: str, held: dict[tuple[str, ...], tuple[Gpu, float]]) -> float:
    """The GPU's own value among those of its holders: the device's, else the largest that the metric can have."""
    if () in held:
        return held[()][1]
    values = [value for _, value in held.values()]
    return max([value for value in values if problem_of(name, value) is None] or values)


def _merged(gpus: Sequence[Gpu], *, shared: bool) -> Gpu:
    """One description from several of the same GPU: the latest (with a pod if any has one), with the labels of all."""
    newest_first = list({id(gpu): gpu for gpu in reversed(gpus)}.values())
    labels: dict[str, str] = {}
    for gpu in reversed(newest_first):
        labels |= gpu.labels
    if shared:
        return msgspec.structs.replace(newest_first[0], labels=labels, pod="", namespace="", container="")
    latest = next((gpu for gpu in newest_first if gpu.pod), newest_first[0])
    return msgspec.structs.replace(latest, labels=labels)


def _cut(points: Iterable[tuple[Gpu, int, Values]], batch_size: int) -> Iterator[PointBlock]:
    limit = most_cells(batch_size)
    rows: list[tuple[Gpu, int, Values]] = []
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


def _pieces(point: tuple[Gpu, int, Values], batch_size: int) -> Iterator[tuple[Gpu, int, Values]]:
    gpu, time_ns, values = point
    if len(values) <= batch_size:
        yield point
        return
    items = list(values.items())
    for start in range(0, len(items), batch_size):
        yield gpu, time_ns, dict(items[start : start + batch_size])


def _block(rows: list[tuple[Gpu, int, Values]], names: list[str]) -> PointBlock:
    gpus: list[Gpu] = []
    indexes: dict[int, int] = {}
    points = []
    for gpu, time_ns, values in rows:
        index = indexes.setdefault(id(gpu), len(gpus))
        if index == len(gpus):
            gpus.append(gpu)
        points.append((index, time_ns, [values.get(name) for name in names]))
    return PointBlock(gpus, names, points)
