"""The whole broker: opens the log, serves it until told to stop, closes both in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from broker.log import Log, LogConfig
from broker.server import BrokerServer, ServerConfig

logger = logging.getLogger(__name__)


@asynccontextmanager
async def serving(directory: Path, log_config: LogConfig, config: ServerConfig) -> AsyncIterator[BrokerServer]:
    """A broker that serves inside the block and has stopped in order after it.

    Raises LogLocked, LogUnusable or LogFailed for the directory, ListenError (broker.server) for the addresses.
    """
    log = await asyncio.to_thread(Log.open, directory, log_config)
    try:
        server = BrokerServer(log, config)
        await server.start()
        logger.info(
            "listening on %(host)s:%(port)d, HTTP on %(http_host)s:%(http_port)d",
            {"host": config.host, "port": server.port, "http_host": config.http_host, "http_port": server.http_port},
        )
        try:
            yield server
        finally:
            await server.stop()
    finally:
        await asyncio.to_thread(log.close)


async def run(directory: Path, log_config: LogConfig, config: ServerConfig, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set. Raises what ``serving`` raises, and LogFailed when the log fails meanwhile."""
    async with serving(directory, log_config, config) as server:
        stopped = asyncio.create_task(stop.wait(), name="broker-stop")
        ends: list[asyncio.Future[Any]] = [stopped, server.failed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        logger.info(
            "stopping: %d messages in the log, %d clients connected", server.log.next_offset, len(server.connections)
        )
    if server.failed.done():
        raise server.failed.result()
    logger.info("stopped; the next message gets offset %(next_offset)d", {"next_offset": server.log.next_offset})
