from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.client.client import BrokerClient
from broker.errors import LogFailed
from broker.log.log import Log, LogConfig
from broker.server.server import run
from broker.server.state import ServerConfig
from tests.broker.harness import wait_until

ANYWHERE = ServerConfig(port=0, http_port=0)


async def test_it_serves_until_told_to_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop = asyncio.Event()
    with caplog.at_level("INFO"):
        running = asyncio.create_task(run(tmp_path, LogConfig(), ANYWHERE, stop))
        await wait_until(lambda: "listening on" in caplog.text)
        stop.set()
        await running
    assert "the next message gets offset 0" in caplog.text
    Log.open(tmp_path, LogConfig()).close()  # the directory is free again


async def test_a_failed_log_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Log] = []
    real_open = Log.open

    def open_(directory: Path, config: LogConfig) -> Log:
        opened.append(real_open(directory, config))
        return opened[0]

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Log, "open", open_)
    async with asyncio.timeout(30):
        ports: list[int] = []

        def told(text: str, *values: object) -> None:
            ports.extend(each["port"] for each in values if isinstance(each, dict) and "port" in each)

        monkeypatch.setattr("broker.server.server.logger.info", told)
        running = asyncio.create_task(run(tmp_path, LogConfig(), ANYWHERE, asyncio.Event()))
        await wait_until(lambda: ports)
        monkeypatch.setattr(opened[0]._disk, "sync", broken)
        client = await BrokerClient.connect("127.0.0.1", ports[0])
        client.publish(b"1")
        with pytest.raises(LogFailed, match="fsync"):
            await running
        await client.close()
