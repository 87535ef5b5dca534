"""Points as InfluxDB's line protocol: names, escaping, and the readings of one GPU and time merged into one line.

A line is ``gpu,uuid=…,hostname=… DCGM_FI_DEV_GPU_UTIL=12.0,…,container="",pod="",namespace="" 1752871354000000000``:
what a GPU is makes tags (and so series), what runs on it makes string fields (and so no series). A pod's share of a GPU
is a line of ``gpu_share``, where it is the other way round: the pod is what tells two shares apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

from readings.model import Gpu, PointBlock

GPU, SHARE = "gpu", "gpu_share"
# In this order in a line: it is InfluxDB's own order of tags, so it need not sort them.
TAGS = {
    GPU: ("device", "gpu_id", "hostname", "mig_id", "model", "uuid"),
    SHARE: ("container", "mig_id", "namespace", "pod", "uuid"),
}
STRING_FIELDS = {GPU: ("container", "namespace", "pod"), SHARE: ("device", "gpu_id", "hostname", "model")}
# Set on a point whose readings were told again for another host, index or model: they are found there, not here.
SUPERSEDED = "superseded"
RESERVED = frozenset({*TAGS[GPU], *STRING_FIELDS[GPU], "time", "_measurement", "_field", SUPERSEDED})

# InfluxDB keeps the outermost values of 64 bits for itself.
FIRST_NS, LAST_NS = -(1 << 63) + 2, (1 << 63) - 2

# Line protocol has no way to write these in a tag or a field's name (a backslash only before some characters).
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\\\\]|%(?=[0-9A-F]{2})")
_WRITTEN = re.compile("%([0-9A-F]{2})")
# A lone % is an empty name; in a condition, even a quoted now() is the time.
_MISUNDERSTOOD = frozenset({"%", "now()"})
_SPECIAL = re.compile("[,= ]")
_TEMPLATES_KNOWN = 10_000
_SOURCES_KNOWN = 200_000


class Unwritable(Exception):
    """A block holds something that no store can keep, or this one cannot: find it, take it out, and write again."""


def encode_name(text: str) -> str:
    """A text as it stands in tags and field names on the server: as it is, but for %XX where it could not be written."""
    if not text:
        return "%"
    if text in _MISUNDERSTOOD:
        return f"%{ord(text[0]):02X}{text[1:]}"
    return _UNWRITABLE.sub(lambda match: f"%{ord(match[0]):02X}", text)


def decode_name(text: str) -> str:
    """The text that ``encode_name`` was given."""
    if text == "%":
        return ""
    return _WRITTEN.sub(lambda match: chr(int(match[1], 16)), text)


def escape(text: str) -> str:
    """A text as a tag's value or a field's name in a line."""
    return _SPECIAL.sub(r"\\\g<0>", encode_name(text))


def quote_string(text: str) -> str:
    """A text as a string field's value in a line."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What one GPU (or share), as it is described, writes before and after the values of each of its lines."""

    gpu: Gpu
    measurement: str
    # Whose readings they are: two points of one key and time are one point.
    key: tuple[str, ...]
    # What makes its series.
    tags: tuple[str, ...]
    head: str
    tail: str

    @classmethod
    def of(cls, gpu: Gpu) -> Source:
        """The source that a GPU is. Raises Unwritable."""
        if gpu.gpu_id is not None and not FIRST_NS <= gpu.gpu_id <= LAST_NS:
            raise Unwritable
        measurement = SHARE if gpu.share else GPU
        said = descriptions(gpu)
        tags = tuple(said[name] for name in TAGS[measurement])
        # An empty tag cannot be written; it reads as empty when it is missing.
        head = measurement + "".join(
            f",{name}={escape(value)}" for name, value in zip(TAGS[measurement], tags, strict=True) if value
        )
        tail = "".join(f",{name}={quote_string(said[name])}" for name in STRING_FIELDS[measurement])
        return cls(gpu, measurement, (measurement, *tags) if gpu.share else (gpu.id,), tags, head, tail)


def descriptions(gpu: Gpu) -> dict[str, str]:
    """What is said of a GPU, by the name it has on the server."""
    return {
        "uuid": gpu.uuid,
        "mig_id": gpu.mig_id,
        "hostname": gpu.hostname,
        "gpu_id": "" if gpu.gpu_id is None else str(gpu.gpu_id),
        "device": gpu.device,
        "model": gpu.model_name,
        "container": gpu.container,
        "namespace": gpu.namespace,
        "pod": gpu.pod,
    }


class Shape(NamedTuple):
    """A list of metrics, and the line of a point that has them all."""

    names: tuple[str, ...]
    template: str


# One line to be: what writes it, its time, its metrics, and as many values, none of them None. A plain tuple, since one
# is made for each point.
LinePoint = tuple[Source, int, Shape, Sequence[float]]


