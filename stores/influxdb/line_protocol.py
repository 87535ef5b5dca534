"""Points as InfluxDB's line protocol: names, escaping, and one line for all readings of a GPU at one time.

A line is ``gpu,uuid=…,hostname=… DCGM_FI_DEV_GPU_UTIL=12.0,…,container="…",namespace="…",pod="…" 1752871354000000000``. The
GPU's description becomes tags, and so series; its pod becomes string fields, so that pod churn makes no series. A pod's
share of a GPU is a line of ``gpu_share``. There the pod is in the tags, because one GPU has several shares at one time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

import msgspec

from readings.model import Gpu, PointBlock
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
_TEMPLATES_KNOWN = 10_000
# From so many values in a line on it pays to make text of all numbers first.
_MANY_VALUES = 8
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
    """A list of metrics, and the template of a line that has them all."""

    names: tuple[str, ...]
    template: str


# One line: source, time, metrics and as many values, none of them None. A plain tuple, since every point makes one.
LinePoint = tuple[LineSource, int, Shape, Sequence[float]]


def render(points: Sequence[LinePoint]) -> bytes:
    """The lines. Raises Unwritable for text that is not Unicode."""
    flat: list[float] = []
    for _, _, _, values in points:
        flat += values
    are_wide = len(flat) >= _MANY_VALUES * len(points)
    try:
        return (_lines_of_many(points, flat) if are_wide else _lines_of_few(points)).encode()
    except UnicodeEncodeError as error:
        raise Unwritable from error


def _lines_of_few(points: Sequence[LinePoint]) -> str:
    """All lines in one go: a fifth faster than line by line."""
    arguments: list[object] = []
    for source, time_ns, _, values in points:
        arguments.append(source.head)
        arguments += values
        arguments += source.tail, time_ns
    return "\n".join([shape.template for _, _, shape, _ in points]) % tuple(arguments)


def _lines_of_many(points: Sequence[LinePoint], flat: Sequence[float]) -> str:
    """All numbers become text in one go, by JSON, which writes a float as shortly as Python and thrice as fast."""
    texts = _encode(flat)[1:-1].decode().split(",")
    lines = []
    start = 0
    for source, time_ns, shape, values in points:
        end = start + len(values)
        lines.append(shape.template % (source.head, *texts[start:end], source.tail, time_ns))
        start = end
    return "\n".join(lines)


@dataclass(slots=True)
class LineBuilder:
    """Turns blocks into points. Caches sources and shapes, since a fleet has few. One thread at a time."""

    readings: int = 0  # of the last call's blocks
    _sources: dict[tuple[Description, bool], LineSource] = field(default_factory=dict)
    _shapes: dict[tuple[str, ...], Shape] = field(default_factory=dict)

    def points(self, blocks: Iterable[PointBlock]) -> list[LinePoint]:
        """The points of all blocks, one for each GPU and time. Of a reading that occurs twice the later one stays.

        Raises Unwritable.
        """
        by_key: dict[tuple[str, ...], dict[int, LinePoint]] = {}
        self.readings = 0
        try:
            for block in blocks:
                self._add(block, by_key)
        except (TypeError, OverflowError) as error:  # a value that is not a number, or too large
            raise Unwritable from error
        return [point for by_time in by_key.values() for point in by_time.values()]

    def shape(self, names: tuple[str, ...]) -> Shape:
        """The shape of a point with these metrics. Raises Unwritable for a reserved name."""
        known = self._shapes.get(names)
        if known is None:
            if not RESERVED.isdisjoint(names):
                raise Unwritable
            if len(self._shapes) > _TEMPLATES_KNOWN:
                self._shapes.clear()
            fields = ",".join(escape(name).replace("%", "%%") + "=%s" for name in names)
            known = self._shapes[names] = Shape(names, f"%s {fields}%s %d")
        return known

    def _add(self, block: PointBlock, by_key: dict[tuple[str, ...], dict[int, LinePoint]]) -> None:
        names = tuple(block.metric_names)
        distinct = len(set(names)) == len(names)
        whole: Shape | None = None  # made only when needed: a reserved name without a reading does no harm
        of_gpu: list[tuple[LineSource, dict[int, LinePoint]] | None] = [None] * len(block.gpus)
        self.readings += len(block.points) * len(names)
        for index, time_ns, values in block.points:
            pair = of_gpu[index]
            if pair is None:
                source = self._source(block.gpus[index])
                pair = of_gpu[index] = (source, by_key.setdefault(source.key, {}))
            source, by_time = pair
            if distinct and None not in values and len(values) == len(names):
                whole = whole or self.shape(names)
                # One sum shows whether all values are finite. If it overflows, split_storable looks at each value.
                full: list[float] = values  # type: ignore[assignment]  # it holds no None
                total = sum(full, 0.0)
                point: LinePoint = (source, time_ns, whole, full)
            else:
                self.readings -= values.count(None)
                present = {name: value for name, value in zip(names, values, strict=True) if value is not None}
                if not present:
                    continue
                total = sum(present.values(), 0.0)
                point = (source, time_ns, self.shape(tuple(present)), list(present.values()))
            if not isfinite(total) or not FIRST_NS <= time_ns <= LAST_NS:
                raise Unwritable
            by_time[time_ns] = self._merge(by_time[time_ns], point) if time_ns in by_time else point

    def _merge(self, earlier: LinePoint, later: LinePoint) -> LinePoint:
        """One point from two: the later description, and the later value where both have one."""
        values = readings_of(earlier) | readings_of(later)
        return (later[0], later[1], self.shape(tuple(values)), list(values.values()))

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
