from __future__ import annotations

import os
import signal

import pytest

from bench.fleet import WARM_UP_S, Growth, by_minute, ended_by_sigterm, growth, printed


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


def test_a_run_is_told_in_some_lines() -> None:
    found = {
        "gpus": 10_000, "metrics": 25, "store": "influxdb", "settings": {"FLUSH_INTERVAL": "1s"},
        "cpu_share": {"broker": 0.013}, "cpu_s_per_million": {"broker": 0.52},
        "age_s": {"p50": 5.71, "p99": 10.5, "count": 1800, "failed": 1},
        "memory_mib": {"broker": 33.2}, "memory_mib_an_hour": {"broker": Growth(0.41, 0.02)._asdict()},
        "times": {"/api/v1/hosts": {"p50": 50.3, "p95": 180.2}}, "generator_late_s": 0.1, "load": 0.7,
    }  # fmt: skip
    head, cpu, ages, memory, times, rest = printed(found).splitlines()
    assert head == "10,000 GPUs x 25 metrics on influxdb {'FLUSH_INTERVAL': '1s'}"
    assert cpu.endswith("broker 1.3% (0.52)")
    assert ages == "  data age p50 5.7 s, p99 10.5 s; 1800 answers, 1 failed"
    assert memory == "  memory, MiB: broker 33 (+0.4 ± 0.0 an hour)"
    assert times.split() == ["/api/v1/hosts", "p50", "50.3", "ms", "p95", "180.2", "ms"]
    assert rest.endswith("load 0.7")
