"""Halves of a block whose frame would be larger than the broker takes."""

from __future__ import annotations

from collections.abc import Sequence

from readings.model import Point, PointBlock


def split_block(block: PointBlock) -> tuple[PointBlock, PointBlock] | None:
    """The block in two, each with only the GPUs and metric names it needs; None when it holds one reading or none."""
    points = block.points
    if len(points) > 1:
        middle = len(points) // 2
        return _part(block, points[:middle]), _part(block, points[middle:])
    if len(points) == 1:
        gpu, time_ns, values = points[0]
        middle = len(values) // 2
        if middle:
            return (
                _part(block, [(gpu, time_ns, [*values[:middle], *[None] * (len(values) - middle)])]),
                _part(block, [(gpu, time_ns, [*[None] * middle, *values[middle:]])]),
            )
    return None


def _part(block: PointBlock, points: Sequence[Point]) -> PointBlock:
    gpus = sorted({index for index, _, _ in points})
    new_index = {old: new for new, old in enumerate(gpus)}
    width = range(len(block.metric_names))
    columns = [at for at in width if any(values[at] is not None for _, _, values in points)]
    return PointBlock(
        [block.gpus[index] for index in gpus],
        [block.metric_names[at] for at in columns],
        [(new_index[index], time_ns, [values[at] for at in columns]) for index, time_ns, values in points],
    )
