"""Compact points that tell two values of one GPU, metric and time: the first is taken, and others are refused."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from readings.checks import DUPLICATE_ROW, Refusal, Refusals
from readings.model import Gpu, Point, PointBlock


class _First(NamedTuple):
    entry: int
    value: float


def without_repeats(block: PointBlock) -> tuple[PointBlock, Refusals]:
    """The block, in which entries of ``gpus`` that describe one GPU do not contradict each other, and the refusals.

    Batches whose GPUs each have one entry, as nearly all, are returned as they are.
    """
    refusals = Refusals()
    identities = [_identity(gpu) for gpu in block.gpus]
    if len(set(identities)) == len(identities):
        return block, refusals
    entries = Counter(identities)
    told: dict[tuple[object, int], list[_First | None]] = {}
    points: list[Point] = []
    for point in block.points:
        index, time_ns, values = point
        identity = identities[index]
        if entries[identity] > 1:
            kept = list(values)
            firsts = told.setdefault((identity, time_ns), [None] * len(values))
            for column, value in enumerate(values):
                first = firsts[column]
                if value is None:
                    continue
                if first is None:
                    firsts[column] = _First(index, value)
                elif first.entry != index and first.value != value:
                    kept[column] = None
                    refusals.refuse(_refusal(block, index, time_ns, column, value))
            point = (index, time_ns, kept)
        points.append(point)
    return PointBlock(block.gpus, block.metric_names, points), refusals


def _identity(gpu: Gpu) -> tuple[str, ...]:
    return (gpu.id, gpu.namespace, gpu.pod, gpu.container) if gpu.share else (gpu.id,)


def _refusal(block: PointBlock, index: int, time_ns: int, column: int, value: float) -> Refusal:
    gpu, name = block.gpus[index], block.metric_names[column]
    return Refusal(
        DUPLICATE_ROW,
        f"{name} of {gpu.id}: {value!r} in gpus[{index}], and another value for the same time under another entry",
        PointBlock([gpu], [name], [(0, time_ns, [value])]),
    )
