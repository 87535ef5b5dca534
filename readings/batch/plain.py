"""The plain form of a batch: one JSON object per reading, so that any client can publish it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple, cast

import msgspec
from msgspec import UnsetType

from readings.batch.message import PlainReading
from readings.blocks import BlockBuilder
from readings.catalogue import PART_LABELS, name_of_part
from readings.checks import (
    BAD_NUMBER,
    BAD_TIMESTAMP,
    DUPLICATE_ROW,
    Refusal,
    Refusals,
    Refused,
    check_metric_name,
    parse_value,
)
from readings.description import describe_gpu
from readings.labels import OWNER_LABELS, Remark, is_blank_identity, split_labels
from readings.model import Gpu
from readings.times import epoch_ns, parse_time

_FIELDS = ("uuid", "hostname", "gpu_id", "device", "model_name", "container", "pod", "namespace")
_description = attrgetter(*_FIELDS)


class PlainReadings(NamedTuple):
    """What plain readings give: the good ones, a refusal for each bad one, and the number of readings by remark."""

    builder: BlockBuilder
    refusals: Refusals
    remarks: Counter[str]


class Salvaged(NamedTuple):
    """A reading without its fields that cannot be decoded and are not needed, and a remark on each."""

    reading: PlainReading
    remarks: list[Remark]


class _PlainGpu(NamedTuple):
    gpu: Gpu
    identity: int
    is_of_part: bool
    remarks: frozenset[str]


def read_metrics(metrics: Iterable[PlainReading | Salvaged | Refused]) -> PlainReadings:
    """Checks the readings and gathers them. Items refused before keep their number.

    Of two readings of one GPU, metric and time that differ in a label or another field, and not in the pod, the second is refused.
    """
    # Few batches describe a GPU twice, and only there readings need comparing. What is salvaged comes one by one, and only once.
    found = _read(metrics, compares=False) if isinstance(metrics, Sequence) else None
    return found or cast("PlainReadings", _read(metrics, compares=True))


def _read(metrics: Iterable[PlainReading | Salvaged | Refused], *, compares: bool) -> PlainReadings | None:
    """The readings; None if they have to be compared and are not."""
    found = PlainReadings(BlockBuilder(), Refusals(), Counter())
    told: dict[tuple[int, str, int], _PlainGpu] = {}
    identities: dict[tuple[str, ...], int] = {}
    # GPUs and names are checked once per batch, not per reading.
    gpus: dict[Hashable, _PlainGpu] = {}
    names: dict[str, str] = {}
    for number, metric in enumerate(metrics):
        try:
            left_out: list[Remark] = []
            if not isinstance(metric, PlainReading):
                if isinstance(metric, Refused):
                    raise metric
                metric, left_out = metric
            value = metric.value
            if value is None:
                continue
            if isinstance(value, UnsetType):
                raise Refused(BAD_NUMBER, "value is missing")
            key = (_description(metric), tuple(metric.labels.items()) if metric.labels else None)
            described = gpus.get(key)
            if described is None:
                described = gpus[key] = _describe(metric, identities)
                if not compares and len(gpus) > len(identities):
                    return None
            name = names.get(metric.metric_name)
            if name is None:
                name = names[metric.metric_name] = check_metric_name(metric.metric_name)
            time_ns = _time_of(metric)
            number_read = parse_value(value) if isinstance(value, str) else value
            if described.is_of_part:
                name = name_of_part(name, metric.labels or {})
            if compares and told.setdefault((described.identity, name, time_ns), described) is not described:
                raise Refused(DUPLICATE_ROW, f"{name} of {described.gpu.id}: no label tells it from an earlier one")
            found.builder.add(described.gpu, name, time_ns, number_read)
            if described.remarks or left_out:
                found.remarks.update(described.remarks.union(remark.reason for remark in left_out))
        except Refused as refused:
            if found.refusals.full:
                found.refusals.counts[refused.reason] += 1
                continue
            refusal = Refusal(refused.reason, f"metrics[{number}]: {refused.detail}", original=_original(metric))
            found.refusals.refuse(refusal)
    return found


def _original(metric: PlainReading | Salvaged | Refused) -> Callable[[], bytes] | None:
    """Makes a batch of this reading alone, as it came."""
    if isinstance(metric, Refused):
        return metric.original
    reading = metric.reading if isinstance(metric, Salvaged) else metric
    return lambda: msgspec.json.encode({"metrics": [reading]})


def _describe(metric: PlainReading, identities: dict[tuple[str, ...], int]) -> _PlainGpu:
    labels, extras = split_labels(metric.labels) if metric.labels else ({}, {})
    given = {name: value for name in _FIELDS if (value := getattr(metric, name)) is not None and value != ""}
    if "uuid" in labels and is_blank_identity(metric.uuid or ""):
        given["uuid"] = labels["uuid"]
    gpu, remarks = describe_gpu({**labels, **given, "labels": extras})
    owner = [f"{name}={value}" for name, value in (metric.labels or {}).items() if name in OWNER_LABELS]
    identity = identities.setdefault((gpu.id, gpu.namespace, gpu.pod, gpu.container, *sorted(owner)), len(identities))
    is_of_part = metric.labels is not None and not metric.labels.keys().isdisjoint(PART_LABELS)
    return _PlainGpu(gpu, identity, is_of_part, frozenset(remark.reason for remark in remarks))


def _time_of(metric: PlainReading) -> int:
    try:
        time_ns = parse_time(metric.timestamp) if isinstance(metric.timestamp, str) else epoch_ns(metric.timestamp)
    except ValueError as error:
        raise Refused(BAD_TIMESTAMP, str(error)) from None
    if time_ns < 0:
        raise Refused(BAD_TIMESTAMP, f"time {metric.timestamp!r} is before 1970")
    return time_ns
