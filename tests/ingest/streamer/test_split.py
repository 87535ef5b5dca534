from __future__ import annotations

from ingest.streamer.split import split_block
from readings.model import Gpu, PointBlock

GPUS = [Gpu(uuid=f"GPU-{number}") for number in range(3)]


def readings(block: PointBlock) -> set[tuple[str, str, int, float]]:
    return {
        (block.gpus[index].uuid, name, time_ns, value)
        for index, time_ns, values in block.points
        for name, value in zip(block.metric_names, values, strict=True)
        if value is not None
    }


def test_halves_hold_everything_once_and_only_what_they_need() -> None:
    block = PointBlock(GPUS, ["A", "B"], [(0, 1, [1.0, None]), (1, 1, [2.0, None]), (2, 1, [3.0, 4.0])])
    halves = split_block(block)
    assert halves is not None
    first, second = halves
    assert first == PointBlock([GPUS[0]], ["A"], [(0, 1, [1.0])])
    assert readings(first) | readings(second) == readings(block)
    assert first.count() + second.count() == block.count()


def test_a_block_can_be_cut_down_to_single_readings() -> None:
    block = PointBlock(GPUS[:1], ["A", "B", "C"], [(0, 1, [1.0, 2.0, 3.0])])
    parts = [block]
    singles = []
    while parts:
        part = parts.pop()
        halves = split_block(part)
        if halves is None:
            singles.append(part)
        else:
            parts += halves
    assert len(singles) == 3
    assert set().union(*map(readings, singles)) == readings(block)


def test_what_holds_nothing_cannot_be_cut() -> None:
    assert split_block(PointBlock([], [], [])) is None
