"""The API on InfluxDB: the answers of SQLite, byte for byte, and what it says while the server is away."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

import inventory.models
from ingest.collector.collector import Collector
from ingest.streamer.file import stream
from inventory.sync.memory import save_sightings
from inventory.sync.sightings import Sightings
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND
from stores.influxdb.client import InfluxConfig
from stores.open import get_store, reset_store
from tests.api.conftest import T0, Api, save
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
WINDOWS = "/api/v1/query?start_time=2025-07-18T20:42:33Z&end_time=2025-07-18T20:42:38Z&every=2s&metric=DCGM_FI_DEV_"
QUERIES += [
    f"{WINDOWS}GPU_UTIL",
    f"{WINDOWS}GPU_UTIL&by=host",
    f"{WINDOWS}GPU_UTIL&by=gpu",
    f"{WINDOWS}GPU_UTIL&by=model&agg=count",
    f"{WINDOWS}GPU_UTIL&by=host&agg=sum",
    f"{WINDOWS}GPU_UTIL&by=host&agg=p50",
    f"{WINDOWS}GPU_UTIL&by=gpu&top=10&agg=max",
    f"{WINDOWS}GPU_UTIL&by=gpu&top=7",
    f"{WINDOWS}GPU_UTIL&by=gpu&mig=true&hostname=node-1",
    f"{WINDOWS}GPU_UTIL&by=pod",
    f"{WINDOWS}GPU_UTIL&by=namespace&agg=last",
    f"{WINDOWS}POWER_USAGE&agg=sum",
    f"{WINDOWS}POWER_USAGE&agg=sum&by=host&top=3",
    f"{WINDOWS}POWER_USAGE&agg=sum&by=model",
    f"{WINDOWS}POWER_USAGE&agg=p95&by=host",
    f"{WINDOWS}POWER_USAGE&agg=p99&by=host&top=5",
    f"{WINDOWS}POWER_USAGE&by=host&hostname={HOST}&hostname=node-1",
    f"{WINDOWS}POWER_USAGE&by=gpu&uuid={GPU}&uuid=GPU-cut",
    f"{WINDOWS}POWER_USAGE&by=gpu&uuid=GPU-cut:2&agg=min",
    f"{WINDOWS}POWER_USAGE&agg=sum&by=namespace",
    f"{WINDOWS}FB_USED&agg=sum&by=host&hostname=node-1",
    f"{WINDOWS}FB_USED&agg=sum&by=pod",
    f"{WINDOWS}FB_USED&agg=mean&by=pod&namespace=ml",
    f"{WINDOWS}FB_USED&agg=max&by=host&pod=train-2",
    f"{WINDOWS}FB_USED&agg=last&by=model&model=NVIDIA%20A100",
    f"{WINDOWS}GPU_TEMP&agg=max&by=host&top=1",
    f"{WINDOWS}TOTAL_ENERGY_CONSUMPTION&agg=increase&by=host",
    f"{WINDOWS}NOT_A_METRIC",
    "/api/v1/telemetry?hostname=node-1&namespace=ml&page_size=7&order=asc",
    "/api/v1/gpus?namespace=ml&mig=true",
]
# Beside the capture: a GPU that a pod has, one that two pods share, and one that is cut.
NAMES = [f"DCGM_FI_DEV_{name}" for name in ("GPU_UTIL", "POWER_USAGE", "FB_USED", "TOTAL_ENERGY_CONSUMPTION")]


def others() -> PointBlock:
    """Readings of GPUs as the capture has none."""
    of: dict[str, Any] = {"hostname": "node-1", "model_name": "NVIDIA A100"}
    gpus = [
        Gpu(uuid="GPU-held", namespace="ml", pod="train-1", **of),
        Gpu(uuid="GPU-shared", **of),
        Gpu(uuid="GPU-shared", namespace="ml", pod="train-2", share=True, **of),
        Gpu(uuid="GPU-shared", namespace="web", pod="serve", share=True, **of),
        *(Gpu(uuid="GPU-cut", mig_id=str(number), namespace="web", pod=f"cut-{number}", **of) for number in range(3)),
    ]
    points: list[Point] = [
        (place, T0 + step * SECOND // 2, [10.0 * place + step / 3, 300.5, 1000.0 * place + step, 1e9 - step % 4])
        for place in range(len(gpus))
        for step in range(7)
    ]
    return PointBlock(gpus, NAMES, points)


def use_sqlite(settings: Settings) -> None:
    reset_store()
    settings.STORAGE_TYPE = "sqlite"


def use_memory(settings: Settings) -> None:
    reset_store()
    settings.STORAGE_TYPE = "memory"


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
    monkeypatch.setattr("api.views.gpus.time_ns", lambda: 1_752_871_400_000_000_000)
    reset_store()
    settings.SQLITE_PATH = tmp_path / "readings.sqlite3"
    settings.STORAGE_TYPE = "sqlite"
    yield
    reset_store()


async def bring_in(capture: Path, tmp_path: Path, config: InfluxConfig, settings: Settings) -> None:
    """The capture through a broker into all stores, each by a collector of its own; then the other readings."""
    async with running_broker(tmp_path / "log") as broker:
        totals = await stream(stream_config(capture, broker.port, tmp_path / "streamer"), asyncio.Event())
        assert totals.done
        for number, choose in enumerate((use_sqlite, lambda _: use_influxdb(settings, config), use_memory)):
            choose(settings)
            collector = Collector(
                collect_config(broker.port, tmp_path, collector_id=f"collector-{number}"), get_store()
            )
            assert (await collector.run(once=True)).stored == 2470
            get_store().write([others()])
    sightings = Sightings()
    sightings.add(others())
    await sync_to_async(save_sightings)(sightings)


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
def test_sixty_queries_are_answered_alike_by_every_store_byte_for_byte(
    tmp_path: Path,
    real_capture: Path,
    influx_config: InfluxConfig,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(set(QUERIES)) == 60
    # Ages are of the moment of asking.
    monkeypatch.setattr("api.params.time", SimpleNamespace(time_ns=lambda: T0))
    monkeypatch.setattr("api.views.gpus.time_ns", lambda: T0)
    asyncio.run(bring_in(real_capture, tmp_path, influx_config, settings))
    of_memory = answers()
    use_influxdb(settings, influx_config)
    of_influxdb = answers()
    use_sqlite(settings)
    of_sqlite = answers()
    assert list(of_memory) == list(of_influxdb) == list(of_sqlite)
    assert len(of_sqlite) >= 66
    for query, body in of_sqlite.items():
        assert of_influxdb[query] == body, query
        assert of_memory[query] == body, query
    assert sum(b'"uuid"' in body for body in of_sqlite.values()) > 20
    assert sum(b'"points":[["2025' in body for body in of_sqlite.values()) == 27


@pytest.mark.django_db(transaction=True)
def test_a_reading_told_for_two_hosts_is_that_of_the_host_where_the_gpu_sat(
    api: Api, settings: Settings, influx_config: InfluxConfig
) -> None:
    use_influxdb(settings, influx_config)
    name = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    for host, value, seconds in (("host-b", 1.0, range(3)), ("host-a", 5.0, range(3, 6))):
        gpu = Gpu(uuid="GPU-1", hostname=host)
        save(get_store(), PointBlock([gpu], [name], [(0, T0 + at * SECOND, [value + at]) for at in seconds]))
    # A capture with the old host is replayed: every reading of the new one again, with other values.
    old = Gpu(uuid="GPU-1", hostname="host-b")
    get_store().write([PointBlock([old], [name], [(0, T0 + at * SECOND, [900.0]) for at in range(3, 6)])])
    data = api.get("/api/v1/gpus/GPU-1/telemetry")["data"]
    assert [(row["hostname"], row["value"]) for row in data] == [
        ("host-a", 10.0), ("host-a", 9.0), ("host-a", 8.0), ("host-b", 3.0), ("host-b", 2.0), ("host-b", 1.0),
    ]  # fmt: skip
    assert [row["value"] for row in api.get("/api/v1/telemetry?page_size=4")["data"]] == [10.0, 9.0, 8.0, 3.0]
    query = "/api/v1/query?start_time=2025-07-18T20:42:00Z&end_time=2025-07-18T20:43:00Z&every=1m&agg=increase&metric="
    assert [each["points"][0][1] for each in api.get(query + name)["data"]] == [9.0]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/telemetry",
        "/api/v1/gpus/GPU-1/telemetry",
        "/api/v1/gpus/GPU-1/metrics",
        "/api/v1/metrics",
        "/api/v1/stats",
        "/api/v1/query?metric=DCGM_FI_DEV_GPU_UTIL",
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
