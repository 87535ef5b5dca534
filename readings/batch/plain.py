"""The plain form of a batch: one JSON object per reading, so that any client can publish it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from operator import attrgetter

from msgspec import UnsetType

from readings.batch.message import PlainReading
from readings.blocks import BlockBuilder
from readings.checks import (
    BAD_FIELD,
    BAD_NUMBER,
    BAD_TIMESTAMP,
    NO_IDENTITY,
    Refusal,
    Refused,
    check_gpu,
    check_metric_name,
    parse_value,
)
from readings.labels import split_labels
from readings.model import Gpu
from readings.times import epoch_ns, parse_time

_description = attrgetter("uuid", "hostname", "gpu_id", "device", "model_name", "container", "pod", "namespace")


def read_metrics(metrics: Iterable[PlainReading | Refused]) -> tuple[BlockBuilder, list[Refusal]]:
    """Returns the readings, in a builder, and a refusal for each bad one. Items refused before keep their number."""
    builder = BlockBuilder()
    refusals: list[Refusal] = []
    # GPUs and names are checked once per batch, not per reading.
    gpus: dict[Hashable, Gpu] = {}
    names: dict[str, str] = {}
    for number, metric in enumerate(metrics):
        try:
            if isinstance(metric, Refused):
                raise metric
            value = metric.value
            if value is None:
                continue
            if isinstance(value, UnsetType):
                raise Refused(BAD_NUMBER, "value is missing")
            key = (_description(metric), tuple(metric.labels.items()) if metric.labels else None)
            gpu = gpus.get(key)
            if gpu is None:
                gpu = gpus[key] = check_gpu(_gpu_of(metric))
            name = names.get(metric.metric_name)
            if name is None:
                name = names[metric.metric_name] = check_metric_name(metric.metric_name)
            builder.add(gpu, name, _time_of(metric), parse_value(value) if isinstance(value, str) else value)
        except Refused as refused:
            refusals.append(Refusal(refused.reason, f"metrics[{number}]: {refused.detail}"))
    return builder, refusals


def _gpu_of(metric: PlainReading) -> Gpu:
    labels, extras = split_labels(metric.labels) if metric.labels else ({}, {})
    uuid = (metric.uuid or labels.get("uuid", "")).strip()
    if not uuid:
        raise Refused(NO_IDENTITY, "uuid is missing")
    return Gpu(
        uuid=uuid,
        hostname=metric.hostname or labels.get("hostname", ""),
        gpu_id=_index(labels.get("gpu_id") if metric.gpu_id is None else metric.gpu_id),
        device=metric.device or labels.get("device", ""),
        model_name=metric.model_name or labels.get("model_name", ""),
        mig_id=labels.get("mig_id", ""),
        mig_profile=labels.get("mig_profile", ""),
        container=metric.container or labels.get("container", ""),
        pod=metric.pod or labels.get("pod", ""),
        namespace=metric.namespace or labels.get("namespace", ""),
        labels=extras,
    )


def _index(gpu_id: int | str | None) -> int | None:
    if not isinstance(gpu_id, str):
        return gpu_id
    digits = gpu_id.strip()
    if not digits:
        return None
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise Refused(BAD_FIELD, f"gpu_id {gpu_id[:40]!r} is no whole number")
    return int(digits)


def _time_of(metric: PlainReading) -> int:
    try:
        time_ns = parse_time(metric.timestamp) if isinstance(metric.timestamp, str) else epoch_ns(metric.timestamp)
    except ValueError as error:
        raise Refused(BAD_TIMESTAMP, str(error)) from None
    if time_ns < 0:
        raise Refused(BAD_TIMESTAMP, f"time {metric.timestamp!r} is before 1970")
    return time_ns
