from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.client.client import BrokerClient
from broker.server.server import BrokerServer
from ingest.collector import collector as collector_module
from ingest.collector import decode as decode_module
from ingest.collector import retention as retention_module
from ingest.collector.attempts import Attempts
from ingest.collector.collector import Collector
from ingest.errors import BrokerRefusal, StoreRefusal
from ingest.rollups.service import CollectorRollups
from inventory.models import GPU, CollectorStatus, Host
from readings.batch import decode as decode_batch
from readings.batch import encode_block
from readings.model import Gpu, PointBlock
from stores.base import RefusedReading, StoreError, StoreUnavailable, WriteResult
from stores.sqlite import SqliteStore
from tests.broker.harness import running_broker
from tests.ingest.captures import readings_in, stored_readings
from tests.ingest.wiring import (
    all_is_committed,
    collect_config,
    collect_once,
    collecting,
    letters,
    line_to,
    outages,
    publish,
    until,
)
from tests.ports import free_port

pytestmark = pytest.mark.django_db(transaction=True)


def committed(broker: BrokerServer) -> int | None:
    return broker.log.commits.get("collector-1")


def one_reading(gpu: str) -> bytes:
    block = PointBlock([Gpu(uuid=gpu)], ["DCGM_FI_DEV_GPU_TEMP"], [(0, time.time_ns(), [40.0])])
    return encode_block(block, batch_id="", source="", collected_at="")


@asynccontextmanager
async def publishing(port: int) -> AsyncIterator[BrokerClient]:
    client = await BrokerClient.connect("127.0.0.1", port)
    try:
        yield client
    finally:
        await client.close()


async def counts() -> CollectorStatus:
    return await CollectorStatus.objects.aget(pk="collector-1")


class Shaky(SqliteStore):
    """A store whose writes fail while it has an error."""

    error: Exception | None = None
    tries = 0

    def write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        self.tries += 1
        if self.error is not None:
            raise self.error
        return super().write(blocks)


class Held(SqliteStore):
    """A store whose writes, but for some ``free`` ones, wait until they are let go."""

    free = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writing, self.let_go = threading.Event(), threading.Event()

    def write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        self.free -= 1
        if self.free < 0:
            self.writing.set()
            assert self.let_go.wait(60)
        return super().write(blocks)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    store = Held(tmp_path / "held.sqlite3")
    yield store
    store.let_go.set()
    store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Shaky]:
    store = Shaky(tmp_path / "readings.sqlite3")
    yield store
    store.close()


async def test_readings_are_stored_the_inventory_is_kept_and_the_offset_committed(
    tmp_path: Path, capture: Path, store: Shaky
) -> None:
    async with running_broker(tmp_path / "log") as broker:
        async with collecting(collect_config(broker.port, tmp_path), store) as collector:
            await publish(capture, broker.port, tmp_path)
            await until(lambda: collector.committed == broker.log.next_offset - 1)
        last = broker.log.next_offset - 1
        assert committed(broker) == last
    assert sorted(stored_readings(store)) == sorted(readings_in(capture))
    assert collector.totals.stored == 120
    assert (await GPU.objects.acount(), await Host.objects.acount()) == (10, 2)
    status = await counts()
    assert (status.readings_stored, status.messages, status.committed_offset) == (120, last + 1, last)
    assert status.refused == {}


async def test_the_real_capture_is_stored_whole_and_again_changes_nothing(
    tmp_path: Path, real_capture: Path, store: Shaky
) -> None:
    async with running_broker(tmp_path / "log") as broker:
        for _ in range(2):
            await publish(real_capture, broker.port, tmp_path)
            totals = await collect_once(broker, tmp_path, store)
            assert totals.stored == 2470
            assert sorted(stored_readings(store)) == sorted(readings_in(real_capture))
    assert await GPU.objects.acount() == 247
    assert await Host.objects.acount() == 31


async def test_the_steps_report_what_they_did(tmp_path: Path, capture: Path, store: Shaky) -> None:
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        collector = Collector(collect_config(broker.port, tmp_path, flush_interval=60.0), store)
        messages = 0
        while messages < broker.log.next_offset:
            messages += await collector.poll_once()
        assert await collector.poll_once(0.01) == 0
        assert stored_readings(store) == []
        assert await collector.flush() == 120
        assert await collector.flush() == 0
        assert committed(broker) is None
        await collector.commit()
        assert all_is_committed(broker)
        await collector.close()
        await collector.close()


