"""The stores of roll-ups that the contract is tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stores.influxdb.client import InfluxConfig
from stores.rollups.influxdb import InfluxRollups
from stores.rollups.sqlite import SqliteRollups
from stores.rollups.windows import STEP_NS, RollupStore, Tier
from tests.influxd import Influxd

FOREVER: dict[Tier, float] = dict.fromkeys(STEP_NS, 0.0)
ROLLUPS: dict[str, Callable[[pytest.FixtureRequest], RollupStore]] = {
    "sqlite": lambda request: SqliteRollups(
        request.getfixturevalue("tmp_path") / "readings.sqlite3", retention=FOREVER
    ),
    "influxdb": lambda request: InfluxRollups(request.getfixturevalue("rollup_config"), retention=FOREVER),
}


@pytest.fixture(params=ROLLUPS)
def rollups(request: pytest.FixtureRequest) -> Iterator[RollupStore]:
    """Empty roll-ups in each store."""
    opened = ROLLUPS[request.param](request)
    yield opened
    opened.close()


@pytest.fixture
def rollup_config(influxd: Influxd) -> Iterator[InfluxConfig]:
    """Settings of roll-ups whose buckets are not there yet, and are deleted afterwards."""
    config = influxd.config()
    yield config
    for tier in STEP_NS:
        influxd.drop_bucket(f"{config.bucket}_{tier}")


@pytest.fixture
def sqlite_rollups(tmp_path: Path) -> Iterator[SqliteRollups]:
    """Empty roll-ups in SQLite files."""
    opened = SqliteRollups(tmp_path / "readings.sqlite3", retention=FOREVER)
    yield opened
    opened.close()
