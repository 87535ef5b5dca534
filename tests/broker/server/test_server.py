from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.client.client import BrokerClient
from broker.errors import BrokerError, ConnectionLost, ListenError
from broker.log.log import Log
from broker.server.server import BrokerServer
from tests.broker.harness import (
    PlainClient,
    offsets,
    plain_client,
    publish_all,
    running_broker,
    take,
    wait_until,
)

# stopping


async def test_a_stop_answers_what_it_took_and_says_goodbye(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        async with plain_client(broker.port) as polite, plain_client(broker.port) as plain:
            await polite.ask(type="hello")
            await plain.ask(type="ping")
            plain.send(type="publish", payload=1)
            await wait_until(lambda: broker.committer.bytes or broker.log.next_offset)
            stopping = asyncio.create_task(broker.stop())
            assert (await plain.receive())["offset"] == 0
            assert await plain.is_closed()
            assert await polite.receive() == {"type": "goaway", "reason": "shutting_down"}
            assert await polite.is_closed()
            await polite.close()
            await plain.close()
            await stopping
        await broker.stop()


async def test_a_stop_does_not_wait_for_a_peer_that_reads_nothing(tmp_path: Path) -> None:
    async with running_broker(tmp_path, fsync="never", flush_s=0.2) as broker:
        stuck = await PlainClient.connect(broker.port)
        stuck.stop_reading()
        stuck.send(type="subscribe", subscriber_id="stuck")
        await publish_all(broker.port, 400, size=50_000)
    assert not broker.connections
    await stuck.drop()


# the log fails


async def test_a_failed_log_answers_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.publish(b"1")
        monkeypatch.setattr(broker.log._disk, "sync", broken)
        with pytest.raises(ConnectionLost):
            await client.publish(b"2")
        error = await broker.failed
        assert isinstance(error, BrokerError)
        assert error.code == "log_failed"
        monkeypatch.undo()


async def test_a_full_disk_refuses_publishes_and_serves_subscribers_and_recovers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.publish(b"1")

        def full(fd: int, data: bytes, position: int) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(broker.log._disk, "write", full)
            for _ in range(2):
                with pytest.raises(BrokerError) as raised:
                    await client.publish(b"2")
                assert (raised.value.code, raised.value.retriable) == ("disk_full", True)
            assert await client.subscribe("c1") == 0
            assert offsets(await take(client, 1)) == [0]
            assert (await broker.health.check()).status == "unhealthy"
        assert (await client.publish(b"3")).offset == 1
        await client.close()


# starting


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "a") as broker:
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{broker.port}: Address already in use"):
            async with running_broker(tmp_path / "b", port=broker.port):
                pass
        with pytest.raises(ListenError, match=f"127.0.0.1:{broker.http_port} \\(HTTP\\): Address already in use"):
            async with running_broker(tmp_path / "b", http_port=broker.http_port):
                pass
    # Nothing is left behind: the directory can be had again.
    Log.open(tmp_path / "b", broker.log.config).close()


def test_a_server_can_be_made_without_a_loop(tmp_path: Path) -> None:
    from broker.log.log import LogConfig
    from broker.server.state import ServerConfig

    log = Log.open(tmp_path, LogConfig())
    assert BrokerServer(log, ServerConfig()).port == 0
    log.close()
