"""The API on InfluxDB: the answers of SQLite, byte for byte, and what it says while the server is away."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

import inventory.models
from ingest.collector import Collector
from ingest.streamer import stream
from stores.current import get_store, reset_store
from stores.influx_client import InfluxConfig
from tests.api.conftest import Api
from tests.broker.harness import running_broker
from tests.influxd import Influxd
from tests.ingest.wiring import collect_config, stream_config
from tests.ports import free_port

# Of the real capture.
GPU = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"
HOST = "mtv5-dgx1-hgpu-031"
QUERIES = [
    "/api/v1/telemetry",
    "/api/v1/telemetry?page_size=1000",
    "/api/v1/telemetry?page_size=1000&page=2",
    "/api/v1/telemetry?page_size=1000&page=3",
    "/api/v1/telemetry?page_size=7&page=100",
    "/api/v1/telemetry?page=1000",
    "/api/v1/telemetry?metric_name=DCGM_FI_DEV_GPU_UTIL&page_size=300",
    "/api/v1/telemetry?metric_name=DCGM_FI_DEV_GPU_UTIL&metric_name=DCGM_FI_DEV_POWER_USAGE&page_size=500",
    "/api/v1/telemetry?metric_name=NOT_A_METRIC",
    f"/api/v1/telemetry?hostname={HOST}",
    f"/api/v1/telemetry?hostname={HOST}&metric_name=DCGM_FI_DEV_FB_USED",
    "/api/v1/telemetry?hostname=nowhere",
    "/api/v1/telemetry?model=NVIDIA%20H100%2080GB%20HBM3&page_size=50",
    "/api/v1/telemetry?start_time=2025-07-18T20:42:34Z&page_size=1000",
    "/api/v1/telemetry?end_time=2025-07-18T20:42:36Z&page_size=1000",
    "/api/v1/telemetry?start_time=2025-07-18T20:42:34Z&end_time=2025-07-18T20:42:36Z&page_size=1000",
    "/api/v1/telemetry?start_time=2030-01-01T00:00:00Z",
    f"/api/v1/gpus/{GPU}/telemetry",
    f"/api/v1/gpus/{GPU}/telemetry?limit=3",
    f"/api/v1/gpus/{GPU}/telemetry?limit=3&offset=4",
    f"/api/v1/gpus/{GPU}/telemetry?offset=1000",
    f"/api/v1/gpus/{GPU}/telemetry?order=asc",
    f"/api/v1/gpus/{GPU}/telemetry?metric_name=DCGM_FI_DEV_GPU_TEMP",
    f"/api/v1/gpus/{GPU}/telemetry?start_time=2025-07-18T20:42:36Z&end_time=2025-07-18T20:42:38Z",
    f"/api/v1/gpus/{GPU}/telemetry?hostname={HOST}",
    f"/api/v1/gpus/{GPU}/metrics",
    f"/api/v1/gpus/{GPU}",
    "/api/v1/gpus?page_size=1000",
    "/api/v1/hosts",
    "/api/v1/metrics",
]


def use_influxdb(settings: Settings, config: InfluxConfig) -> None:
    reset_store()
    settings.STORAGE_TYPE = "influxdb"
    settings.INFLUXDB_URL, settings.INFLUXDB_TOKEN = config.url, config.token
    settings.INFLUXDB_ORG, settings.INFLUXDB_BUCKET = config.org, config.bucket
    settings.RETENTION_PERIOD = 0.0
    settings.RETENTION_PERIOD_IS_GIVEN = False


@pytest.fixture(autouse=True)
def _own_store(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The age of a reading is told to the millisecond.
    monkeypatch.setattr("api.gpus.time_ns", lambda: 1_752_871_400_000_000_000)
    reset_store()
    settings.SQLITE_PATH = tmp_path / "readings.sqlite3"
    settings.STORAGE_TYPE = "sqlite"
    yield
    reset_store()


async def bring_in(capture: Path, tmp_path: Path, config: InfluxConfig, settings: Settings) -> None:
    """The capture through a broker into both stores, each by a collector of its own."""
    async with running_broker(tmp_path / "log") as broker:
        totals = await stream(stream_config(capture, broker.port, tmp_path / "streamer"), asyncio.Event())
        assert totals.done
        stored = [(await Collector(collect_config(broker.port, tmp_path), get_store()).run(once=True)).stored]
        use_influxdb(settings, config)
        second = collect_config(broker.port, tmp_path, collector_id="collector-2")
        stored.append((await Collector(second, get_store()).run(once=True)).stored)
    assert stored == [2470, 2470]


def answers() -> dict[str, bytes]:
    """The bodies of all queries, and of the pages that the first of them goes on with."""
    client = Client()
    found: dict[str, bytes] = {}
    for query in QUERIES:
        response = client.get(query)
        assert response.status_code == 200, (query, response.content)
        found[query] = response.content
    following = client.get("/api/v1/telemetry?page_size=400").json()["next"]
    while following:
        response = client.get(following)
        found[following] = response.content
        following = response.json()["next"]
    return found


@pytest.mark.django_db(transaction=True)
def test_thirty_queries_of_the_real_capture_are_answered_as_by_sqlite_byte_for_byte(
    tmp_path: Path, real_capture: Path, influx_config: InfluxConfig, settings: Settings
) -> None:
    assert len(set(QUERIES)) == 30
    asyncio.run(bring_in(real_capture, tmp_path, influx_config, settings))
    of_influxdb = answers()
    reset_store()
    settings.STORAGE_TYPE = "sqlite"
    of_sqlite = answers()
    assert list(of_influxdb) == list(of_sqlite)
    assert len(of_sqlite) >= 36
    for query, body in of_sqlite.items():
        assert of_influxdb[query] == body, query
    assert sum(b'"uuid"' in body for body in of_sqlite.values()) > 20


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/telemetry",
        "/api/v1/gpus/GPU-1/telemetry",
        "/api/v1/gpus/GPU-1/metrics",
        "/api/v1/metrics",
        "/api/v1/stats",
    ],
)
def test_while_the_server_is_away_it_is_a_503_with_retry_after(
    db: None, api: Api, settings: Settings, path: str
) -> None:
    use_influxdb(settings, InfluxConfig(f"http://127.0.0.1:{free_port()}", "t", "o", "b"))
    if "GPU-1" in path:
        inventory.models.GPU.objects.create(
            id="GPU-1", uuid="GPU-1", first_seen=timezone.now(), last_seen=timezone.now()
        )
    response = api.ask(path)
    assert response.status_code == 503, response.content
    assert int(response["Retry-After"]) > 0
    assert response.json() == {"error": "unavailable", "message": "the store of readings does not answer"}


def test_ready_names_the_store_and_health_stays_well(db: None, api: Api, settings: Settings, influxd: Influxd) -> None:
    use_influxdb(settings, InfluxConfig(f"http://127.0.0.1:{free_port()}", "t", "o", "b"))
    response = api.ask("/ready")
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert "the store does not answer" in response.json()["message"]
    assert api.get("/health") == {"status": "healthy"}
    # And back, without a restart.
    settings.INFLUXDB_URL = influxd.url
    use_influxdb(settings, influxd.config())
    assert api.get("/ready")["status"] == "ready"


def test_a_server_that_says_nothing_does_not_hold_up_ready(db: None, api: Api, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_influxdb(settings, InfluxConfig(f"http://127.0.0.1:{silent.getsockname()[1]}", "t", "o", "b"))
        began = time.monotonic()
        assert api.ask("/ready").status_code == 503
        assert time.monotonic() - began < 6
