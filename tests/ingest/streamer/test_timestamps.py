from __future__ import annotations

import random
from functools import partial

import pytest

from ingest.samples import Sample
from ingest.streamer.timestamps import Choice, Stamper, choose
from readings.columns import Columns
from readings.model import Gpu
from readings.times import INT64_MAX, SECOND, parse_time

LAST = parse_time("2025-07-18T20:42:37Z")
DAY = 86400
GPUS = [Gpu(uuid=f"GPU-{number}") for number in range(3)]


def test_source_and_now_need_no_newest_time() -> None:
    assert choose("source", None, retention=DAY, now_ns=LAST) == Choice("source")
    assert choose("now", None, retention=DAY, now_ns=LAST) == Choice("now")
    assert choose("source", LAST, retention=1, now_ns=LAST + DAY * SECOND) == Choice("source")


@pytest.mark.parametrize("wish", ["auto", "shift"])
def test_a_capture_without_any_time_is_not_moved(wish: str) -> None:
    assert choose(wish, None, retention=DAY, now_ns=LAST) == Choice("source")


def test_auto_keeps_times_that_retention_would_keep() -> None:
    young = choose("auto", LAST, retention=DAY, now_ns=LAST + (DAY - 1) * SECOND)
    assert (young.mode, young.shift_ns) == ("source", 0)
    for_ever = choose("auto", LAST, retention=0, now_ns=LAST + 10_000 * DAY * SECOND)
    assert (for_ever.mode, for_ever.shift_ns) == ("source", 0)


def test_auto_moves_an_old_capture_and_says_how_to_keep_its_times() -> None:
    choice = choose("auto", LAST, retention=DAY, now_ns=LAST + (128 * DAY + 3600) * SECOND + 5)
    assert (choice.mode, choice.shift_ns) == ("shift", (128 * DAY + 3600) * SECOND)
    assert "forward by 128d 1h" in choice.explanation
    assert "2025-07-18T20:42:37Z" in choice.explanation
    assert "RETENTION_PERIOD (1d)" in choice.explanation
    assert "set TIMESTAMPS=source and RETENTION_PERIOD=0 to keep them" in choice.explanation
    assert "\n" not in choice.explanation


def test_shift_makes_the_last_reading_now_to_the_second_also_backwards() -> None:
    assert choose("shift", LAST, retention=0, now_ns=LAST + 90 * SECOND + 7).shift_ns == 90 * SECOND
    back = choose("shift", LAST, retention=0, now_ns=LAST - 90 * SECOND)
    assert back.shift_ns == -90 * SECOND
    assert "back by 1m 30s" in back.explanation


def test_a_shift_keeps_the_distances() -> None:
    samples = [Sample(GPUS[0], "A", 10, 1.0), Sample(GPUS[1], "A", 25, 2.0), Sample(GPUS[0], "A", 2, 3.0)]
    moved = Stamper(Choice("shift", 100)).stamp(samples)
    assert [sample.time_ns for sample in moved] == [110, 125, 102]
    assert [sample._replace(time_ns=0) for sample in moved] == [sample._replace(time_ns=0) for sample in samples]
    assert Stamper(Choice("source")).stamp(samples) == samples


def test_a_shift_beyond_64_bits_stays_within_them() -> None:
    assert Stamper(Choice("shift", SECOND)).stamp([Sample(GPUS[0], "A", INT64_MAX - 1, 1.0)])[0].time_ns == INT64_MAX


def test_now_gives_all_metrics_of_a_gpu_one_time() -> None:
    stamper = Stamper(Choice("now"), clock=lambda: 1000)
    stamped = stamper.stamp([Sample(gpu, name, 0, 1.0) for name in "AB" for gpu in GPUS])
    assert {sample.time_ns for sample in stamped} == {1000}


def test_now_is_strictly_increasing_per_series_even_if_the_clock_is_not() -> None:
    clock = iter([1000, 1000, 900, 5000])
    stamper = Stamper(Choice("now"), clock=lambda: next(clock))
    times = []
    for _ in range(4):
        twice = stamper.stamp(
            [Sample(GPUS[0], "A", 7, 1.0), Sample(GPUS[0], "A", 7, 2.0), Sample(GPUS[0], "B", 7, 2.0)]
        )
        times += [sample.time_ns for sample in twice if sample.metric_name == "A"]
    assert times == [1000, 1001, 1002, 1003, 1004, 1005, 5000, 5001]


@pytest.mark.parametrize("mode", ["now", "shift", "source"])
def test_columns_are_stamped_as_samples_are(mode: str) -> None:
    rng = random.Random(4)
    clocks = [[100, 100, 103, 90, 5000], [100, 100, 103, 90, 5000]]
    by_row, by_column = (Stamper(Choice(mode, 7), partial(clock.pop, 0)) for clock in clocks)
    for _ in range(5):
        samples = [Sample(rng.choice(GPUS), rng.choice("xy"), rng.randrange(50), 1.0) for _ in range(40)]
        assert list(by_column.stamp_columns(Columns.of(samples)).readings()) == [
            tuple(each) for each in by_row.stamp(samples)
        ]
    assert by_column.stamp_columns(Columns.of([])).size == 0
