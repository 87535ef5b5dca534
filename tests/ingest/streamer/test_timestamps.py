from __future__ import annotations

import pytest

from ingest.streamer.timestamps import Choice, Stamper, choose
from readings.columns import Columns
from readings.model import Gpu, Reading
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


def stamped(stamper: Stamper, readings: list[Reading]) -> list[Reading]:
    return list(stamper.stamp(Columns.of(readings)).readings())


def test_a_shift_keeps_the_distances() -> None:
    readings: list[Reading] = [(GPUS[0], "A", 10, 1.0), (GPUS[1], "A", 25, 2.0), (GPUS[0], "A", 2, 3.0)]
    moved = stamped(Stamper(Choice("shift", 100)), readings)
    assert moved == [(gpu, name, time_ns + 100, value) for gpu, name, time_ns, value in readings]
    assert stamped(Stamper(Choice("source")), readings) == readings


def test_a_shift_beyond_64_bits_stays_within_them() -> None:
    [moved] = stamped(Stamper(Choice("shift", SECOND)), [(GPUS[0], "A", INT64_MAX - 1, 1.0)])
    assert moved[2] == INT64_MAX


def test_now_gives_all_metrics_of_a_gpu_one_time() -> None:
    stamper = Stamper(Choice("now"), clock=lambda: 1000)
    assert {each[2] for each in stamped(stamper, [(gpu, name, 0, 1.0) for name in "AB" for gpu in GPUS])} == {1000}
    assert stamped(stamper, []) == []


def test_now_is_strictly_increasing_per_series_even_if_the_clock_is_not() -> None:
    clock = iter([1000, 1000, 900, 5000])
    stamper = Stamper(Choice("now"), clock=lambda: next(clock))
    times = []
    for _ in range(4):
        twice = stamped(stamper, [(GPUS[0], "A", 7, 1.0), (GPUS[0], "A", 7, 2.0), (GPUS[0], "B", 7, 2.0)])
        times += [time_ns for _, name, time_ns, _ in twice if name == "A"]
    assert times == [1000, 1001, 1002, 1003, 1004, 1005, 5000, 5001]
