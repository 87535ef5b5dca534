"""A broker inside the test's own event loop, and the plainest possible client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from broker.connection import ConnectionLimits
from broker.log import LogConfig
from broker.server import BrokerServer, ServerConfig
from broker.service import serving

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
