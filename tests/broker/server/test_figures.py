from __future__ import annotations

import time

import pytest

from broker.server.figures import CachedFigures


def test_what_costs_much_is_kept_longer_than_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    built = []

    def build() -> int:
        nonlocal now
        now += 0.01
        built.append(now)
        return len(built)

    monkeypatch.setattr("broker.server.figures.time.monotonic", lambda: now)
    figures = CachedFigures(build)
    assert [figures.get() for _ in range(1000)] == [1] * 1000
    now += 0.1
    assert figures.get() == 1
    now += 0.11
    assert figures.get() == 2


def test_nothing_is_kept_for_more_than_a_second() -> None:
    built = 0

    def build() -> int:
        nonlocal built
        time.sleep(0.1)  # so dear that its share would be two seconds
        built += 1
        return built

    figures = CachedFigures(build)
    began = time.monotonic()
    while figures.get() == 1:
        time.sleep(0.01)
    assert time.monotonic() - began > 0.9
    assert built == 2
