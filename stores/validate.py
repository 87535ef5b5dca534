"""Separates readings that no store can hold, so that one bad value does not stop the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from readings.model import Gpu, Point, PointBlock
from stores.base import RefusedReading, describe

_FIRST_NS, _LAST_NS = -(1 << 63), (1 << 63) - 1


def split_storable(blocks: Sequence[PointBlock]) -> tuple[list[PointBlock], list[RefusedReading]]:
    """The blocks without what no store can hold, with floats for values, and the readings that were taken out."""
    beyond = "the time is beyond 64 bits of nanoseconds"
    return split(
        blocks,
        _gpu_fault,
        lambda time_ns: None if _FIRST_NS <= time_ns <= _LAST_NS else beyond,
        lambda name: _text_fault("metric name", name),
    )


def split(
    blocks: Sequence[PointBlock],
    gpu_fault: Callable[[Gpu], str | None],
    time_fault: Callable[[int], str | None],
    name_fault: Callable[[str], str | None],
) -> tuple[list[PointBlock], list[RefusedReading]]:
    """The blocks without the readings that have a fault, with floats for values, and those readings."""
    refused: list[RefusedReading] = []
    kept = []
    for block in blocks:
        gpu_faults, name_faults = list(map(gpu_fault, block.gpus)), list(map(name_fault, block.metric_names))
        points: list[Point] = []
        for index, time_ns, values in block.points:
            point_fault = gpu_faults[index] or time_fault(time_ns)
            storable: list[float | None] = []
            for name, fault_of_name, value in zip(block.metric_names, name_faults, values, strict=True):
                fault = None if value is None else point_fault or fault_of_name or _value_fault(value)
                if fault is not None and value is not None:
                    refused.append(RefusedReading(block.gpus[index].id, name, time_ns, value, fault))
                storable.append(None if value is None or fault is not None else float(value))
            # A point without readings goes too: its GPU or time may be the fault.
            if storable.count(None) < len(storable):
                points.append((index, time_ns, storable))
        kept.append(PointBlock(block.gpus, block.metric_names, points))
    return kept, refused


def _gpu_fault(gpu: Gpu) -> str | None:
    if gpu.gpu_id is not None and not _FIRST_NS <= gpu.gpu_id <= _LAST_NS:
        return "the GPU's index is beyond 64 bits"
    texts = (text for text in describe(gpu) if isinstance(text, str))
    return next((fault for text in texts if (fault := _text_fault("GPU's description", text))), None)


def _text_fault(what: str, text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"the {what} is not valid Unicode"
    return None


def _value_fault(value: float) -> str | None:
    try:
        return None if math.isfinite(value) else "the value is not finite"
    except (TypeError, OverflowError):
        return "the value is not a number that fits 64 bits"
