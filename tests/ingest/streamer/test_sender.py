from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.client.client import BrokerClient
from broker.errors import Unauthorized
from broker.log.disk import Buffer, Disk
from broker.log.record import key_of
from ingest.errors import BrokerRefusal
from ingest.streamer.sender import BatchSender, Encode, MemoryQueue, encode_blocks, split_block
from ingest.streamer.spool import Spool
from readings.batch import decode, encode_block, encode_plain
from readings.model import Gpu, PointBlock
from tests.broker.harness import running_broker
from tests.ingest.wiring import line_to, outages, read_batches, read_log, readings_of, until
from tests.ports import free_port

GPUS = [Gpu(uuid=f"GPU-{number}") for number in range(3)]


def a_block(number: int, *, points: int = 3, label: str = "") -> PointBlock:
    gpus = [Gpu(uuid=f"GPU-{number}-{each}", labels={"x": label}) for each in range(points)]
    return PointBlock(gpus, ["A", "B"], [(each, 1000 + number, [float(number), 1.0]) for each in range(points)])


def encoded(block: PointBlock, number: int, refused: dict[str, int] | None = None) -> bytes:
    return encode_block(block, batch_id=f"b{number}", source="s", collected_at="", refused=refused or {})


class Memory:
    """A sender of a queue in memory."""

    def __init__(self, port: int, *, window: int = 64, limit: int = 128, encode: Encode = encode_block) -> None:
        self.answered: list[int] = []
        self.queue = MemoryQueue(limit, self.answered.append)
        self.sender = BatchSender(
            self.queue,
            self.queue.read,
            lambda: BrokerClient.connect("127.0.0.1", port),
            broker="the broker at here:1",
            window=window,
            encode=encode,
        )

    async def put(self, *numbers: int, refused: dict[str, int] | None = None, **shape: Any) -> None:
        for number in numbers:
            block = a_block(number, **shape)
            await self.queue.put(encoded(block, number, refused), block.count())
            self.sender.wake()

    async def put_all(self, *numbers: int, **shape: Any) -> None:
        await self.put(*numbers, **shape)
        await self.sender.flush()


