"""Reading a log back: all that the broker has, as batches and as readings."""

from __future__ import annotations

from collections.abc import Iterable

from broker.client.client import BrokerClient, Gap, Message
from readings.batch import DecodedBatch, decode
from readings.model import PointBlock
from tests.ingest.captures import Reading


async def read_log(port: int) -> list[Message]:
    """All messages that are in the log now."""
    client = await BrokerClient.connect("127.0.0.1", port)
    messages: list[Message] = []
    try:
        if client.welcome.next > client.welcome.oldest:
            await client.subscribe("test-reader", -2)
            while not messages or messages[-1].offset < client.welcome.next - 1:
                for item in await client.receive():
                    assert not isinstance(item, Gap)
                    messages.append(item)
    finally:
        await client.close()
    return messages


async def read_batches(port: int) -> list[DecodedBatch]:
    """All batches that are in the log now."""
    return [decode(message.payload) for message in await read_log(port)]


def readings_of(blocks: Iterable[PointBlock]) -> list[Reading]:
    """The readings of blocks, each as often as it is there."""
    return [
        (block.gpus[index].uuid, name, time_ns, value)
        for block in blocks
        for index, time_ns, values in block.points
        for name, value in zip(block.metric_names, values, strict=True)
        if value is not None
    ]