def render(points: Iterable[LinePoint]) -> bytes:
    """The lines. Raises Unwritable for text that is not Unicode."""
    lines = [shape.template % (source.head, *values, source.tail, time_ns) for source, time_ns, shape, values in points]
    try:
        return "\n".join(lines).encode()
    except UnicodeEncodeError as error:
        raise Unwritable from error


@dataclass(slots=True)
class Gathered:
    """What a call writes: the points of each key (see Source) by their times, and the sources they are of."""

    points: dict[tuple[str, ...], dict[int, LinePoint]] = field(default_factory=dict)
    sources: set[Source] = field(default_factory=set)

    def all_points(self) -> list[LinePoint]:
        """Every point."""
        return [point for by_time in self.points.values() for point in by_time.values()]


@dataclass(slots=True)
class Lines:
    """Makes points of blocks; remembers sources and shapes, of which a fleet has few. One thread at a time."""

    _sources: dict[tuple[str | int | bool | None, ...], Source] = field(default_factory=dict)
    _shapes: dict[tuple[str, ...], Shape] = field(default_factory=dict)

    def gather(self, blocks: Iterable[PointBlock]) -> Gathered:
        """The points of all blocks, those of one GPU and time merged; of a reading told twice the later stays.

        Raises Unwritable.
        """
        gathered = Gathered()
        try:
            for block in blocks:
                self._add(block, gathered)
        except (TypeError, OverflowError) as error:  # a value that is no number, or none that fits
            raise Unwritable from error
        return gathered

    def shape(self, names: tuple[str, ...]) -> Shape:
        """The shape of a point with these metrics. Raises Unwritable for a name that is the server's or our own."""
        known = self._shapes.get(names)
        if known is None:
            if not RESERVED.isdisjoint(names):
                raise Unwritable
            if len(self._shapes) > _TEMPLATES_KNOWN:
                self._shapes.clear()
            fields = ",".join(escape(name).replace("%", "%%") + "=%r" for name in names)
            known = self._shapes[names] = Shape(names, f"%s {fields}%s %d")
        return known

    def _add(self, block: PointBlock, gathered: Gathered) -> None:
        names = tuple(block.metric_names)
        distinct = len(set(names)) == len(names)
        whole: Shape | None = None  # made when it is needed: a name without a reading does no harm
        known: list[tuple[Source, dict[int, LinePoint]] | None] = [None] * len(block.gpus)
        for index, time_ns, values in block.points:
            pair = known[index]
            if pair is None:
                source = self._source(block.gpus[index])
                gathered.sources.add(source)
                pair = known[index] = (source, gathered.points.setdefault(source.key, {}))
            source, by_time = pair
            if distinct and None not in values and len(values) == len(names):
                whole = whole or self.shape(names)
                # One sum tells of all values whether they are finite; one that overflows is looked at again elsewhere.
                full: list[float] = values  # type: ignore[assignment]  # no None is among them
                total = sum(full, 0.0)
                point: LinePoint = (source, time_ns, whole, full)
            else:
                found = {name: value for name, value in zip(names, values, strict=True) if value is not None}
                if not found:
                    continue
                total = sum(found.values(), 0.0)
                point = (source, time_ns, self.shape(tuple(found)), list(found.values()))
            if not isfinite(total) or not FIRST_NS <= time_ns <= LAST_NS:
                raise Unwritable
            by_time[time_ns] = self.merge(by_time[time_ns], point) if time_ns in by_time else point

    def merge(self, earlier: LinePoint, later: LinePoint) -> LinePoint:
        """One point of two: the later's description, and its value where both have one."""
        values = readings_of(earlier) | readings_of(later)
        return (later[0], later[1], self.shape(tuple(values)), list(values.values()))

    def only(self, point: LinePoint, names: Iterable[str]) -> LinePoint:
        """The same point with some of its metrics."""
        values = readings_of(point)
        kept = tuple(names)
        return (point[0], point[1], self.shape(kept), [values[name] for name in kept])

    def _source(self, gpu: Gpu) -> Source:
        described = (
            gpu.uuid, gpu.mig_id, gpu.gpu_id, gpu.device, gpu.model_name,
            gpu.hostname, gpu.container, gpu.pod, gpu.namespace, gpu.share,
        )  # fmt: skip
        known = self._sources.get(described)
        if known is None:
            if len(self._sources) > _SOURCES_KNOWN:
                self._sources.clear()
            known = self._sources[described] = Source.of(gpu)
        return known


def readings_of(point: LinePoint) -> dict[str, float]:
    """A point's values by metric."""
    _, _, shape, values = point
    return dict(zip(shape.names, values, strict=True))