@asynccontextmanager
async def running(sender: BatchSender) -> AsyncIterator[None]:
    task = asyncio.create_task(sender.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def sending(port: int, **settings: Any) -> AsyncIterator[Memory]:
    memory = Memory(port, **settings)
    async with running(memory.sender):
        yield memory


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", 64 << 20)
    yield spool
    spool.close()


def spooling(spool: Spool, port: int) -> BatchSender:
    async def read(number: int) -> Any:
        await asyncio.sleep(0)
        return spool.read(number)

    return BatchSender(spool, read, lambda: BrokerClient.connect("127.0.0.1", port), broker="the broker")


async def ids(port: int) -> list[str]:
    return [batch.batch_id for batch in await read_batches(port)]


def named(numbers: range) -> list[str]:
    return [f"b{number}" for number in numbers]


async def test_batches_arrive_once_and_in_order(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, sending(broker.port, window=8) as memory:
        await memory.put_all(*range(100))
        assert await ids(broker.port) == named(range(100))
        assert (await read_log(broker.port))[99].message_id == f"{key_of(memory.queue.producer)}:{100:012d}"
    sender = memory.sender
    assert (sender.batches_answered, sender.readings_answered, sender.waiting) == (100, 600, 0)
    assert memory.answered == list(range(1, 101))


async def test_a_spools_batches_arrive_in_order_under_their_numbers(spool: Spool, tmp_path: Path) -> None:
    spool.append([(encoded(a_block(number), number), 1) for number in range(600)])
    async with running_broker(tmp_path / "broker") as broker:
        sender = spooling(spool, broker.port)
        async with running(sender):
            await sender.flush()
            spool.append([(encoded(a_block(600), 600), 1)])
            sender.wake()
            await sender.flush()
            assert await ids(broker.port) == named(range(601))
            assert (await read_log(broker.port))[600].message_id == f"{key_of(spool.producer)}:{600:012d}"
    assert (sender.batches_answered, sender.readings_answered) == (601, 601)


async def test_put_waits_while_the_queue_is_full() -> None:
    memory = Memory(free_port(), limit=2)
    await memory.put(0, 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(memory.put(2), 0.05)
    assert memory.sender.waiting == 2


async def test_no_more_than_a_window_is_unanswered_at_a_time(tmp_path: Path) -> None:
    async with (
        running_broker(tmp_path) as broker,
        line_to(broker.port) as line,
        sending(line.port, window=4) as memory,
    ):
        await memory.put_all(0)
        line.swallow = True
        await memory.put(*range(1, 20))
        await until(lambda: broker.log.next_offset == 5)
        await asyncio.sleep(0.1)
        assert broker.log.next_offset == 5


async def test_a_broker_that_is_not_there_is_waited_for_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    caplog.set_level(logging.INFO, "telemetry_site.outage")
    async with sending(port) as memory:
        await memory.put(0)
        await until(lambda: "no broker" in caplog.text)
        await asyncio.sleep(0.4)  # some more attempts
        async with running_broker(tmp_path, port=port) as broker:
            await memory.sender.flush()
            assert await ids(broker.port) == ["b0"]
    lines = outages(caplog)
    assert len(lines) == 2
    assert lines[0].endswith("waiting until it is back")
    assert "is back after" in lines[1]


async def test_without_anything_to_send_a_connection_ends_the_outage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    port = free_port()
    async with sending(port) as memory:
        await until(lambda: "waiting until it is back" in caplog.text)
        assert not memory.sender.connected
        async with running_broker(tmp_path, port=port):
            await until(lambda: memory.sender.connected)
            assert "is back after" in caplog.text
    assert not memory.sender.connected


async def test_what_a_restarted_broker_has_already_is_not_stored_twice(tmp_path: Path) -> None:
    port = free_port()
    async with sending(port, window=16) as memory:
        putting = asyncio.create_task(memory.put_all(*range(300)))
        for least in (50, 120, 300):
            async with running_broker(tmp_path, port=port):
                await until(lambda least=least: memory.sender.batches_answered >= least)  # type: ignore[misc]
        await putting
    async with running_broker(tmp_path) as broker:
        assert await ids(broker.port) == named(range(300))


async def test_batches_whose_answers_got_lost_are_sent_again_harmlessly(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, line_to(broker.port) as line, sending(line.port) as memory:
        await memory.put_all(0)
        line.swallow = True
        await memory.put(*range(1, 20))
        await until(lambda: broker.log.next_offset == 20)
        assert memory.sender.batches_answered == 1
        line.cut()
        line.swallow = False
        await memory.sender.flush()
        assert memory.sender.batches_answered == 20
        assert line.connections == 2
        assert await ids(broker.port) == named(range(20))


async def test_a_connection_that_breaks_again_and_again_loses_and_doubles_nothing(spool: Spool, tmp_path: Path) -> None:
    async with running_broker(tmp_path / "broker") as broker, line_to(broker.port) as line:
        sender = spooling(spool, line.port)
        async with running(sender):
            for round_ in range(4):
                line.swallow = True
                spool.append([(encoded(a_block(number), number), 1) for number in range(round_ * 50, round_ * 50 + 50)])
                sender.wake()
                sent = line.sent
                await until(lambda sent=sent: line.sent > sent)  # type: ignore[misc]
                line.cut()
                line.swallow = False
            await sender.flush()
            assert await ids(broker.port) == named(range(200))


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
    async with running_broker(tmp_path) as broker, sending(broker.port) as memory:
        await memory.put_all(0)
        full = True
        await memory.put(*range(1, 30))
        await until(lambda: "waiting" in caplog.text)
        assert memory.sender.waiting == 29
        full = False
        await memory.sender.flush()
        assert sorted(await ids(broker.port)) == sorted(named(range(30)))
    lines = [record.getMessage() for record in caplog.records if record.name == "telemetry_site.outage"]
    assert len(lines) == 2


async def test_a_number_that_the_broker_passed_over_is_taken_when_it_comes(tmp_path: Path) -> None:
    """Its refusal got lost with the connection, and a later batch came in."""
    async with running_broker(tmp_path) as broker, line_to(broker.port) as line, sending(line.port) as memory:
        other = await BrokerClient.connect("127.0.0.1", broker.port)
        await other.publish(b'{"points": []}', producer=memory.queue.producer, sequence=1)
        await other.publish(b'{"points": []}', producer=memory.queue.producer, sequence=5)
        await other.close()
        await memory.put_all(*range(4))
        assert {"b0", "b1", "b2", "b3"} <= set(await ids(broker.port))


async def test_a_number_older_than_the_broker_remembers_is_sent_without_it(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, sending(broker.port) as memory:
        other = await BrokerClient.connect("127.0.0.1", broker.port)
        for number in range(600):  # a gap after each: more runs than it keeps
            other.publish(b'{"points": []}', producer=memory.queue.producer, sequence=10 + 2 * number)
        await other.publish(b'{"points": []}')
        await other.close()
        await memory.put_all(0, 1)
        assert {"b0", "b1"} <= set(await ids(broker.port))


async def test_batches_whose_numbers_another_client_has_used_are_all_stored_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_broker(tmp_path) as broker, sending(broker.port) as memory:
        other = await BrokerClient.connect("127.0.0.1", broker.port)
        for number in range(1, 31):
            other.publish(b'{"points": []}', producer=memory.queue.producer, sequence=number)
        await other.publish(b'{"points": []}')
        await other.close()
        await memory.put_all(*range(60))
        assert set(named(range(60))) <= set(await ids(broker.port))
        assert len(await read_log(broker.port)) == 31 + 60
    assert memory.sender.readings_answered == 60 * 6
    lines = [record for record in caplog.records if "under the number of batch" in record.getMessage()]
    assert len(lines) == 1


async def test_batches_sent_under_the_second_id_arrive_once_through_a_connection_that_breaks(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, line_to(broker.port) as line, sending(line.port) as memory:
        other = await BrokerClient.connect("127.0.0.1", broker.port)
        for number in range(1, 101):
            other.publish(b'{"points": []}', producer=memory.queue.producer, sequence=number)
        await other.publish(b'{"points": []}')
        await other.close()
        putting = asyncio.create_task(memory.put_all(*range(100)))
        for stored in range(120, 200, 20):
            await until(lambda least=stored: broker.log.next_offset >= least)  # type: ignore[misc]
            line.cut()
        await putting
        assert sorted(await ids(broker.port)) == sorted([*named(range(100)), *[""] * 101])


async def test_a_batch_larger_than_the_brokers_frames_is_cut(tmp_path: Path) -> None:
    expected = sorted(readings_of([a_block(0, points=40)]))
    async with running_broker(tmp_path, max_frame=1024) as broker, sending(broker.port) as memory:
        await memory.put(0, points=40, refused={"short_row": 3})
        await memory.put_all(1)
        batches = await read_batches(broker.port)
    assert len(batches) > 3
    assert sorted(readings_of(each.block for each in batches if each.batch_id != "b1")) == expected
    assert sum(each.reported.get("short_row", 0) for each in batches) == 3
    assert (memory.sender.waiting, memory.sender.readings_answered) == (0, 86)


async def test_a_plain_batch_is_cut_into_plain_batches(tmp_path: Path) -> None:
    expected = sorted(readings_of([a_block(0, points=40)]))
    async with running_broker(tmp_path, max_frame=1024) as broker, sending(broker.port, encode=encode_plain) as memory:
        payload = encode_plain(
            a_block(0, points=40), batch_id="b0", source="s", collected_at="", refused={"short_row": 3}
        )
        await memory.queue.put(payload, 80)
        memory.sender.wake()
        await memory.sender.flush()
        messages = await read_log(broker.port)
        batches = await read_batches(broker.port)
    assert len(batches) > 3
    assert all(b'"metrics":[' in message.payload and b'"points"' not in message.payload for message in messages)
    assert sorted(readings_of(each.block for each in batches)) == expected
    assert sum(each.reported.get("short_row", 0) for each in batches) == 3


async def test_parts_whose_answers_got_lost_arrive_once(tmp_path: Path) -> None:
    async with (
        running_broker(tmp_path, max_frame=1024) as broker,
        line_to(broker.port) as line,
        sending(line.port) as memory,
    ):
        await memory.put_all(0)
        line.swallow = True
        await memory.put(1, 2, points=40)
        await until(lambda: broker.log.next_offset > 3)
        line.cut()
        line.swallow = False
        await memory.sender.flush()
        arrived = readings_of(each.block for each in await read_batches(broker.port))
    assert sorted(arrived) == sorted(readings_of([a_block(0), a_block(1, points=40), a_block(2, points=40)]))


async def test_a_reading_that_fits_no_frame_ends_the_run_with_a_clear_line(tmp_path: Path) -> None:
    async with running_broker(tmp_path, max_frame=1024) as broker:
        memory = Memory(broker.port)
        await memory.put(0, points=1, label="y" * 1000)
        with pytest.raises(BrokerRefusal, match="takes frames of 1024 bytes at most, and one reading takes"):
            await memory.sender.run()


async def test_batches_that_fitted_before_are_cut_for_a_broker_with_smaller_frames(tmp_path: Path) -> None:
    port = free_port()
    async with running_broker(tmp_path / "a") as broker, line_to(broker.port) as line, sending(line.port) as memory:
        await memory.put_all(0)
        line.swallow = True
        await memory.put(1, points=40)
        await until(lambda: broker.log.next_offset == 2)
        async with running_broker(tmp_path / "b", max_frame=1024, port=port):
            line.target = port
            line.cut()
            line.swallow = False
            await memory.sender.flush()
            arrived = await read_batches(port)
    assert sorted(readings_of(each.block for each in arrived)) == sorted(readings_of([a_block(1, points=40)]))


async def test_what_cannot_be_read_at_the_end_holds_nothing_up(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 64 << 20)
    spool.append([(encoded(a_block(number), number), 1) for number in range(3)])
    spool.close()
    segment = next((tmp_path / "spool").glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[data.index(b'"b2"') + 1] ^= 1
    segment.write_bytes(data)
    spool = Spool(tmp_path / "spool", 64 << 20)
    async with running_broker(tmp_path / "broker") as broker:
        sender = spooling(spool, broker.port)
        async with running(sender):
            await asyncio.wait_for(sender.flush(), 20)
        assert await ids(broker.port) == ["b0", "b1"]
    spool.close()


async def test_a_wrong_token_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    async with running_broker(tmp_path, token="secret") as broker:
        with pytest.raises(BrokerRefusal, match="the broker at here:1 refuses this streamer") as caught:
            await Memory(broker.port).sender.run()
    assert isinstance(caught.value.__cause__, Unauthorized)


def test_halves_hold_everything_once_and_only_what_they_need() -> None:
    block = PointBlock(GPUS, ["A", "B"], [(0, 1, [1.0, None]), (1, 1, [2.0, None]), (2, 1, [3.0, 4.0])])
    halves = split_block(block)
    assert halves is not None
    first, second = halves
    assert first == PointBlock([GPUS[0]], ["A"], [(0, 1, [1.0])])
    assert sorted(readings_of(halves)) == sorted(readings_of([block]))
    assert first.count() + second.count() == block.count()


def test_a_block_can_be_cut_down_to_single_readings() -> None:
    block = PointBlock(GPUS[:1], ["A", "B", "C"], [(0, 1, [1.0, 2.0, 3.0])])
    parts, singles = [block], list[PointBlock]()
    while parts:
        halves = split_block(part := parts.pop())
        if halves is None:
            singles.append(part)
        else:
            parts += halves
    assert len(singles) == 3
    assert sorted(readings_of(singles)) == sorted(readings_of([block]))


def test_what_holds_nothing_cannot_be_cut() -> None:
    assert split_block(PointBlock([], [], [])) is None


def test_a_block_is_encoded_before_the_next_is_made() -> None:
    made: list[int] = []

    def blocks() -> Iterator[PointBlock]:
        for number in range(3):
            made.append(number)
            yield a_block(number)

    batches = encode_blocks(blocks(), iter(named(range(3))), source="streamer-1", refused={"bad_value": 2})
    first, readings = next(batches)
    assert made == [0]
    assert (decode(first).block, readings) == (a_block(0), a_block(0).count())
    assert [decode(each).reported for each in (first, *(payload for payload, _ in batches))] == [
        {"bad_value": 2},
        {},
        {},
    ]


def test_refused_readings_are_counted_without_a_block_too() -> None:
    [(payload, readings)] = encode_blocks([], iter(["run-1"]), source="streamer-1", refused={"bad_value": 2})
    decoded = decode(payload)
    assert (decoded.batch_id, decoded.reported, decoded.block.points, readings) == ("run-1", {"bad_value": 2}, [], 0)
    assert list(encode_blocks([], iter(["run-1"]), source="streamer-1", refused={})) == []
