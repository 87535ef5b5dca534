from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.client.client import BrokerClient
from broker.log.disk import Buffer, Disk
from ingest.capture.position import Gathering
from ingest.errors import BrokerRefusal
from ingest.streamer.publisher import Batch, Publisher
from readings.model import Gpu, PointBlock
from tests.broker.harness import running_broker
from tests.ingest.processes import free_port
from tests.ingest.wiring import line_to, read_batches, readings_of, until


def a_batch(number: int, gathering: Gathering | None = None, *, points: int = 3, pod: str = "") -> Batch:
    gpus = [Gpu(uuid=f"GPU-{number}-{each}", pod=pod) for each in range(points)]
    block = PointBlock(gpus, ["A", "B"], [(each, 1000 + number, [float(number), 1.0]) for each in range(points)])
    return Batch(block, gathering or Gathering(0, 0, 0), f"b{number}", "streamer-1", "2025-07-18T20:42:34Z")


def to_port(port: int) -> Callable[[], Awaitable[BrokerClient]]:
    return lambda: BrokerClient.connect("127.0.0.1", port)


@asynccontextmanager
async def publishing(port: int, window: int = 64) -> AsyncIterator[Publisher]:
    publisher = Publisher(to_port(port), lambda: None, broker="the broker", window=window)
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def put_all(publisher: Publisher, batches: list[Batch]) -> None:
    for batch in batches:
        await publisher.put(batch)
    await publisher.flush()


async def published(port: int) -> list[str]:
    return [batch.batch_id for batch in await read_batches(port)]


async def test_batches_arrive_once_and_in_order(tmp_path: Path) -> None:
    answered = []
    gathering = Gathering(0, 0, 0)
    async with running_broker(tmp_path) as broker:
        publisher = Publisher(
            to_port(broker.port), lambda: answered.append(gathering.unanswered), broker="the broker", window=8
        )
        task = asyncio.create_task(publisher.run())
        await put_all(publisher, [a_batch(number, gathering) for number in range(100)])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await published(broker.port) == [f"b{number}" for number in range(100)]
    assert (publisher.uplink.batches_answered, publisher.uplink.readings_answered) == (100, 600)
    assert gathering.unanswered == 0
    assert len(answered) == 100


async def test_put_waits_while_a_window_of_batches_is_unsent(tmp_path: Path) -> None:
    publisher = Publisher(to_port(free_port()), lambda: None, broker="the broker", window=2)
    for number in range(2):
        await publisher.put(a_batch(number))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(publisher.put(a_batch(2)), 0.05)
    assert publisher.unanswered == 2


async def test_a_broker_that_is_not_there_is_waited_for_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    caplog.set_level(logging.INFO, "ingest")
    async with publishing(port) as publisher:
        await publisher.put(a_batch(0))
        await until(lambda: "no broker" in caplog.text)
        await asyncio.sleep(0.4)  # some more attempts
        async with running_broker(tmp_path, port=port) as broker:
            await publisher.flush()
            assert await published(broker.port) == ["b0"]
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("ingest")]
    assert len(lines) == 2
    assert lines[0].endswith("waiting, and going on when it is back")
    assert "is back after" in lines[1]


async def test_what_a_restarted_broker_has_already_is_not_stored_twice(tmp_path: Path) -> None:
    port = free_port()
    batches = [a_batch(number) for number in range(300)]
    async with publishing(port, window=16) as publisher:
        putting = asyncio.create_task(put_all(publisher, batches))
        for least in (50, 120, 300):
            async with running_broker(tmp_path, port=port):
                await until(lambda least=least: publisher.uplink.batches_answered >= least)  # type: ignore[misc]
        await putting
    async with running_broker(tmp_path) as broker:
        assert await published(broker.port) == [f"b{number}" for number in range(300)]


