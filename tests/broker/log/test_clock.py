from __future__ import annotations

import time

import pytest

from broker.log.clock import Clock
from tests.broker.logs import StillClock


def test_the_clock_tells_unix_milliseconds() -> None:
    clock = Clock()
    before = time.time()
    assert before * 1000 - 1 <= clock.now_ms() <= time.time() * 1000 + 1
    assert clock.steady() <= clock.steady()
    assert not clock.jumped()


@pytest.mark.parametrize(
    ("seconds", "jumped"), [(0, False), (3000, False), (-3000, False), (4000, True), (-4000, True), (3e7, True)]
)
def test_it_knows_that_the_wall_clock_was_set(seconds: float, jumped: bool) -> None:
    clock = StillClock()
    clock.pass_time(1e6)
    assert not clock.jumped()
    clock.wall_ms += int(seconds * 1000)
    assert clock.jumped() is jumped
