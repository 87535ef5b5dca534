from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from broker.client.client import BrokerClient, fetch_stats
from readings.batch import encode_block
from readings.model import Gpu, PointBlock
from stores.open import reset_store
from stores.sqlite import SqliteStore
from tests.ingest.captures import METRICS, readings_in, stored_readings, uuid_of, write_capture
from tests.ingest.processes import Fleet, Service, wait_until
from tests.postgres import Postgres


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "state", CSV_PATH=tmp_path / "capture.csv")
    write_capture(tmp_path / "capture.csv")
    yield fleet
    fleet.kill_all()


def test_memory_is_refused_with_the_reason(settings: Settings) -> None:
    settings.STORAGE_TYPE = "memory"
    with pytest.raises(CommandError, match="memory lives in the web process"):
        call_command("collect", stderr=StringIO())


def test_a_store_that_cannot_be_opened_is_one_line(settings: Settings, tmp_path: Path) -> None:
    reset_store()
    settings.SQLITE_PATH = tmp_path  # a folder
    with pytest.raises(CommandError) as caught:
        call_command("collect", stderr=StringIO())
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def stored(fleet: Fleet) -> list[tuple[str, str, int, float]]:
    store = SqliteStore(fleet.state_dir / "readings.sqlite3")
    try:
        return stored_readings(store)
    finally:
        store.close()


@pytest.mark.acceptance
def test_sigterm_flushes_commits_and_exits_0(fleet: Fleet, tmp_path: Path) -> None:
    fleet.migrate()
    fleet.environ["FLUSH_INTERVAL"] = "1h"
    fleet.collector.start()
    fleet.collector.wait_for("waiting until")
    fleet.broker.start()
    fleet.streamer.start()
    assert fleet.streamer.wait() == 0
    fleet.collector.wait_for("is back after")
    status, seconds = fleet.collector.stop()
    assert status == 0
    assert seconds < 8
    fleet.environ |= {"FLUSH_INTERVAL": "200ms"}
    fleet.collector.start("--once")
    assert fleet.collector.wait() == 0
    assert sorted(stored(fleet)) == sorted(readings_in(tmp_path / "capture.csv"))
    assert fleet.broker.stop()[0] == 0


GPUS, SAMPLES = 8, 6


@pytest.mark.acceptance
def test_collectors_wait_for_their_database_and_lose_nothing(postgres: Postgres, tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "capture.csv", gpus=GPUS, samples=SAMPLES)
    url = postgres.make_database("collectors")
    fleet = Fleet(tmp_path / "state", CSV_PATH=capture, BATCH_SIZE=20, DATABASE_URL=url)
    fleet.migrate()
    second = Service("collector-2", fleet, "collect", "--collector-id", "collector-2")
    collectors = (fleet.collector, second)

    def committed() -> bool:
        stats = fetch_stats("127.0.0.1", fleet.port)
        done = {each["id"] for each in stats["subscribers"] if each["committed_offset"] == stats["latest_offset"]}
        return done >= {"collector-1", "collector-2"}

    def messages_counted() -> dict[str, int]:
        with psycopg.connect(url) as connection:
            return dict(connection.execute("SELECT collector_id, messages FROM inventory_collectorstatus").fetchall())

    try:
        fleet.broker.start()
        for each in collectors:
            each.start()
            each.wait_for("subscribed as ")
        postgres.stop(hard=True)
        try:
            fleet.streamer.start()
            assert fleet.streamer.wait() == 0
            for each in collectors:
                wait_until(lambda each=each: "the inventory's database: " in each.log, "the outage to be noticed")  # type: ignore[misc]
            assert not committed()
        finally:
            postgres.start()
        wait_until(committed, "both to commit all", 120)
        total = fetch_stats("127.0.0.1", fleet.port)["total_messages"]
        wait_until(lambda: messages_counted() == {"collector-1": total, "collector-2": total}, "the counts", 60)
        for each in (*collectors, fleet.broker):
            assert each.stop()[0] == 0, each.log
    finally:
        fleet.kill_all()
        second.kill()
    for each in collectors:
        assert each.log.count("the inventory's database: ") == 1  # once, however often it was tried
        assert "the inventory's database is back" in each.log
        assert "deadlock" not in each.log
        assert postgres.password not in each.log
    store = SqliteStore(fleet.state_dir / "readings.sqlite3")
    try:
        assert sorted(stored_readings(store)) == sorted(readings_in(capture))
    finally:
        store.close()
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT id, extract(epoch FROM last_seen - first_seen) FROM inventory_gpu").fetchall()
    assert {gpu_id: float(span) for gpu_id, span in rows} == {uuid_of(n): 10.0 * (SAMPLES - 1) + 2 for n in range(GPUS)}


def hostile_messages(now_ns: int) -> dict[str, bytes]:
    """Batches that expand: few bytes each for a reading, for a refusal, for a GPU."""
    heavy = {"uuid": "GPU-heavy", "labels": {f"label{n}": "x" * 4000 for n in range(50)}}
    wide = [f"metric{n}" for n in range(1000)]
    return {
        "a heavy GPU": json.dumps(
            {
                "gpus": [heavy],
                "metric_names": METRICS[:2],
                "points": [[0, now_ns - n, [999999, 999999]] for n in range(6_000)],
            }
        ).encode(),
        "readings of two bytes, of the future": json.dumps(
            {
                "gpus": [{"uuid": "GPU-wide"}],
                "metric_names": wide,
                "points": [[0, now_ns + 10**15, [1] * 1000]] * 2000,
            },
            separators=(",", ":"),
        ).encode(),
        "values that are texts": json.dumps(
            {"gpus": [{"uuid": "GPU-wide"}], "metric_names": wide, "points": [[0, now_ns, [""] * 1000]] * 300},
            separators=(",", ":"),
        ).encode(),
        "empty objects": b'{"metrics":[' + b"{}," * 1_000_000 + b"{}]}",
        "many GPUs": json.dumps(
            {
                "gpus": [{"uuid": f"GPU-{n}", "hostname": f"host-{n}"} for n in range(10_000)],
                "metric_names": METRICS[:1],
                "points": [[n, now_ns, [1]] for n in range(10_000)],
            }
        ).encode(),
    }


@pytest.mark.acceptance
def test_no_message_stops_it_with_a_gibibyte_of_memory(fleet: Fleet) -> None:
    now_ns = time.time_ns()
    behind = PointBlock([Gpu(uuid="GPU-behind")], [METRICS[0]], [(0, now_ns, [40.0])])
    hostile = list(hostile_messages(now_ns).values())

    async def publish() -> None:
        client = await BrokerClient.connect("127.0.0.1", fleet.port)
        for payload in [*hostile, encode_block(behind, batch_id="", source="", collected_at="")]:
            await client.publish(payload)
        await client.close()

    fleet.migrate()
    fleet.broker.start()
    fleet.broker.wait_for("listening on")
    asyncio.run(publish())
    fleet.collector.start("--once")
    resource.prlimit(fleet.collector.pid, resource.RLIMIT_AS, (1 << 30, 1 << 30))
    assert fleet.collector.wait(300) == 0, fleet.collector.log
    assert "GPU-behind" in {gpu for gpu, *_ in stored(fleet)}
    written = [path.read_bytes() for path in (fleet.state_dir / "dead-letters").glob("*.ndjson")]
    assert sum(text.count(b"\n") for text in written) < 500
    # Each message once, its quotes escaped, and some letters of single readings.
    assert sum(map(len, written)) < 3 * sum(map(len, hostile))
