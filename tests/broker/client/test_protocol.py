from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.client import protocol
from broker.client.client import BrokerClient, Gap, Message
from broker.errors import ConnectionLost
from broker.protocol import messages
from broker.protocol.frames import frame
from tests.broker.harness import running_broker, wait_until
from tests.broker.peer import WELCOME, peer, read_frame


async def test_it_pings_when_idle_and_answers_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PING_EVERY_S", 0.05)
    heard: list[bytes] = []
    enough = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(WELCOME + messages.PING + frame(b'{"type":"something_newer"}'))
        while not enough.is_set():
            body = await read_frame(reader)
            heard.append(body)
            if body == b'{"type":"ping"}':
                writer.write(messages.response())
            if heard.count(b'{"type":"ping"}') == 3:
                enough.set()

    async with peer(talk) as port:
        client = await BrokerClient.connect("127.0.0.1", port)
        await enough.wait()
        assert heard[0] == b'{"type":"pong"}'
        await client.close()


async def test_a_broker_that_fell_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PING_EVERY_S", 0.03)
    monkeypatch.setattr(protocol, "DEAD_AFTER_S", 0.1)

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(WELCOME)
        await reader.read()

    async with peer(fall_silent) as port:
        client = await BrokerClient.connect("127.0.0.1", port)
        with pytest.raises(ConnectionLost, match="nothing was heard"):
            await client.receive()
        await client.close()


async def test_it_reads_on_only_while_little_lies_unread_and_an_ack_still_gets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_BYTES", 100_000)
    async with running_broker(tmp_path, fsync="never") as broker:
        publisher = await BrokerClient.connect("127.0.0.1", broker.port)
        futures = [publisher.publish(b'"%b"' % (b"x" * 50_000)) for _ in range(400)]
        await asyncio.gather(*futures)
        await publisher.close()
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        await client.subscribe("c1")
        await wait_until(lambda: client._protocol._paused)
        assert client._protocol._unread < 2_000_000
        # The answer stands behind what is delivered and not read yet: waiting for it must not wait for ever.
        await client.ack(0)
        assert broker.log.commits.get("c1") == 0
        taken: list[Message | Gap] = []
        while len(taken) < 400:
            taken += await client.receive()
        assert [one.offset for one in taken if isinstance(one, Message)] == list(range(400))
        await client.close()
