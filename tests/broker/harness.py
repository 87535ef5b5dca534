"""A broker inside the test's own event loop, and the plainest possible client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from broker.client.client import BrokerClient, Gap, Message
from broker.log.log import LogConfig
from broker.protocol.connection import ConnectionLimits
from broker.server.server import BrokerServer, serving
from broker.server.state import ServerConfig

PRODUCER = "00000000000000aa"

_LOG_FIELDS = {field.name for field in fields(LogConfig)}
_LIMIT_FIELDS = {field.name for field in fields(ConnectionLimits)}


@asynccontextmanager
async def running_broker(directory: Path, **overrides: Any) -> AsyncIterator[BrokerServer]:
    """A broker on free ports: ``broker.port``, ``broker.http_port``. Overrides are fields of LogConfig, ServerConfig
    or ConnectionLimits. It stops in order at the end of the block."""
    log_config = LogConfig(**{name: value for name, value in overrides.items() if name in _LOG_FIELDS})
    limits = ConnectionLimits(**{name: value for name, value in overrides.items() if name in _LIMIT_FIELDS})
    rest = {name: value for name, value in overrides.items() if name not in _LOG_FIELDS | _LIMIT_FIELDS}
    config = replace(ServerConfig(port=0, http_port=0, fsync=log_config.fsync, limits=limits), **rest)
    async with serving(directory, log_config, config) as server:
        yield server


class PlainClient:
    """What any program with a socket can do: frames written by hand, frames read back, nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> PlainClient:
        """A connection to the broker on ``port``; nothing is said yet."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, **request: object) -> None:
        """Send one request."""
        self.send_body(json.dumps(request).encode())

    def send_body(self, body: bytes) -> None:
        """Send one frame."""
        self.writer.write(len(body).to_bytes(4, "big") + body)

    async def receive(self) -> dict[str, Any]:
        """The next frame. Raises asyncio.IncompleteReadError at the end of the stream."""
        length = int.from_bytes(await self.reader.readexactly(4), "big")
        frame: dict[str, Any] = json.loads(await self.reader.readexactly(length))
        return frame

    async def ask(self, **request: object) -> dict[str, Any]:
        """Send one request and return the next frame."""
        self.send(**request)
        return await self.receive()

    async def is_closed(self) -> bool:
        """Read on to the end of the stream; whether nothing more came before it."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True

    def stop_reading(self) -> None:
        """Take no more from the socket."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def read_again(self) -> None:
        """Take what comes."""
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def drop(self) -> None:
        """Hang up at once, whatever is still to be sent or read."""
        self.writer.transport.abort()
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with suppress(ConnectionError):  # the broker was faster
            await self.writer.wait_closed()


@asynccontextmanager
async def plain_client(port: int) -> AsyncIterator[PlainClient]:
    """A plain client that hangs up at the end of the block."""
    client = await PlainClient.connect(port)
    try:
        yield client
    finally:
        await client.close()


async def publish_all(port: int, count: int, first: int = 0, size: int = 10) -> None:
    """Publish numbered messages of about ``size`` bytes."""
    client = await BrokerClient.connect("127.0.0.1", port)
    answers = [
        client.publish(b'{"n":%d,"fill":"%b"}' % (number, b"x" * size), producer=PRODUCER, sequence=number)
        for number in range(first, first + count)
    ]
    for answer in answers:
        await answer
    await client.close()


async def publish_one_by_one(port: int, count: int) -> None:
    """Publish messages of 200 bytes in groups of one, so that they fill segments one after the other."""
    client = await BrokerClient.connect("127.0.0.1", port)
    for number in range(count):
        await client.publish(b'{"n":%d,"fill":"%b"}' % (number, b"x" * 200))
    await client.close()


async def take(client: BrokerClient, count: int) -> list[Message | Gap]:
    """Receive until there are ``count``."""
    taken: list[Message | Gap] = []
    while len(taken) < count:
        taken += await client.receive()
    return taken


def offsets(taken: list[Message | Gap]) -> list[int]:
    return [one.offset for one in taken if isinstance(one, Message)]


async def wait_until(condition: Callable[[], object]) -> None:
    """Return when ``condition()`` is true; the test's own time limit ends a wait for what never comes."""
    while not condition():  # noqa: ASYNC110  # what is waited for knows nothing of the test
        await asyncio.sleep(0.005)
