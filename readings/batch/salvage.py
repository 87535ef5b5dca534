"""Decodes a damaged batch item by item, so one bad reading does not discard the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from readings.batch.message import DECODE_ERRORS, PlainReading
from readings.batch.plain import Salvaged
from readings.checks import (
    BAD_FIELD,
    BAD_NUMBER,
    BAD_TIMESTAMP,
    NO_IDENTITY,
    NO_METRIC,
    NON_FINITE,
    SHORT_ROW,
    Refusal,
    Refusals,
    Refused,
)
from readings.description import describe_gpu
from readings.labels import BAD_LABEL, INSTANCE_LABELS, Remark
from readings.model import Gpu, Point, PointBlock
from readings.times import INT64_MAX

T = TypeVar("T")

_NULL = Raw(b"null")


class _Item(msgspec.Struct):
    """A plain reading of which only the fields that it needs are decoded."""

    timestamp: int | float | str = ""
    metric_name: str = ""
    value: float | str | UnsetType | None = UNSET
    uuid: str | None = None
    gpu_id: Raw = _NULL
    device: Raw = _NULL
    model_name: Raw = _NULL
    hostname: Raw = _NULL
    container: Raw = _NULL
    pod: Raw = _NULL
    namespace: Raw = _NULL
    labels: Raw = _NULL


_metric = msgspec.json.Decoder(PlainReading)
_item = msgspec.json.Decoder(_Item)
_object = msgspec.json.Decoder(dict[str, Any])
_list = msgspec.json.Decoder(list[Raw])
_int = msgspec.json.Decoder(int)
_value = msgspec.json.Decoder(float | None)
_index = msgspec.json.Decoder(int | str | None)
_text = msgspec.json.Decoder(str | None)
_label = msgspec.json.Decoder(str | int | None)
_raws = msgspec.json.Decoder(dict[str, Raw] | None)
_DESCRIBING = ("gpu_id", "device", "model_name", "hostname", "container", "pod", "namespace")

_METRIC_REASONS = (
    ("Number out of range - at `$.value`", NON_FINITE),
    ("`$.value`", BAD_NUMBER),
    ("`$.timestamp`", BAD_TIMESTAMP),
    ("`$.uuid`", NO_IDENTITY),
    ("`$.metric_name`", NO_METRIC),
)


def salvage_metrics(items: Sequence[Raw]) -> Iterator[PlainReading | Salvaged | Refused]:
    """Each plain reading, without the fields that it does not need and that cannot be decoded, or the reason why there is none."""
    for item in items:
        try:
            yield _decoded(_metric, item, BAD_FIELD)
        except Refused:
            try:
                yield _without_bad_fields(_decoded(_item, item, BAD_FIELD))
            except Refused as refused:
                reason = next((reason for path, reason in _METRIC_REASONS if path in refused.detail), refused.reason)
                yield Refused(reason, refused.detail, partial(_alone, item))


def _without_bad_fields(item: _Item) -> Salvaged:
    remarks: list[Remark] = []

    def kept(decoder: msgspec.json.Decoder[T], raw: Raw, name: str) -> T | None:
        try:
            return _decoded(decoder, raw, BAD_LABEL)
        except Refused as refused:
            if "label" in name and any(label in name or label.encode() in bytes(raw) for label in INSTANCE_LABELS):
                raise Refused(BAD_FIELD, f"the labels of the MIG instance cannot be read: {refused.detail}") from None
            remarks.append(Remark(BAD_LABEL, f"{name} is left out: {refused.detail}"))
            return None

    fields: dict[str, Any] = {
        name: kept(_index if name == "gpu_id" else _text, getattr(item, name), name) for name in _DESCRIBING
    }
    labels = {
        name: str(text)  # a number of a link or an instance may come without quotes
        for name, raw in (kept(_raws, item.labels, "labels") or {}).items()
        if (text := kept(_label, raw, f"label {name[:40]!r}")) is not None
    }
    reading = PlainReading(
        timestamp=item.timestamp,
        metric_name=item.metric_name,
        value=item.value,
        uuid=item.uuid,
        labels=labels,
        **fields,
    )
    return Salvaged(reading, remarks)


class SalvagedPoints(NamedTuple):
    """The good readings of compact points, a refusal for each bad one, and the number of readings by remark."""

    block: PointBlock
    refusals: Refusals
    remarks: Counter[str]


class _DescribedGpu(NamedTuple):
    place: int
    remarks: frozenset[str]


def salvage_points(gpus: Sequence[Raw], metric_names: list[str], points: Sequence[Raw]) -> SalvagedPoints:
    """Decodes compact points one by one. A point that is bad as a whole gives one refusal per reading in it."""
    good_gpus: list[Gpu] = []
    described = [_gpu_or_refused(number, item, good_gpus) for number, item in enumerate(gpus)]
    good_points: list[Point] = []
    refusals = Refusals()
    remarks: Counter[str] = Counter()
    for number, item in enumerate(points):
        values: list[Raw] = []
        try:
            parts = _decoded(_list, item, BAD_FIELD)
            if len(parts) != 3:
                raise Refused(BAD_FIELD, f"{len(parts)} parts instead of GPU index, time and values")
            values = _decoded(_list, parts[2], BAD_FIELD)
            if len(values) != len(metric_names):
                raise Refused(SHORT_ROW, f"{len(values)} values for {len(metric_names)} metric names")
            gpu = _gpu_at(_decoded(_int, parts[0], NO_IDENTITY), described)
            time_ns = _decoded(_int, parts[1], BAD_TIMESTAMP)
            if not 0 <= time_ns <= INT64_MAX:
                raise Refused(BAD_TIMESTAMP, "the time is before 1970 or beyond 64 bits")
        except Refused as refused:
            original = partial(_point_alone, gpus, metric_names, item)
            refusal = Refusal(refused.reason, f"points[{number}]: {refused.detail}", original=original)
            refusals.refuse(refusal, max(1, sum(bytes(value) != b"null" for value in values)))
            continue
        good: list[float | None] = []
        for name, value in zip(metric_names, values, strict=True):
            try:
                good.append(_decoded(_value, value, BAD_NUMBER))
            except Refused as refused:
                good.append(None)
                original = partial(_value_alone, gpus, name, parts, value)
                detail = f"points[{number}] {name}: {refused.detail}"
                refusals.refuse(Refusal(refused.reason, detail, original=original))
        if (readings := len(good) - good.count(None)) > 0:
            good_points.append((gpu.place, time_ns, good))
            remarks.update(dict.fromkeys(gpu.remarks, readings))
    return SalvagedPoints(PointBlock(good_gpus, metric_names, good_points), refusals, remarks)


def _clean(item: Raw) -> Raw:
    """The item on one line of UTF-8, as a line of dead letters must be. JSON has line breaks only between its parts."""
    text = bytes(item).replace(b"\n", b" ").replace(b"\r", b" ")
    return Raw(text.decode("utf-8", "replace").encode())


def _alone(item: Raw) -> bytes:
    """A batch of one plain reading as it came."""
    return msgspec.json.encode({"metrics": [_clean(item)]})


def _point_alone(gpus: Sequence[Raw], metric_names: list[str], item: Raw) -> bytes:
    """A batch of one point as it came, with its GPU if it names one."""
    point, described = _clean(item), []
    try:
        index, *rest = _list.decode(point)
        number = _int.decode(index)
        if 0 <= number < len(gpus):
            described = [_clean(gpus[number])]
            point = Raw(msgspec.json.encode([0, *rest]))
    except (*DECODE_ERRORS, ValueError):
        pass  # the point as a whole is what is wrong
    return msgspec.json.encode({"gpus": described, "metric_names": metric_names, "points": [point]})


def _value_alone(gpus: Sequence[Raw], name: str, parts: Sequence[Raw], value: Raw) -> bytes:
    """A batch of one value as it came, with its time and GPU."""
    return _point_alone(gpus, [name], Raw(msgspec.json.encode([parts[0], parts[1], [_clean(value)]])))


def _gpu_or_refused(number: int, item: Raw, good: list[Gpu]) -> _DescribedGpu | Refused:
    """The GPU, which becomes the next of the ``good`` ones, or the reason why it is none."""
    try:
        fields = _decoded(_object, item, BAD_FIELD)
        gpu, remarks = describe_gpu(fields)
    except Refused as refused:
        return Refused(refused.reason, f"gpus[{number}]: {refused.detail}")
    good.append(gpu)
    return _DescribedGpu(len(good) - 1, frozenset(remark.reason for remark in remarks))


def _gpu_at(index: int, described: Sequence[_DescribedGpu | Refused]) -> _DescribedGpu:
    if not 0 <= index < len(described):
        raise Refused(NO_IDENTITY, f"GPU index {index} of {len(described)} GPUs")
    gpu = described[index]
    if isinstance(gpu, Refused):
        raise gpu
    return gpu


def _decoded(decoder: msgspec.json.Decoder[T], item: Raw, reason: str) -> T:
    try:
        return decoder.decode(item)
    except DECODE_ERRORS as error:
        text = str(error)
        raise Refused(NON_FINITE if text.startswith("Number out of range") else reason, text) from None
