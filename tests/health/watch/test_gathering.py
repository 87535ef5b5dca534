"""What is judged together follows from the log alone."""

from __future__ import annotations

from health.watch.gathering import LARGE_POINTS, MOST_POINTS, WINDOW_MS, Gathering, Moment
from readings.batch import DecodedBatch, decode
from readings.model import Gpu
from tests.health.engine.building import START, TEMP, UTIL
from tests.health.watch.wiring import batch


def message(number: int, metric: str = UTIL, source: str = "s", points: int = 1) -> DecodedBatch:
    gpus = [Gpu(uuid=f"GPU-{number}-{each}", hostname="h") for each in range(points)]
    return decode(batch(number, [(gpu, {metric: 1.0}) for gpu in gpus], start_ns=START, source=source))


def gathered(moment: Moment | None) -> list[tuple[str, list[str], list[str]]]:
    assert moment is not None
    return [
        (each.source, each.block.metric_names, [each.block.gpus[index].uuid for index, _, _ in each.block.points])
        for each in moment.blocks
    ]


def test_messages_of_a_moment_are_one_block_for_each_source_and_list_of_metrics() -> None:
    gathering = Gathering()
    assert gathering.add(message(1), 0, "a", 1000) is None
    assert gathering.add(message(2, TEMP), 1, "b", 1001) is None
    assert gathering.add(message(3), 2, "c", 1100) is None
    assert gathering.add(message(4, source="t"), 3, "d", 1200) is None
    moment = gathering.add(message(5), 4, "e", 1000 + WINDOW_MS)
    assert gathered(moment) == [
        ("s", [UTIL], ["GPU-1-0", "GPU-3-0"]),
        ("s", [TEMP], ["GPU-2-0"]),
        ("t", [UTIL], ["GPU-4-0"]),
    ]
    assert moment is not None
    assert (moment.offset, moment.c32) == (3, "d")
    assert {each.received_ns for each in moment.blocks} == {1200 * 10**6}
    assert gathered(gathering.take()) == [("s", [UTIL], ["GPU-5-0"])]
    assert gathering.take() is None


def test_a_gpu_that_comes_with_another_time_begins_a_new_moment() -> None:
    gathering = Gathering()
    first, again = message(1), message(1, TEMP)
    later = decode(batch(9, [(Gpu(uuid="GPU-1-0", hostname="h"), {UTIL: 2.0})], start_ns=START))
    gathering.add(first, 0, "a", 1000)
    assert gathering.add(again, 1, "b", 1000) is None  # another part of the same point
    moment = gathering.add(later, 2, "c", 1000)
    assert moment is not None
    assert (moment.offset, len(moment.blocks)) == (1, 2)


def test_a_moment_has_its_limit_and_counts_messages_that_are_no_batch() -> None:
    gathering = Gathering()
    gathering.add(message(1, points=MOST_POINTS), 0, "a", 1000)
    moment = gathering.add(None, 1, "b", 1000)
    assert moment is not None
    assert moment.offset == 0
    last = gathering.take()
    assert last is not None
    assert (last.blocks, last.offset) == ([], 1)
    gathering.add(message(2), 2, "c", 1000)
    gathering.clear()
    assert not gathering


def test_a_message_that_is_larger_than_any_streamers_is_judged_by_itself() -> None:
    gathering = Gathering()
    gathering.add(message(1), 0, "", 1000)
    assert gathered(gathering.add(message(2, points=LARGE_POINTS + 1), 1, "", 1000)) == [("s", [UTIL], ["GPU-1-0"])]
    alone = gathering.add(message(3), 2, "", 1000)
    assert alone is not None
    assert [len(each.block.points) for each in alone.blocks] == [LARGE_POINTS + 1]
    assert gathered(gathering.take()) == [("s", [UTIL], ["GPU-3-0"])]
