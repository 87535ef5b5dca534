"""The plain form of a batch: one JSON object per reading, as any client may publish it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import msgspec
from msgspec import UNSET, UnsetType

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


class Metric(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One reading on the wire. A ``value`` of null is no reading; what else is missing is refused when it is looked at.

    ``timestamp`` is RFC 3339 or a Unix time in s, ms, µs or ns; ``gpu_id`` a number or its digits; ``value`` a number or its
    text. ``labels`` may hold every label of the exporter: what is a column here only fills in a column that is not given.
    """

    timestamp: int | float | str = ""
    metric_name: str = ""
    value: float | str | UnsetType | None = UNSET
    uuid: str | None = None
    gpu_id: int | str | None = None
    device: str | None = None
    model_name: str | None = None
    hostname: str | None = None
    container: str | None = None
    pod: str | None = None
    namespace: str | None = None
    labels: Mapping[str, str] | None = None


class MetricReader:
    """Turns plain readings into the readings of a builder; keeps a refusal for each that it cannot take."""

    def __init__(self) -> None:
        self.builder = BlockBuilder()
        self.refusals: list[Refusal] = []
        # Once per GPU and name of the batch, not per reading.
        self._gpus: dict[Hashable, Gpu] = {}
        self._names: dict[str, str] = {}

    def read(self, metrics: Iterable[Metric]) -> None:
        """Take them all, numbered from 0 in the refusals' details."""
        for number, metric in enumerate(metrics):
            self.read_one(number, metric)

    def read_one(self, number: int, metric: Metric) -> None:
        """Take the reading with that number."""
        try:
            self._add(metric)
        except Refused as refused:
            self.refuse(number, refused)

    def refuse(self, number: int, refused: Refused) -> None:
        """Note that the reading with that number cannot be taken."""
        self.refusals.append(Refusal(refused.reason, f"metrics[{number}]: {refused.detail}"))

    def _add(self, metric: Metric) -> None:
        value = metric.value
        if value is None:
            return
        if isinstance(value, UnsetType):
            raise Refused(BAD_NUMBER, "value is missing")
        labels = tuple(metric.labels.items()) if metric.labels else None
        described = (metric.uuid, metric.hostname, metric.gpu_id, metric.device, metric.model_name)
        key = (described, metric.container, metric.pod, metric.namespace, labels)
        gpu = self._gpus.get(key)
        if gpu is None:
            gpu = self._gpus[key] = check_gpu(_gpu_of(metric))
        name = self._names.get(metric.metric_name)
        if name is None:
            name = self._names[metric.metric_name] = check_metric_name(metric.metric_name)
        self.builder.add(gpu, name, _time_of(metric), parse_value(value) if isinstance(value, str) else value)


def _gpu_of(metric: Metric) -> Gpu:
    told, extras = split_labels(metric.labels) if metric.labels else ({}, {})
    uuid = (metric.uuid or told.get("uuid", "")).strip()
    if not uuid:
        raise Refused(NO_IDENTITY, "uuid is missing")
    return Gpu(
        uuid=uuid,
        hostname=metric.hostname or told.get("hostname", ""),
        gpu_id=_index(told.get("gpu_id") if metric.gpu_id is None else metric.gpu_id),
        device=metric.device or told.get("device", ""),
        model_name=metric.model_name or told.get("model_name", ""),
        mig_id=told.get("mig_id", ""),
        mig_profile=told.get("mig_profile", ""),
        container=metric.container or told.get("container", ""),
        pod=metric.pod or told.get("pod", ""),
        namespace=metric.namespace or told.get("namespace", ""),
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


def _time_of(metric: Metric) -> int:
    try:
        time_ns = parse_time(metric.timestamp) if isinstance(metric.timestamp, str) else epoch_ns(metric.timestamp)
    except ValueError as error:
        raise Refused(BAD_TIMESTAMP, str(error)) from None
    if time_ns < 0:
        raise Refused(BAD_TIMESTAMP, f"time {metric.timestamp!r} is before 1970")
    return time_ns
