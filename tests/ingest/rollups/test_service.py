"""Roll-ups beside a collector's pipeline, on a real broker."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from broker.client.client import BrokerClient
from ingest.collector.collector import CollectConfig, Collector
from ingest.rollups import due as due_module
from ingest.rollups import feed as feed_module
from ingest.rollups import service as service_module
from ingest.rollups.service import RollupSettings
from inventory.models import RollupState, RollupTouch
from inventory.rollup_state import complete, open_state
from inventory.rollup_touches import MINUTES, touch, touches
from readings.batch import encode_block
from readings.times import SECOND
from stores.base import StoreError
from stores.open import store_key
from stores.rollups.windows import WindowTable
from stores.sqlite import SqliteStore
from tests.broker.harness import running_broker
from tests.ingest.rollups.keeping import KeptWindows, assert_right
from tests.ingest.wiring import all_is_committed, collect_config, collecting, outages, until
from tests.stores.rollups.reckoning import ENERGY, UTIL, Given, blocks_of, gpu

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = 60 * SECOND


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "readings.sqlite3")
    yield store
    store.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURN_SECONDS", "FAULT_SECONDS", "OFF_SECONDS", "RENEW_SECONDS"):
        monkeypatch.setattr(service_module, name, 0.02)
    monkeypatch.setattr(due_module, "QUIET_SECONDS", 0.2)


def of_late(minutes: int = 5) -> list[Given]:
    """Readings of some minutes that have just ended."""
    end_ns = (time.time_ns() - 30 * SECOND) // MINUTE * MINUTE
    return [
        Given(gpu(uuid, host=place), name, end_ns - number * 20 * SECOND - SECOND, float(number + place))
        for place, uuid in enumerate("UVW")
        for name in (UTIL, ENERGY)
        for number in range(3 * minutes)
    ]


async def send(port: int, readings: Sequence[Given]) -> None:
    client = await BrokerClient.connect("127.0.0.1", port)
    try:
        for block in blocks_of(sorted(readings, key=lambda each: each.time_ns)):
            await client.publish(encode_block(block, batch_id="", source="", collected_at=""))
    finally:
        await client.close()


def rolling(config: CollectConfig, kept: KeptWindows | None) -> CollectConfig:
    return replace(config, rollups=RollupSettings(open_rollups=lambda: kept))


async def check(kept: KeptWindows, readings: Sequence[Given]) -> int:
    return await sync_to_async(assert_right)(kept, readings, store_key())


async def minutes_waiting() -> int:
    while True:
        try:
            return await RollupTouch.objects.filter(tier=MINUTES).acount()
        except OperationalError:  # the tests' database is shared memory, which has no timeout for locks
            await asyncio.sleep(0.01)


async def until_none_waits() -> None:
    async with asyncio.timeout(20):
        while await minutes_waiting():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def test_what_is_collected_is_rolled_up(tmp_path: Path, store: SqliteStore) -> None:
    kept, readings = KeptWindows(), of_late()
    async with running_broker(tmp_path / "log") as broker:
        await send(broker.port, readings)
        async with collecting(rolling(collect_config(broker.port, tmp_path), kept), store) as collector:
            await until(lambda: all_is_committed(broker) and collector.rollups.totals.windows >= 5)
            await until_none_waits()
            assert collector.rollups.roller is not None
            assert collector.rollups.roller.holds_lease
            assert collector.trouble == []
        assert (await RollupState.objects.aget()).holder == ""
    assert await check(kept, readings) >= 5
    told = await sync_to_async(complete)(store_key(), MINUTES)
    assert told is not None
    assert told.start_ns == 0
    assert told.end_ns >= max(each.time_ns for each in readings)


async def test_two_collectors_of_one_log_make_the_same_windows(tmp_path: Path, store: SqliteStore) -> None:
    kept, readings = KeptWindows(), of_late()
    async with running_broker(tmp_path / "log") as broker:
        first = rolling(collect_config(broker.port, tmp_path), kept)
        second = replace(first, collector_id="collector-2")
        async with collecting(first, store) as one, collecting(second, store) as other:
            await send(broker.port, readings)
            ids = ("collector-1", "collector-2")
            await until(lambda: all(broker.log.commits.get(each) == broker.log.next_offset - 1 for each in ids))
            await until(lambda: one.rollups.totals.windows + other.rollups.totals.windows >= 5)
            await until_none_waits()
            rollers = [each.rollups.roller for each in (one, other)]
            assert sum(each is not None and each.holds_lease for each in rollers) == 1
    assert await check(kept, readings) >= 5


async def test_no_offset_is_committed_before_its_touches(
    tmp_path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, readings = KeptWindows(), of_late()
    tried = threading.Event()

    def fail(*_: object) -> None:
        tried.set()
        raise OperationalError("away")

    async with running_broker(tmp_path / "log") as broker:
        await send(broker.port, readings)
        async with collecting(rolling(collect_config(broker.port, tmp_path), kept), store):
            with monkeypatch.context() as patch:
                patch.setattr(feed_module, "touch", fail)
                await until(tried.is_set)
                assert broker.log.commits.get("collector-1") is None
                assert await minutes_waiting() == 0
            await until(lambda: all_is_committed(broker))
            await until_none_waits()
    assert await check(kept, readings) >= 5


async def test_where_there_are_none_nothing_is_noted_and_readers_are_told(
    tmp_path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    await sync_to_async(open_state)(store_key(), None)
    await sync_to_async(touch)(store_key(), MINUTES, [0], "of before")
    async with (
        running_broker(tmp_path / "log") as broker,
        collecting(rolling(collect_config(broker.port, tmp_path), None), store) as collector,
    ):
        await until(lambda: not collector.rollups.feed.is_on)
        await until(lambda: "missing in them" in caplog.text)
        await send(broker.port, of_late())
        await until(lambda: all_is_committed(broker))
    assert await sync_to_async(touches)(store_key()) == []
    assert await RollupState.objects.acount() == 0


async def test_they_begin_as_soon_as_they_are_allowed(tmp_path: Path, store: SqliteStore) -> None:
    kept, readings = KeptWindows(), of_late()
    allowed = threading.Event()
    config = RollupSettings(open_rollups=lambda: kept if allowed.is_set() else None)
    async with running_broker(tmp_path / "log") as broker:
        settings = replace(collect_config(broker.port, tmp_path), rollups=config)
        async with collecting(settings, store) as collector:
            await until(lambda: not collector.rollups.feed.is_on)
            allowed.set()
            await until(lambda: collector.rollups.feed.is_on)
            await send(broker.port, readings)
            await until(lambda: all_is_committed(broker) and collector.rollups.totals.windows >= 5)
            await until_none_waits()
    assert await check(kept, readings) >= 5
    # What was written before was not noted.
    assert (await RollupState.objects.aget()).minutes_from_ns > max(each.time_ns for each in readings)


async def test_roll_ups_that_fail_do_not_stop_the_collector(
    tmp_path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    kept, readings = KeptWindows(), of_late()
    errors: list[Exception] = [RuntimeError("a fault of ours"), StoreError("no room"), OperationalError("locked")]

    class Failing(KeptWindows):
        def write(self, tables: Sequence[WindowTable]) -> None:
            if errors:
                raise errors.pop(0)
            kept.write(tables)

    async with (
        running_broker(tmp_path / "log") as broker,
        collecting(rolling(collect_config(broker.port, tmp_path), Failing()), store) as collector,
    ):
        await send(broker.port, readings)
        await until(lambda: all_is_committed(broker) and collector.rollups.totals.windows >= 4)
        assert collector.trouble == []
    assert "a fault of ours" in caplog.text
    assert [text for text in outages(caplog) if text.startswith("roll-ups")] != []
    assert errors == []
    await check(kept, readings)


async def test_a_stop_does_not_wait_for_a_long_window(
    tmp_path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entered, leave = threading.Event(), threading.Event()
    monkeypatch.setattr(service_module, "CLOSE_SECONDS", 0.05)

    class Slow(KeptWindows):
        def write(self, tables: Sequence[WindowTable]) -> None:
            entered.set()
            leave.wait(20)
            raise StoreError("the store was closed")

    async with running_broker(tmp_path / "log") as broker:
        with caplog.at_level(logging.WARNING):
            async with collecting(rolling(collect_config(broker.port, tmp_path), Slow()), store) as collector:
                await send(broker.port, of_late())
                await until(entered.is_set)
            thread = collector.rollups._thread
            assert thread.is_alive()
            leave.set()
            await asyncio.to_thread(thread.join, 20)
    assert "store was closed" not in caplog.text


async def test_a_collector_without_roll_ups_has_no_thread_for_them(tmp_path: Path, store: SqliteStore) -> None:
    async with running_broker(tmp_path / "log") as broker:
        collector = Collector(collect_config(broker.port, tmp_path), store)
        await send(broker.port, of_late())
        await collector.run(once=True)
    assert not collector.rollups.feed.is_on
    assert collector.rollups.roller is None
    assert await RollupState.objects.acount() == await RollupTouch.objects.acount() == 0
