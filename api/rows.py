"""Readings as they are answered: one flat dict a row, no object in between."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from readings.catalogue import unit_of
from readings.times import format_time
from stores.base import Row


def reading_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows as answered. Many share a time or a metric, so each is worded once."""
    times: dict[int, str] = {}
    units: dict[str, str] = {}
    answer: list[dict[str, Any]] = []
    for row in rows:
        if (timestamp := times.get(row.time_ns)) is None:
            timestamp = times[row.time_ns] = format_time(row.time_ns)
        if (unit := units.get(row.metric_name)) is None:
            unit = units[row.metric_name] = unit_of(row.metric_name)
        reading: dict[str, Any] = {
            "timestamp": timestamp,
            "metric_name": row.metric_name,
            "gpu_id": row.gpu_id,
            "device": row.device,
            "uuid": row.uuid,
            "model_name": row.model_name,
            "hostname": row.hostname,
            "container": row.container,
            "pod": row.pod,
            "namespace": row.namespace,
            "value": row.value,
            "unit": unit,
        }
        if row.mig_id:
            reading["mig_id"] = row.mig_id
        answer.append(reading)
    return answer
