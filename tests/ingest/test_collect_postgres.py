"""Two collectors whose inventory is in a PostgreSQL that goes away under them."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from broker.client.client import fetch_stats
from stores.sqlite import SqliteStore
from tests.ingest.captures import readings_in, stored_readings, uuid_of, write_capture
from tests.ingest.processes import Fleet, Service, wait_until
from tests.postgres import Postgres

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
