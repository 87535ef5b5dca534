"""Fixtures for all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stores.influx_client import InfluxConfig

# Before Django loads its settings: no setting of the developer's shell, and a state folder that is ours alone.
from telemetry_site.options import BY_NAME
from tests.influxd import Influxd, find_binary

for _name in BY_NAME:
    os.environ.pop(_name, None)
    os.environ.pop(f"{_name}_FILE", None)
_STATE = tempfile.TemporaryDirectory(prefix="gpu-telemetry-tests-")
os.environ["STATE_DIR"] = _STATE.name

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


@pytest.fixture
def influx_config(influxd: Influxd) -> Iterator[InfluxConfig]:
    """The settings of a store in a fresh bucket, which is deleted afterwards."""
    config = influxd.config()
    yield config
    influxd.drop_bucket(config.bucket)
