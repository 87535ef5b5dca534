"""Decodes a damaged batch item by item, so one bad reading does not discard the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw

from readings.batch.message import DECODE_ERRORS, PlainReading
from readings.checks import (
    BAD_FIELD,
    BAD_NUMBER,
    BAD_TIMESTAMP,
    NO_IDENTITY,
    NO_METRIC,
    NON_FINITE,
    SHORT_ROW,
    Refusal,
    Refused,
    check_gpu,
)
from readings.model import Gpu, Point, PointBlock
from readings.times import INT64_MAX

T = TypeVar("T")

_gpu = msgspec.json.Decoder(Gpu)
_metric = msgspec.json.Decoder(PlainReading)
_list = msgspec.json.Decoder(list[Raw])
_int = msgspec.json.Decoder(int)
_value = msgspec.json.Decoder(float | None)

_METRIC_REASONS = (
    ("Number out of range - at `$.value`", NON_FINITE),
    ("`$.value`", BAD_NUMBER),
    ("`$.timestamp`", BAD_TIMESTAMP),
    ("`$.uuid`", NO_IDENTITY),
    ("`$.metric_name`", NO_METRIC),
)


def salvage_metrics(items: Sequence[Raw]) -> Iterator[PlainReading | Refused]:
    """Each plain reading, or the reason why it cannot be decoded."""
    for item in items:
        try:
            yield _decoded(_metric, item, BAD_FIELD)
        except Refused as refused:
            reason = next((reason for path, reason in _METRIC_REASONS if path in refused.detail), refused.reason)
            yield Refused(reason, refused.detail)


def salvage_points(
    gpus: Sequence[Raw], metric_names: list[str], points: Sequence[Raw]
) -> tuple[PointBlock, list[Refusal]]:
    """The good readings of compact points. A point that is bad as a whole gives one refusal per reading in it."""
    described = [_gpu_or_refused(number, item) for number, item in enumerate(gpus)]
    good_gpus = [gpu for gpu in described if isinstance(gpu, Gpu)]
    places = {id(gpu): place for place, gpu in enumerate(good_gpus)}
    good_points: list[Point] = []
    refusals: list[Refusal] = []
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
            refusal = Refusal(refused.reason, f"points[{number}]: {refused.detail}")
            refusals += [refusal] * max(1, sum(bytes(value) != b"null" for value in values))
            continue
        good: list[float | None] = []
        for name, value in zip(metric_names, values, strict=True):
            try:
                good.append(_decoded(_value, value, BAD_NUMBER))
            except Refused as refused:
                good.append(None)
                refusals.append(Refusal(refused.reason, f"points[{number}] {name}: {refused.detail}"))
        if good.count(None) < len(good):
            good_points.append((places[id(gpu)], time_ns, good))
    return PointBlock(good_gpus, metric_names, good_points), refusals


def _gpu_or_refused(number: int, item: Raw) -> Gpu | Refused:
    try:
        return check_gpu(_decoded(_gpu, item, BAD_FIELD))
    except Refused as refused:
        reason = NO_IDENTITY if "`$.uuid`" in refused.detail or "`uuid`" in refused.detail else refused.reason
        return Refused(reason, f"gpus[{number}]: {refused.detail}")


def _gpu_at(index: int, described: Sequence[Gpu | Refused]) -> Gpu:
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