async def test_batches_whose_answers_got_lost_are_sent_again_harmlessly(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, line_to(broker.port) as line, publishing(line.port) as publisher:
        await put_all(publisher, [a_batch(0)])
        line.swallow = True
        for number in range(1, 20):
            await publisher.put(a_batch(number))
        await until(lambda: broker.log.next_offset == 20)
        assert publisher.uplink.batches_answered == 1
        line.cut()
        line.swallow = False
        await publisher.flush()
        assert publisher.uplink.batches_answered == 20
        assert line.connections == 2
        assert await published(broker.port) == [f"b{number}" for number in range(20)]


async def test_a_full_disk_is_waited_for_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = False
    write = Disk.write

    def limited(self: Disk, fd: int, pieces: Sequence[Buffer], position: int) -> int:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, fd, pieces, position)

    monkeypatch.setattr(Disk, "write", limited)
    caplog.set_level(logging.INFO, "ingest")
    async with running_broker(tmp_path) as broker, publishing(broker.port) as publisher:
        await put_all(publisher, [a_batch(0)])
        full = True
        for number in range(1, 30):
            await publisher.put(a_batch(number))
        await until(lambda: "waiting" in caplog.text)
        assert publisher.unanswered == 29
        full = False
        await publisher.flush()
        assert sorted(await published(broker.port)) == sorted(f"b{number}" for number in range(30))
    lines = [record.getMessage() for record in caplog.records if record.name == "ingest.reconnect"]
    assert len(lines) == 2


async def test_a_number_that_the_broker_passed_over_is_replaced(tmp_path: Path) -> None:
    """Its refusal got lost with the connection, and a later batch came in: the old number counts as a repetition."""
    async with running_broker(tmp_path) as broker, line_to(broker.port) as line, publishing(line.port) as publisher:
        other = await BrokerClient.connect("127.0.0.1", broker.port)
        await other.publish(b'{"points": []}', producer=publisher.producer, sequence=1)
        await other.publish(b'{"points": []}', producer=publisher.producer, sequence=5)
        await other.close()
        await put_all(publisher, [a_batch(number) for number in range(4)])
        arrived = await published(broker.port)
    assert {"b1", "b2", "b3"} <= set(arrived)


async def test_a_batch_larger_than_the_brokers_frames_is_cut(tmp_path: Path) -> None:
    gathering = Gathering(0, 0, 0)
    batch = a_batch(0, gathering, points=40)
    expected = sorted(readings_of([batch.block]))
    async with running_broker(tmp_path, max_frame=1024) as broker, publishing(broker.port) as publisher:
        await put_all(publisher, [batch, a_batch(1, gathering)])
        batches = await read_batches(broker.port)
    assert len(batches) > 3
    assert sorted(readings_of(each.block for each in batches if each.batch_id != "b1")) == expected
    assert gathering.unanswered == 0
    assert publisher.uplink.readings_answered == 86


async def test_refused_counts_are_told_once_when_a_batch_is_cut(tmp_path: Path) -> None:
    batch = a_batch(0, points=40)
    batch = Batch(batch.block, batch.gathering, "b0", "s", "2025-07-18T20:42:34Z", {"short_row": 3})
    async with running_broker(tmp_path, max_frame=1024) as broker, publishing(broker.port) as publisher:
        await put_all(publisher, [batch])
        assert sum(each.reported.get("short_row", 0) for each in await read_batches(broker.port)) == 3


async def test_a_reading_that_fits_no_frame_ends_the_publisher_with_a_clear_line(tmp_path: Path) -> None:
    async with running_broker(tmp_path, max_frame=1024) as broker:
        publisher = Publisher(to_port(broker.port), lambda: None, broker="the broker")
        await publisher.put(a_batch(0, points=1, pod="p" * 1000))
        with pytest.raises(BrokerRefusal, match="takes frames of 1024 bytes at most, and one reading takes"):
            await publisher.run()


async def test_batches_that_fitted_before_are_cut_for_a_broker_with_smaller_frames(tmp_path: Path) -> None:
    port = free_port()
    async with (
        running_broker(tmp_path / "a") as broker,
        line_to(broker.port) as line,
        publishing(line.port) as publisher,
    ):
        await put_all(publisher, [a_batch(0)])
        line.swallow = True
        await publisher.put(a_batch(1, points=40))
        await until(lambda: broker.log.next_offset == 2)
        async with running_broker(tmp_path / "b", max_frame=1024, port=port):
            line.target = port
            line.cut()
            line.swallow = False
            await publisher.flush()
            arrived = await read_batches(port)
    assert sorted(readings_of(each.block for each in arrived)) == sorted(readings_of([a_batch(1, points=40).block]))


async def test_a_wrong_token_ends_the_publisher_with_the_reason(tmp_path: Path) -> None:
    async with running_broker(tmp_path, token="secret") as broker:
        publisher = Publisher(to_port(broker.port), lambda: None, broker="the broker at here:1")
        with pytest.raises(BrokerRefusal, match="the broker at here:1 refuses this streamer"):
            await publisher.run()
