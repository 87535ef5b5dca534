"""The collector on a real InfluxDB: what it does when the server is away, busy, wrong or picky (row 20 of the fault matrix)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.server.metrics import subscriber_stats
from broker.server.server import BrokerServer
from ingest.collector.collector import Collector
from ingest.errors import StoreRefusal
from inventory.models import GPU
from stores.influxdb import InfluxStore, client, writer
from stores.influxdb.client import InfluxConfig
from tests.broker.harness import running_broker
from tests.influxd import Influxd
from tests.ingest.captures import METRICS, readings_in, stored_readings, write_capture
from tests.ingest.wiring import (
    all_is_committed,
    collect_config,
    collect_once,
    collecting,
    letters,
    outages,
    publish,
    until,
)
from tests.stand_in import Answer, StandIn, standing_in
from tests.stores.making import held

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def door(influxd: Influxd) -> Iterator[StandIn]:
    with standing_in(influxd.port) as door:
        yield door


@pytest.fixture
def store(door: StandIn, influx_config: InfluxConfig) -> Iterator[InfluxStore]:
    """A store that speaks to the real server through the stand-in."""
    opened = InfluxStore(replace(influx_config, url=door.url))
    yield opened
    opened.close()


def lag(broker: BrokerServer) -> int:
    """Of the collector, as /stats and /metrics show it."""
    (row,) = subscriber_stats(broker)
    return row.lag


async def test_the_real_capture_is_stored_whole_and_again_changes_nothing(
    tmp_path: Path, real_capture: Path, store: InfluxStore, influxd: Influxd
) -> None:
    async with running_broker(tmp_path / "log") as broker:
        for _ in range(2):
            await publish(real_capture, broker.port, tmp_path)
            totals = await collect_once(broker, tmp_path, store)
            assert totals.stored == 2470
            assert sorted(stored_readings(store)) == sorted(readings_in(real_capture))
    assert await asyncio.to_thread(GPU.objects.count) == 247
    bucket = store.config.bucket
    assert len(influxd.query(bucket, "SHOW TAG VALUES FROM gpu WITH KEY = uuid")) == 247
    (counts,) = influxd.query(bucket, "SELECT count(*) FROM gpu")
    assert held(store).readings == 2470
    assert sum(counts[1:]) == 2470  # no GPU of it has a pod, and so none a string field


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(503, "busy")] * 2,
        [Answer(429, "slow down", {"Retry-After": "1"})],
        [Answer(401, '{"message":"unauthorized access"}')] * 2,
        [Answer(500), Answer(502), Answer(504)],
        [Answer()] * 4,
        [Answer(204, delay=1.0)] * 2,
        [Answer(204, delay=1.0, forward=True)] * 2,
        [Answer(204, forward=True), Answer(503), Answer(204, forward=True)],
    ],
    ids=["503", "429", "401", "5xx", "dropped", "silent", "answer-lost", "in-between"],
)
async def test_row_20_trouble_with_the_server_loses_and_doubles_nothing(
    tmp_path: Path,
    capture: Path,
    store: InfluxStore,
    door: StandIn,
    answers: list[Answer],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "ingest")
    monkeypatch.setattr(client, "WRITE_TIMEOUT", 0.3)
    monkeypatch.setattr(writer, "MOST_LINES", 20)
    monkeypatch.setattr(writer, "SENDERS", 1)
    door.script += answers
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        config = collect_config(broker.port, tmp_path)
        totals = await Collector(config, store).run(once=True)
        assert all_is_committed(broker)
    assert totals.stored == 120
    assert sorted(stored_readings(store)) == sorted(readings_in(capture))
    assert not door.script
    # However often it was tried: one line when it began, one when it was over.
    assert [("waiting" in line, "is back after" in line) for line in outages(caplog)] == [(True, False), (False, True)]


async def test_the_server_is_left_alone_as_long_as_it_asks(
    tmp_path: Path, capture: Path, store: InfluxStore, door: StandIn
) -> None:
    door.script.append(Answer(429, "", {"Retry-After": "1.2"}))
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        await collect_once(broker, tmp_path, store, flush_interval=30.0)
    assert door.seen[1].at - door.seen[0].at >= 1.2


async def test_row_20_while_the_server_is_away_nothing_is_committed_and_nothing_more_is_taken_in(
    tmp_path: Path, capture: Path, store: InfluxStore, door: StandIn
) -> None:
    async with (
        running_broker(tmp_path / "log") as broker,
        collecting(collect_config(broker.port, tmp_path), store) as collector,
    ):
        await publish(capture, broker.port, tmp_path, batch_size=10)
        await until(lambda: collector.committed == broker.log.next_offset - 1)
        place = collector.committed
        door.away = Answer(503, "busy")
        later = write_capture(tmp_path / "later.csv", gpus=10, samples=4, start="2025-07-18T21:42:34Z")
        await publish(later, broker.port, tmp_path, batch_size=10)
        tries = door.asked
        await until(lambda: door.asked >= tries + 3)
        assert broker.log.commits.get("collector-1") == place
        assert collector.totals.messages == place + 1
        assert lag(broker) == broker.log.next_offset - 1 - place > 0
        door.away = None
        await until(lambda: collector.committed == broker.log.next_offset - 1)
        assert lag(broker) == 0
    assert sorted(stored_readings(store)) == sorted(readings_in(capture) | readings_in(later))


async def test_a_server_that_comes_later_is_waited_for(
    tmp_path: Path, capture: Path, influxd: Influxd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ingest")
    server = Influxd(influxd.binary, tmp_path / "influxd")
    try:
        server.start()
        config = server.config()
        server.kill()
        store = InfluxStore(config)
        async with running_broker(tmp_path / "log") as broker:
            await publish(capture, broker.port, tmp_path)
            async with collecting(collect_config(broker.port, tmp_path), store) as collector:
                await until(lambda: bool(outages(caplog)))
                assert "does not answer: connection refused: waiting" in outages(caplog)[0]
                await asyncio.to_thread(server.start)
                await until(lambda: collector.committed == broker.log.next_offset - 1)
        assert sorted(stored_readings(store)) == sorted(readings_in(capture))
        assert len(outages(caplog)) == 2
        store.close()
    finally:
        server.stop()


async def test_a_stop_while_the_server_never_came_ends_it_at_once(
    tmp_path: Path, door: StandIn, store: InfluxStore
) -> None:
    door.away = Answer(503)
    async with running_broker(tmp_path / "log") as broker:
        began = asyncio.get_running_loop().time()
        async with collecting(collect_config(broker.port, tmp_path), store):
            await asyncio.sleep(0.2)
        assert asyncio.get_running_loop().time() - began < 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"token": "wrong"}, "INFLUXDB_TOKEN: .* does not take this token"), ({"org": "nobody"}, "INFLUXDB_ORG")],
)
async def test_what_somebody_has_to_put_right_ends_the_start(
    tmp_path: Path, influx_config: InfluxConfig, changes: dict[str, str], message: str
) -> None:
    store = InfluxStore(replace(influx_config, **changes))  # type: ignore[arg-type]
    async with running_broker(tmp_path / "log") as broker:
        with pytest.raises(StoreRefusal, match=message):
            await Collector(collect_config(broker.port, tmp_path), store).run()


async def test_a_field_of_another_type_makes_dead_letters_with_the_servers_reason(
    tmp_path: Path, capture: Path, store: InfluxStore, influxd: Influxd
) -> None:
    store.ping()
    influxd.write(store.config.bucket, f"gpu,uuid=other {METRICS[1]}=5i 1752871364000000000")
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        totals = await collect_once(broker, tmp_path, store)
        assert all_is_committed(broker)
    assert (totals.stored, totals.refused) == (80, 40)
    kept = {reading for reading in readings_in(capture) if reading[1] != METRICS[1]}
    assert {reading for reading in stored_readings(store) if reading[0] != "other"} == kept
    found = letters(tmp_path)
    assert len(found) == 10  # one for each GPU
    assert {(letter["reason"], letter["metric_name"]) for letter in found} == {("store_refused", METRICS[1])}
    assert all("field type conflict" in str(letter["detail"]) for letter in found)


async def test_points_outside_the_buckets_retention_make_dead_letters(
    tmp_path: Path, capture: Path, influx_config: InfluxConfig
) -> None:
    store = InfluxStore(replace(influx_config, retention=7200.0))
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        totals = await collect_once(broker, tmp_path, store)
    assert (totals.stored, totals.refused) == (0, 120)
    assert all("retention" in str(letter["detail"]) for letter in letters(tmp_path))
    store.close()


async def test_row_20_a_body_that_is_too_large_is_split(
    tmp_path: Path, capture: Path, store: InfluxStore, door: StandIn
) -> None:
    door.rule = lambda lines: Answer(413, "too large") if len(lines) > 5 else None
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        totals = await collect_once(broker, tmp_path, store)
    assert (totals.stored, totals.refused) == (120, 0)
    assert sorted(stored_readings(store)) == sorted(readings_in(capture))


async def test_old_readings_are_left_to_the_buckets_retention(
    tmp_path: Path, store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apply_retention(oldest_ns: int) -> int:
        raise AssertionError("somebody's history was to be deleted by a default")

    monkeypatch.setattr(store, "apply_retention", apply_retention)
    async with (
        running_broker(tmp_path / "log") as broker,
        collecting(collect_config(broker.port, tmp_path, retention=3600.0), store) as collector,
    ):
        await until(lambda: collector._client is not None)
