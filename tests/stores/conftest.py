"""The stores that the contract is tried on. A new store is one more entry of STORES."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stores.base import Store
from stores.influxdb import InfluxStore
from stores.influxdb.client import InfluxConfig
from stores.memory import MemoryStore
from stores.sqlite import SqliteStore

STORES: dict[str, Callable[[pytest.FixtureRequest], Store]] = {
    "sqlite": lambda request: SqliteStore(request.getfixturevalue("tmp_path") / "readings.sqlite3"),
    "memory": lambda request: MemoryStore(),
    "influxdb": lambda request: InfluxStore(request.getfixturevalue("influx_config")),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store of each kind."""
    opened = STORES[request.param](request)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "memory"])
def local_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store of each kind that lives in this process."""
    opened = STORES[request.param](request)
    yield opened
    opened.close()


@pytest.fixture
def influx_store(influx_config: InfluxConfig) -> Iterator[InfluxStore]:
    """A store in a fresh bucket of the real server."""
    opened = InfluxStore(influx_config)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty SQLite store that gives up quickly on a lock."""
    opened = SqliteStore(tmp_path / "readings.sqlite3", timeout=0.2)
    yield opened
    opened.close()
