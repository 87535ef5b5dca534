"""What the tests of streamer and collector share: their configurations, runs of them, reading a log back, a line that breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from broker.client.address import BrokerAddress
from broker.server.server import BrokerServer
from ingest.collector.collector import CollectConfig, Collector, CollectTotals
from ingest.streamer.file import StreamConfig, stream
from stores.base import Store
from tests.ingest.captures import read_batches as read_batches
from tests.ingest.captures import read_log as read_log
from tests.ingest.captures import readings_of as readings_of


def local(port: int) -> BrokerAddress:
    """The broker on a port of this machine."""
    return BrokerAddress(host="127.0.0.1", port=port)


def stream_config(path: Path | str, port: int, state_dir: Path, **changes: object) -> StreamConfig:
    """A streamer that gathers for a moment only and keeps the times."""
    settings = {"collect_interval": 0.05, "timestamps": "source", **changes}
    return StreamConfig(csv_path=str(path), broker=local(port), state_dir=state_dir, **settings)  # type: ignore[arg-type]


def collect_config(port: int, state_dir: Path, **changes: object) -> CollectConfig:
    """A collector that flushes soon and keeps for ever."""
    settings = {"collector_id": "collector-1", "flush_interval": 0.05, **changes}
    return CollectConfig(broker=local(port), state_dir=state_dir, **settings)  # type: ignore[arg-type]


async def publish(path: Path, port: int, tmp_path: Path, **changes: object) -> None:
    """Stream a capture to its end."""
    totals = await stream(stream_config(path, port, tmp_path / "streamer", **changes), asyncio.Event())
    assert totals.done


@asynccontextmanager
async def collecting(config: CollectConfig, store: Store) -> AsyncIterator[Collector]:
    """A collector that runs inside the block and is stopped in order after it."""
    stop = asyncio.Event()
    collector = Collector(config, store, stop)
    task = asyncio.create_task(collector.run())
    try:
        yield collector
    finally:
        stop.set()
        await task


async def collect_once(broker: BrokerServer, tmp_path: Path, store: Store, **changes: object) -> CollectTotals:
    """A collector that ends when it has all that the log holds."""
    return await Collector(collect_config(broker.port, tmp_path, **changes), store).run(once=True)


def all_is_committed(broker: BrokerServer) -> bool:
    """Whether collector-1 has committed all that the log holds."""
    return broker.log.commits.get("collector-1") == broker.log.next_offset - 1


def letters(tmp_path: Path) -> list[dict[str, Any]]:
    """The dead letters of collector-1."""
    path = tmp_path / "dead-letters" / "collector-collector-1.ndjson"
    return [json.loads(line) for line in path.read_text().splitlines()]


def outages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines about partners that went away or came back."""
    return [record.getMessage() for record in caplog.records if record.name == "telemetry_site.outage"]


class Line:
    """A TCP line to a broker that can be cut, and that can swallow what comes back."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.swallow = False
        self.connections = 0
        self.sent = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break all connections at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._carry(reader, far_writer, back=False), self._carry(far_reader, writer, back=True))
        self._writers -= {writer, far_writer}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if back and self.swallow:
                    continue
                if not back:
                    self.sent += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def line_to(target: int) -> AsyncIterator[Line]:
    """A line on a port of its own to the broker on ``target``."""
    line = Line(target)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        line.cut()
        await server.wait_closed()
        await asyncio.sleep(0.02)  # for the broker to see the hang-up before it is stopped


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a callable says yes."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition at all: nobody tells us
            await asyncio.sleep(0.005)
