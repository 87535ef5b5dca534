from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.client.client import BrokerClient
from ingest.streamer.sender import Sender
from ingest.streamer.spool import Spool
from readings.batch import encode_block
from readings.model import Gpu, PointBlock
from tests.broker.harness import running_broker
from tests.ingest.wiring import line_to, read_batches, read_log, until


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", 64 << 20)
    yield spool
    spool.close()


def payload(number: int) -> bytes:
    block = PointBlock([Gpu(uuid="GPU-1")], ["A"], [(0, number, [1.0])])
    return encode_block(block, batch_id=f"b{number}", source="s", collected_at="")


async def in_line(call: Callable[..., Any], *arguments: Any) -> Any:
    await asyncio.sleep(0)
    return call(*arguments)


@asynccontextmanager
async def sending(spool: Spool, port: int) -> AsyncIterator[Sender]:
    sender = Sender(spool, in_line, lambda: BrokerClient.connect("127.0.0.1", port), broker="the broker")
    task = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ids(port: int) -> list[str]:
    return [batch.batch_id for batch in await read_batches(port)]


async def test_batches_are_sent_in_order_under_their_numbers(spool: Spool, tmp_path: Path) -> None:
    spool.append([(payload(number), 1) for number in range(600)])
    async with running_broker(tmp_path / "broker") as broker, sending(spool, broker.port) as sender:
        await sender.flush()
        spool.append([(payload(600), 1)])
        sender.wake()
        await sender.flush()
        assert await ids(broker.port) == [f"b{number}" for number in range(601)]
        assert (await read_log(broker.port))[600].message_id == f"{spool.producer}:{600:012d}"
    assert (sender.uplink.batches_answered, sender.uplink.readings_answered) == (601, 601)


async def test_a_connection_that_breaks_again_and_again_loses_and_doubles_nothing(spool: Spool, tmp_path: Path) -> None:
    async with (
        running_broker(tmp_path / "broker") as broker,
        line_to(broker.port) as line,
        sending(spool, line.port) as sender,
    ):
        for round_ in range(4):
            line.swallow = True
            spool.append([(payload(round_ * 50 + number), 1) for number in range(50)])
            sender.wake()
            sent = line.sent
            await until(lambda sent=sent: line.sent > sent)  # type: ignore[misc]
            line.cut()
            line.swallow = False
        await sender.flush()
        assert await ids(broker.port) == [f"b{number}" for number in range(200)]


async def test_what_cannot_be_read_at_the_end_holds_nothing_up(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 64 << 20)
    spool.append([(payload(number), 1) for number in range(3)])
    spool.close()
    segment = next((tmp_path / "spool").glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[data.index(b'"b2"') + 1] ^= 1
    segment.write_bytes(data)
    spool = Spool(tmp_path / "spool", 64 << 20)
    async with running_broker(tmp_path / "broker") as broker, sending(spool, broker.port) as sender:
        await asyncio.wait_for(sender.flush(), 20)
        assert await ids(broker.port) == ["b0", "b1"]
    spool.close()
