from __future__ import annotations

import os
import signal

import pytest

from bench.fleet import WARM_UP_S, Growth, by_minute, ended_by_sigterm, growth


def test_growth_is_that_after_the_warm_up() -> None:
    flat = [(float(at), 100.0) for at in range(0, 7200, 60)]
    filling = [(at, mib + at / 60) if at < WARM_UP_S else (at, mib) for at, mib in flat]
    assert growth(flat) == growth(filling) == Growth(0.0, 0.0)
    found = growth([(at, mib + at / 1800) for at, mib in flat])
    assert found.slope == pytest.approx(2.0)
    assert found.error == pytest.approx(0.0, abs=1e-6)


def test_growth_says_how_sure_it_is() -> None:
    noisy = [(float(at), 100.0 + (at // 60 % 2)) for at in range(0, 7200, 60)]
    found = growth(noisy)
    assert abs(found.slope) < found.error < 0.5


def test_a_run_that_is_shorter_than_the_warm_up_uses_its_last_two_thirds() -> None:
    assert growth([(float(at), max(30.0, float(at))) for at in range(90)]).slope == pytest.approx(3600.0)
    assert growth([]) == growth([(0.0, 1.0), (5.0, 1.0)]) == Growth(0.0, 0.0)


def test_memory_by_minute() -> None:
    assert by_minute([(0.0, 1.0), (59.0, 2.0), (61.0, 3.0), (185.0, 4.0)]) == [(0, 1.0), (1, 3.0), (3, 4.0)]


def test_sigterm_ends_a_run_with_what_there_is() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ended_by_sigterm() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) == before
