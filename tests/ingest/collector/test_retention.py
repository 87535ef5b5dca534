from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.collector.retention import Retention
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND
from stores.base import Store
from stores.memory import MemoryStore
from stores.sqlite import SqliteStore

HOUR = 3600 * SECOND
NOW = time.time_ns()
DAY = 86400.0


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "r.sqlite3")
    yield store
    store.close()


class At:
    """A clock so many hours ahead."""

    def __init__(self, hours: float = 0.0) -> None:
        self.hours = hours

    def __call__(self) -> int:
        return NOW + round(self.hours * HOUR)


def fill(store: Store, hours_old: range) -> None:
    points: list[Point] = [(0, NOW - hours * HOUR, [1.0]) for hours in hours_old]
    store.write([PointBlock([Gpu(uuid="GPU-1")], ["m"], points)])


def held(store: Store) -> int | None:
    return store.stats().readings


async def test_a_clock_that_is_two_days_ahead_drops_nothing_and_says_so(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store, range(24))
    clock = At(50)
    retention = Retention(store, DAY, tmp_path / "confirm", now_ns=clock)
    with caplog.at_level(logging.INFO):
        assert [await retention.apply() for _ in range(3)] == [0, 0, 0]
        assert (held(store), retention.waiting) == (24, True)
        (line,) = caplog.messages
        assert "the newest reading is 2d 2h old" in line
        assert "100 % of the time in the store" in line
        assert str(tmp_path / "confirm") in line
        clock.hours = 0  # it was set right
        assert await retention.apply() == 0
    assert (held(store), retention.waiting) == (24, False)
    assert caplog.messages[-1] == "retention goes on"


async def test_newer_readings_agree_with_the_clock(tmp_path: Path, store: Store) -> None:
    fill(store, range(60, 100))
    retention = Retention(store, DAY, tmp_path / "confirm", now_ns=At())
    assert await retention.apply() == 0
    assert retention.waiting
    fill(store, range(1))
    assert await retention.apply() == 40
    assert (held(store), retention.waiting) == (1, False)


async def test_an_operators_word_counts_for_one_pass(tmp_path: Path, store: Store) -> None:
    fill(store, range(60, 100))
    retention = Retention(store, DAY, tmp_path / "confirm", now_ns=At())
    (tmp_path / "confirm").touch()
    assert await retention.apply() == 40
    assert not (tmp_path / "confirm").exists()
    fill(store, range(60, 100))
    assert await retention.apply() == 0
    assert held(store) == 40


async def test_a_fleet_that_has_stopped_loses_its_readings_as_they_grow_old(tmp_path: Path, store: Store) -> None:
    fill(store, range(24))
    clock = At()
    retention = Retention(store, DAY, tmp_path / "confirm", now_ns=clock)
    for hours in range(2, 12):
        clock.hours = hours
        await retention.apply()
        assert not retention.waiting
    assert held(store) == 24 - 11 + 1


async def test_an_empty_store_and_one_that_is_young_enough_are_no_doubt(tmp_path: Path, store: Store) -> None:
    retention = Retention(store, DAY, tmp_path / "confirm", now_ns=At(10))
    assert await retention.apply() == 0
    fill(store, range(5))
    assert await retention.apply() == 0
    assert not retention.waiting
