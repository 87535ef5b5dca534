"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from stores.influxdb.client import InfluxConfig
from tests.influxd import Influxd, find_binary
from tests.postgres import Postgres, folder_for_cluster, required_bin

# A busy machine fails no test. In a fresh clone the first text alone takes a second: Hypothesis makes its table of Unicode.
settings.register_profile(
    "without a clock", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("without a clock")

# The real capture that some tests check against. It is no part of this project: absent, they are skipped.
_CAPTURE = Path(__file__).resolve().parents[2] / "shared" / "data" / "dcgm_metrics_20250718_134233.csv"


@pytest.fixture(scope="session")
def real_capture() -> Path:
    """The path of the real DCGM capture; skips where it is not there. CAPTURE_PATH names another place."""
    path = Path(os.environ.get("CAPTURE_PATH") or _CAPTURE)
    if not path.is_file():
        pytest.skip("needs the real DCGM capture: set CAPTURE_PATH to it")
    return path


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """The run's one real InfluxDB; skips where there is none, and fails instead where REQUIRE_INFLUXDB is 1."""
    server = Influxd(find_binary(), tmp_path_factory.mktemp("influxd"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The run's one real PostgreSQL; skips where there is none, and fails instead where REQUIRE_POSTGRES is 1."""
    with folder_for_cluster() as folder:
        server = Postgres(required_bin(), Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def influx_config(influxd: Influxd) -> Iterator[InfluxConfig]:
    """The settings of a store in a fresh bucket, which is deleted afterwards."""
    config = influxd.config()
    yield config
    influxd.drop_bucket(config.bucket)
