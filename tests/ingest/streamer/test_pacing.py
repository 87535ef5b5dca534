from __future__ import annotations

import pytest

from ingest.streamer.pacing import CHUNK_ROWS, Pacer, SpeedPacer
from readings.columns import Columns
from readings.model import Gpu
from readings.times import SECOND


def readings(count: int, time_ns: int = 0) -> Columns:
    return Columns.of([(Gpu(uuid="GPU-1"), "x", time_ns, 1.0)] * count)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_rate_nothing_waits() -> None:
    pacer = Pacer(0)
    assert pacer.chunk == CHUNK_ROWS
    assert pacer.took(readings(CHUNK_ROWS)) == 0.0


@pytest.mark.parametrize(("rate", "chunk"), [(0.5, 1), (10, 1), (500, 50), (1e9, CHUNK_ROWS)])
def test_chunks_are_a_tenth_of_a_second(rate: float, chunk: int) -> None:
    assert Pacer(rate).chunk == chunk


@pytest.mark.parametrize("rate", [0.5, 30, 500, 12_345])
def test_the_rate_is_kept_whatever_reading_itself_takes(rate: float) -> None:
    clock = Clock()
    pacer = Pacer(rate, clock)
    taken = 0
    while taken < 20 * rate:
        clock.now += 0.01  # reading
        taken += pacer.chunk
        clock.now += pacer.took(readings(pacer.chunk))
    assert taken / (clock.now - 100) == pytest.approx(rate, rel=0.02)


def test_after_a_hold_up_it_does_not_catch_up_in_a_burst() -> None:
    clock = Clock()
    pacer = Pacer(100, clock)
    clock.now += 3600
    free = 0
    while pacer.took(readings(10)) == 0.0:
        free += 10
    assert free <= 100


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_a_speed_follows_the_readings_own_times(speed: float) -> None:
    clock = Clock()
    pacer = SpeedPacer(speed, clock)
    assert pacer.took(readings(0)) == 0.0
    for second in range(0, 100, 5):
        clock.now += 0.01  # reading
        clock.now += pacer.took(readings(1, (7 + second) * SECOND))
        assert clock.now == pytest.approx(100.01 + second / speed, abs=0.011)