async def test_a_message_that_is_no_batch_never_blocks_the_log(tmp_path: Path, capture: Path, store: Shaky) -> None:
    async with running_broker(tmp_path / "log") as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.publish(b'"no batch"')
        await client.close()
        await publish(capture, broker.port, tmp_path)
        totals = await collect_once(broker, tmp_path, store)
        assert all_is_committed(broker)
    assert (totals.stored, totals.refused) == (120, 1)
    (letter,) = letters(tmp_path)
    assert (letter["offset"], letter["reason"], letter["payload"]) == (0, "bad_message", '"no batch"')
    assert (await counts()).refused == {"bad_message": 1}


async def test_nothing_is_committed_that_is_not_stored(
    tmp_path: Path, capture: Path, store: Shaky, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ingest")
    store.error = StoreUnavailable("locked")
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        async with collecting(collect_config(broker.port, tmp_path), store) as collector:
            await until(lambda: store.tries >= 3)
            assert committed(broker) is None
            store.error = None
            await until(lambda: collector.committed == broker.log.next_offset - 1)
    assert sorted(stored_readings(store)) == sorted(readings_in(capture))
    assert len(outages(caplog)) == 2
    assert outages(caplog)[0] == "the store: locked: waiting until it is back"


async def test_a_stop_while_the_store_is_away_ends_in_time_and_commits_nothing(
    tmp_path: Path, capture: Path, store: Shaky, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(collector_module, "DRAIN_SECONDS", 0.3)
    store.error = StoreUnavailable("locked")
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        async with collecting(collect_config(broker.port, tmp_path), store):
            await until(lambda: store.tries >= 1)
        assert committed(broker) is None
        assert "delivers uncommitted messages again" in caplog.text
        store.error = None
        await collect_once(broker, tmp_path, store)
    assert sorted(stored_readings(store)) == sorted(readings_in(capture))


async def test_a_store_that_will_never_take_readings_ends_the_collector(
    tmp_path: Path, capture: Path, store: Shaky
) -> None:
    store.error = StoreError("no such bucket")
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        with pytest.raises(StoreRefusal, match="the store does not take readings: no such bucket"):
            await Collector(collect_config(broker.port, tmp_path), store).run()
        assert committed(broker) is None


async def test_readings_that_the_store_refuses_are_dead_letters(
    tmp_path: Path, capture: Path, store: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store.write

    def picky(blocks: Sequence[PointBlock]) -> WriteResult:
        return WriteResult(write(blocks).written - 1, (RefusedReading("GPU-1", "A", 5, 1.0, "type conflict"),))

    monkeypatch.setattr(store, "write", picky)
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        await collect_once(broker, tmp_path, store)
        assert all_is_committed(broker)
    assert (await counts()).refused["store_refused"] >= 1
    assert {letter["detail"] for letter in letters(tmp_path)} == {"type conflict"}


async def test_a_restart_goes_on_after_the_commit(tmp_path: Path, capture: Path, store: Shaky) -> None:
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        first = await collect_once(broker, tmp_path, store)
        again = await collect_once(broker, tmp_path, store)
        await publish(capture, broker.port, tmp_path, timestamps="now")
        third = await collect_once(broker, tmp_path, store)
    assert (first.stored, again.messages, third.stored) == (120, 0, 120)
    assert len(stored_readings(store)) == 240


@pytest.mark.parametrize(("start", "messages"), [(None, 12), (-2, 12), (-1, 0), (0, 12), (5, 7), (12, 0)])
async def test_it_starts_where_it_is_told(
    tmp_path: Path, capture: Path, store: Shaky, start: int | None, messages: int
) -> None:
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path, batch_size=10)
        assert broker.log.next_offset == 12
        config = collect_config(broker.port, tmp_path, start_offset=start)
        totals = await Collector(config, store).run(once=True)
    assert totals.messages == messages


async def test_a_start_past_the_end_is_refused_with_the_setting_named(tmp_path: Path, store: Shaky) -> None:
    async with running_broker(tmp_path / "log") as broker:
        with pytest.raises(BrokerRefusal, match=r"START_OFFSET \(--start-offset\): .*99"):
            await Collector(collect_config(broker.port, tmp_path, start_offset=99), store).run()


async def test_the_start_counts_for_the_first_subscription_only(tmp_path: Path, capture: Path, store: Shaky) -> None:
    """`latest` again after a lost connection would pass over what came meanwhile; the commit would go back to the start."""
    async with running_broker(tmp_path / "log") as broker, line_to(broker.port) as line:
        await publish(capture, broker.port, tmp_path, batch_size=10)
        config = collect_config(line.port, tmp_path, start_offset=-1, flush_interval=60.0)
        async with collecting(config, store) as collector:
            await until(lambda: len(broker.connections) == 1 and collector._next == 12)
            line.cut()
            await publish(capture, broker.port, tmp_path, timestamps="now", batch_size=10)
            await until(lambda: collector._next == broker.log.next_offset)
    assert collector.totals.messages == broker.log.next_offset - 12
    assert len(stored_readings(store)) == 120


async def test_two_collectors_each_read_everything(tmp_path: Path, capture: Path) -> None:
    stores = [SqliteStore(tmp_path / f"{number}.sqlite3") for number in range(2)]
    async with running_broker(tmp_path / "log") as broker:
        first, second = (collect_config(broker.port, tmp_path, collector_id=f"c{number}") for number in range(2))
        async with collecting(first, stores[0]) as one, collecting(second, stores[1]) as two:
            await publish(capture, broker.port, tmp_path)
            await until(lambda: one.committed == two.committed == broker.log.next_offset - 1)
    for each in stores:
        assert sorted(stored_readings(each)) == sorted(readings_in(capture))
        each.close()


async def test_a_second_collector_with_the_same_id_is_refused_after_a_while(
    tmp_path: Path, store: Shaky, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(collector_module, "ID_IN_USE_SECONDS", 0.5)
    caplog.set_level(logging.INFO, "ingest")
    async with (
        running_broker(tmp_path / "log") as broker,
        collecting(collect_config(broker.port, tmp_path), store) as first,
    ):
        await until(lambda: first._next is not None)
        with pytest.raises(BrokerRefusal, match=r"COLLECTOR_ID.*another collector is connected as 'collector-1'"):
            await Collector(collect_config(broker.port, tmp_path), store).run()
    assert sum("waiting" in record.getMessage() for record in caplog.records) == 1


async def test_an_id_that_becomes_free_is_taken(tmp_path: Path, store: Shaky) -> None:
    async with running_broker(tmp_path / "log") as broker:
        async with collecting(collect_config(broker.port, tmp_path), store) as first:
            await until(lambda: first._next is not None)
            stop = asyncio.Event()
            second = Collector(collect_config(broker.port, tmp_path), store, stop)
            running = asyncio.create_task(second.run())
            await until(lambda: second._in_use_since is not None)
        await until(lambda: second._next is not None)
        stop.set()
        await running


async def test_a_broker_that_restarts_loses_nothing_and_is_one_line_each_way(
    tmp_path: Path, capture: Path, store: Shaky, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ingest")
    port = free_port()
    async with collecting(collect_config(port, tmp_path), store) as collector:
        for timestamps in ("source", "now"):
            async with running_broker(tmp_path / "log", port=port) as broker:
                await publish(capture, port, tmp_path, timestamps=timestamps)
                await until(lambda broker=broker: collector.committed == broker.log.next_offset - 1)  # type: ignore[misc]
            await asyncio.sleep(0.3)
    assert len(stored_readings(store)) == 240
    assert collector.totals.stored == 240


async def test_what_was_received_is_stored_while_the_broker_is_away(
    tmp_path: Path, capture: Path, store: Shaky
) -> None:
    port = free_port()
    async with collecting(collect_config(port, tmp_path, flush_interval=0.4), store) as collector:
        async with running_broker(tmp_path / "log", port=port) as broker:
            await publish(capture, port, tmp_path)
            await until(lambda: collector._next == broker.log.next_offset)
        await until(lambda: len(stored_readings(store)) == 120)
        async with running_broker(tmp_path / "log", port=port) as broker:
            await until(lambda: collector.committed == broker.log.next_offset - 1)
            assert all_is_committed(broker)
    assert collector.totals.stored == 120


async def test_a_log_that_was_replaced_is_read_from_its_start(
    tmp_path: Path, capture: Path, store: Shaky, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    async with collecting(collect_config(port, tmp_path, flush_interval=0.3), store) as collector:
        async with running_broker(tmp_path / "old", port=port) as broker:
            await publish(capture, port, tmp_path, batch_size=10)
            await until(lambda: collector._next == broker.log.next_offset)
        async with running_broker(tmp_path / "new", port=port) as broker:
            await publish(capture, port, tmp_path, timestamps="now", batch_size=30)
            await until(lambda: collector.committed == broker.log.next_offset - 1)
    assert len(stored_readings(store)) == 240
    assert "has another log than before" in caplog.text
    assert collector.totals.log_restores == 1


async def publish_minutes(port: int, first: int, count: int) -> None:
    """One message of one reading for each of the minutes."""
    client = await BrokerClient.connect("127.0.0.1", port)
    seconds = 1_750_000_000
    for minute in range(first, first + count):
        time_ns = (seconds + 60 * minute) * 10**9
        block = PointBlock(
            [Gpu(uuid="GPU-1", hostname="h1")], ["DCGM_FI_DEV_GPU_UTIL"], [(0, time_ns, [float(minute % 100)])]
        )
        await client.publish(encode_block(block, batch_id=f"{minute}", source="", collected_at="", refused={}))
    await client.close()


@pytest.mark.parametrize("is_new", [False, True], ids=["copied", "also a new identity"])
@pytest.mark.parametrize("received", [20, 0], ids=["had messages", "had none in this run"])
async def test_a_log_restored_from_a_copy_under_a_living_collector_loses_nothing(
    tmp_path: Path, store: Shaky, caplog: pytest.LogCaptureFixture, is_new: bool, received: int
) -> None:
    port, log, copy = free_port(), tmp_path / "log", tmp_path / "copy"
    async with running_broker(log) as broker:
        await publish_minutes(broker.port, 0, 100)
        await collect_once(broker, tmp_path, store)
    shutil.copytree(log, copy)
    async with running_broker(log) as broker:
        await publish_minutes(broker.port, 100, 200 - received)
        await collect_once(broker, tmp_path, store)
    async with collecting(collect_config(port, tmp_path, flush_interval=0.3), store) as collector:
        async with running_broker(log, port=port) as broker:
            await publish_minutes(port, 300 - received, received)
            await until(lambda: collector._next == broker.log.next_offset == 300)
            before = broker.log.identity.id
        shutil.rmtree(log)
        shutil.move(copy, log)
        if is_new:
            (log / "identity").unlink()
        async with running_broker(log) as broker:  # on another port: before the collector is back
            await publish_minutes(broker.port, 1000, 300)
        async with running_broker(log, port=port) as broker:
            await until(lambda: collector.committed == broker.log.next_offset - 1)
            assert broker.log.next_offset == 400
            assert broker.log.identity.id != before
            assert broker.counters.restores == 1
    assert len(stored_readings(store)) == 600
    assert "has another log than before" in caplog.text
    assert "had offset 299 of another log" in caplog.text
    assert collector.totals.log_restores == 1


async def test_a_hole_in_the_log_is_said_counted_and_passed(
    tmp_path: Path, capture: Path, store: Shaky, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path, batch_size=10)
    (segment,) = (tmp_path / "log").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    for index in (tmp_path / "log").glob("*.idx"):
        index.unlink()
    async with running_broker(tmp_path / "log") as broker:
        totals = await collect_once(broker, tmp_path, store)
        assert committed(broker) == 11
    assert totals.messages == 11
    assert len(stored_readings(store)) == 110
    assert "are no longer in the broker's log (corrupt)" in caplog.text
    assert (await counts()).refused == {"lost_message": 1}


async def test_old_readings_are_dropped_and_refused_by_the_retention_period_once_the_clock_is_confirmed(
    tmp_path: Path, capture: Path, store: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "EVERY_SECONDS", 0.05)
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path)
        await collect_once(broker, tmp_path, store)
        await publish(capture, broker.port, tmp_path)
        async with collecting(collect_config(broker.port, tmp_path, retention=3600.0), store) as collector:
            await until(lambda: collector.committed == broker.log.next_offset - 1)
            assert collector.retention_waits  # all that is stored is older by this clock
            assert len(stored_readings(store)) == 120
            client = await BrokerClient.connect("127.0.0.1", broker.port)
            await client.publish(one_reading("GPU-now"))
            await until(lambda: len(stored_readings(store)) == 1)
            await until(lambda: not collector.retention_waits)
            await client.close()
            await publish(capture, broker.port, tmp_path / "again")
            await until(lambda: collector.committed == broker.log.next_offset - 1)
    assert (await counts()).refused == {"too_old": 120}


async def test_retention_survives_a_store_that_is_away(
    tmp_path: Path, store: Shaky, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def locked(oldest_ns: int) -> int:
        assert oldest_ns < time.time_ns()
        raise StoreUnavailable("locked")

    monkeypatch.setattr(store, "apply_retention", locked)
    async with running_broker(tmp_path / "log") as broker:
        config = collect_config(broker.port, tmp_path, retention=3600.0)
        async with collecting(config, store) as collector:
            await until(lambda: "asked to drop old readings: locked" in caplog.text)
            assert collector.totals.messages == 0


async def test_a_wrong_token_ends_the_collector_with_the_reason(tmp_path: Path, store: Shaky) -> None:
    async with running_broker(tmp_path / "log", token="secret") as broker:
        with pytest.raises(BrokerRefusal, match="refuses this collector"):
            await Collector(collect_config(broker.port, tmp_path), store).run()


async def test_without_a_broker_a_stop_ends_it_at_once(tmp_path: Path, store: Shaky) -> None:
    began = time.monotonic()
    async with collecting(collect_config(free_port(), tmp_path), store):
        await asyncio.sleep(0.2)
    assert time.monotonic() - began < 3


class Killed(BaseException):
    """Stands for the kernel, which takes the process."""


async def test_messages_are_decoded_while_the_store_takes_the_last_flush(tmp_path: Path, held: Held) -> None:
    async with running_broker(tmp_path / "log") as broker, publishing(broker.port) as client:
        await client.publish(one_reading("GPU-1"))
        async with collecting(collect_config(broker.port, tmp_path), held) as collector:
            await until(held.writing.is_set)
            await client.publish(one_reading("GPU-2"))
            await until(lambda: collector._next == 2)
            assert collector.waiting_readings == 2
            assert committed(broker) is None
            held.let_go.set()
            await until(lambda: collector.committed == 1)
        assert committed(broker) == 1
    assert len(stored_readings(held)) == 2


async def test_the_store_takes_the_next_flush_and_no_more_while_the_last_is_noted(
    tmp_path: Path, store: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module, "FLUSH_READINGS", 1)
    noting, noted = threading.Event(), threading.Event()
    see = CollectorRollups.see

    def slow(self: CollectorRollups, *written: Any) -> None:
        noting.set()
        assert noted.wait(60)
        see(self, *written)

    monkeypatch.setattr(CollectorRollups, "see", slow)
    async with running_broker(tmp_path / "log") as broker, publishing(broker.port) as client:
        async with collecting(collect_config(broker.port, tmp_path), store) as collector:
            await client.publish(one_reading("GPU-0"))
            await until(noting.is_set)
            for number in range(1, 5):
                await client.publish(one_reading(f"GPU-{number}"))
            await until(lambda: store.tries == 2 and collector._next == 3)
            assert collector.waiting_readings == 3
            await asyncio.sleep(0.2)
            assert (store.tries, collector._next) == (2, 3)
            assert committed(broker) is None
            noted.set()
            await until(lambda: collector.committed == 4)
        assert committed(broker) == 4
    assert len(stored_readings(store)) == 5


async def test_what_was_written_is_committed_while_the_store_hangs_at_the_next_flush(
    tmp_path: Path, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module, "FLUSH_READINGS", 1)
    held.free = 1
    async with (
        running_broker(tmp_path / "log") as broker,
        publishing(broker.port) as client,
        collecting(collect_config(broker.port, tmp_path), held) as collector,
    ):
        # So that the first flush is not committed as soon as it is written.
        collector._last_commit = time.monotonic()
        for number in range(2):
            client.publish(one_reading(f"GPU-{number}"))
        await client.drain()
        await until(held.writing.is_set)
        await until(lambda: collector.committed == 0)
        assert collector.waiting_readings == 1
        held.let_go.set()
        await until(lambda: collector.committed == 1)
    assert len(stored_readings(held)) == 2


async def test_a_fault_while_noting_ends_the_collector_and_commits_nothing(
    tmp_path: Path, store: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_broker(tmp_path / "log") as broker, publishing(broker.port) as client:
        await client.publish(one_reading("GPU-0"))

        def fail(*_: Any) -> None:
            raise ZeroDivisionError("made up")

        with monkeypatch.context() as broken:
            broken.setattr(CollectorRollups, "see", fail)
            with pytest.raises(ZeroDivisionError):
                await collect_once(broker, tmp_path, store)
        assert committed(broker) is None
        assert (await collect_once(broker, tmp_path, store)).stored == 1
        assert committed(broker) == 0


async def test_what_nothing_follows_is_written_long_before_the_interval_is_over(tmp_path: Path, store: Shaky) -> None:
    async with (
        running_broker(tmp_path / "log") as broker,
        publishing(broker.port) as client,
        collecting(collect_config(broker.port, tmp_path, flush_interval=3600.0), store) as collector,
    ):
        for number in range(3):
            await client.publish(one_reading(f"GPU-{number}"))
            await until(lambda number=number: collector.committed == number)  # type: ignore[misc]
    assert collector.totals.flushes >= 3


async def test_a_log_replaced_while_the_store_takes_the_old_one_is_committed_no_further_than_it_was_read(
    tmp_path: Path, held: Held
) -> None:
    port = free_port()
    async with collecting(collect_config(port, tmp_path), held) as collector:
        async with running_broker(tmp_path / "old", port=port), publishing(port) as client:
            for number in range(5):
                await client.publish(one_reading(f"GPU-{number}"))
            await until(lambda: collector._next == 5 and held.writing.is_set())
        async with running_broker(tmp_path / "new", port=port) as broker, publishing(port) as client:
            await client.publish(one_reading("GPU-new"))
            await until(lambda: collector.totals.log_restores == 1 and collector._next == 1)
            held.let_go.set()
            await until(lambda: collector.committed == 0)
            assert committed(broker) == 0
            for number in range(3):
                await client.publish(one_reading(f"GPU-new-{number}"))
            await until(lambda: collector.committed == 3)
    assert len(stored_readings(held)) == 9


@pytest.mark.parametrize("place", ["decode", "store"])
async def test_a_message_that_kills_each_run_goes_to_the_letters_and_the_rest_is_stored(
    tmp_path: Path, store: Shaky, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    begun = 0
    real_write = store.write

    def decode(payload: bytes, **limits: Any) -> Any:
        nonlocal begun
        if b"GPU-deadly" in payload and place == "decode":
            begun += 1
            raise Killed
        return decode_batch(payload, **limits)

    def write(blocks: Sequence[PointBlock]) -> WriteResult:
        nonlocal begun
        if any(gpu.uuid == "GPU-deadly" for block in blocks for gpu in block.gpus):
            begun += 1
            raise Killed
        return real_write(blocks)

    monkeypatch.setattr(decode_module, "decode", decode)
    monkeypatch.setattr(store, "write", write)
    async with running_broker(tmp_path / "log") as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        for gpu in ("GPU-1", "GPU-2", "GPU-deadly", "GPU-3", "GPU-4"):
            await client.publish(one_reading(gpu))
        await client.close()
        for _ in range(3):
            with pytest.raises(Killed):
                await collect_once(broker, tmp_path, store)
        totals = await collect_once(broker, tmp_path, store)
        assert all_is_committed(broker)
    assert begun == 3
    assert {gpu for gpu, *_ in stored_readings(store)} == {"GPU-1", "GPU-2", "GPU-3", "GPU-4"}
    assert totals.refused_by == {"unfinished_message": 1}
    (letter,) = letters(tmp_path)
    assert (letter["offset"], letter["reason"]) == (2, "unfinished_message")
    assert "GPU-deadly" in letter["payload"]
    assert not Attempts(tmp_path, "collector-1").path.exists()


async def test_what_was_received_is_written_in_bounded_parts(
    tmp_path: Path, capture: Path, store: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module, "FLUSH_READINGS", 10)
    sizes: list[int] = []
    real_write = store.write

    def write(blocks: Sequence[PointBlock]) -> WriteResult:
        sizes.append(sum(block.count() for block in blocks))
        return real_write(blocks)

    monkeypatch.setattr(store, "write", write)
    async with running_broker(tmp_path / "log") as broker:
        await publish(capture, broker.port, tmp_path, batch_size=6)
        totals = await collect_once(broker, tmp_path, store, flush_interval=60.0)
        assert all_is_committed(broker)
    assert totals.stored == 120
    assert max(sizes) <= 15
