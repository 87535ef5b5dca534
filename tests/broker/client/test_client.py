from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path

import pytest

from broker.client.client import BrokerClient, Gap, Message, fetch_stats
from broker.errors import BrokerError, BrokerUnavailable, ConnectionLost, TooLarge, Unauthorized
from broker.log.record import encode_record, key_of
from broker.protocol import messages
from broker.protocol.frames import frame
from tests.broker.harness import running_broker
from tests.broker.peer import WELCOME, peer, read_frame
from tests.ports import free_port


async def test_it_learns_what_the_broker_is(tmp_path: Path) -> None:
    async with running_broker(tmp_path, fsync="interval", max_frame=5000) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port, client="test")
        assert tuple(client.welcome) == (0, 0, 5000, "interval")
        assert [handler.client for handler in broker.connections] == ["test"]
        await client.close()
        await client.close()


async def test_messages_come_as_they_were_published(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        answer = await client.publish(b'{"a" : 1.50}', producer="00000000000000aa", sequence=7)
        assert tuple(answer) == (0, False, "")
        await client.subscribe("c1")
        (message,) = await client.receive()
        assert isinstance(message, Message)
        assert message.offset == 0
        assert message.message_id == f"{key_of('00000000000000aa')}:000000000007"
        assert message.payload == b'{"a" : 1.50}'
        assert message.timestamp_ms > 1_600_000_000_000
        await client.close()


async def test_publishes_may_be_many_and_are_answered_in_order(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        futures = []
        for number in range(2000):
            futures.append(client.publish(b'"%b"' % (b"x" * 2000), producer="00000000000000aa", sequence=number))
            await client.drain()
        assert [(await future).offset for future in futures] == list(range(2000))
        await client.close()


async def test_a_refused_publish_fails_alone(tmp_path: Path) -> None:
    async with running_broker(tmp_path, max_frame=2000) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        good, bad, worse, large, last = (
            client.publish(b"1"),
            client.publish(b"not json"),
            client.publish(b"1e999"),
            client.publish(b'"%b"' % (b"x" * 2000)),
            client.publish(b"2"),
        )
        assert (await good).offset == 0
        for future in (bad, worse):
            with pytest.raises(BrokerError) as raised:
                await future
            assert (raised.value.code, raised.value.retriable) == ("bad_frame", False)
        with pytest.raises(TooLarge, match="2000"):
            await large
        assert (await last).offset == 1
        await client.close()


async def test_who_stops_waiting_does_not_shift_the_answers(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port)
        futures = [client.publish(b"%d" % number) for number in range(3)]
        futures[1].cancel()
        assert (await futures[0]).offset == 0
        assert (await futures[2]).offset == 2
        await client.close()


# no broker


async def test_nobody_listens() -> None:
    with pytest.raises(BrokerUnavailable, match=r"no broker at 127\.0\.0\.1:") as raised:
        await BrokerClient.connect("127.0.0.1", free_port())
    assert raised.value.retriable
    assert "\n" not in str(raised.value)


async def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(BrokerUnavailable, match=r"within 0\.1 s"):
        await BrokerClient.connect("127.0.0.1", silent.getsockname()[1], timeout=0.1)


async def test_the_peer_hangs_up() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)

    async with peer(hang_up) as port:
        with pytest.raises(BrokerUnavailable, match="hung up"):
            await BrokerClient.connect("127.0.0.1", port)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(b"[]"), frame(b"\xff")])
async def test_the_peer_is_no_broker(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()

    async with peer(talk) as port:
        with pytest.raises(BrokerUnavailable, match="is not this broker, or too old: it "):
            await BrokerClient.connect("127.0.0.1", port)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (
            frame(b'{"type":"error","error":"unknown message type: hello"}'),
            "it answers a hello with .*unknown message type",
        ),
        (
            frame(b'{"type":"error","error":"unknown type","code":"unknown_type"}'),
            "it answers a hello with .*unknown type",
        ),
        (frame(b'{"type":"response","success":true}'), 'it answers a hello with {"type":"response"'),
        (frame(b'{"type":"banner","version":3}'), 'it answers a hello with {"type":"banner"'),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "it speaks HTTP: HTTP/1.1 400 Bad Request"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it speaks TLS"),
        (b"-ERR unknown command\r\n", "it says -ERR unknown command"),
        (b"\x00\x00\x00\x05\x1b[2J", r"it answers a hello with \\x1b\[2J"),
    ],
)
async def test_another_server_is_told_from_the_broker(answer: bytes, seen: str) -> None:
    async def another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(answer)
        await reader.read()

    async with peer(another) as port:
        with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port} is not this broker, or too old: {seen}"):
            await BrokerClient.connect("127.0.0.1", port, timeout=1.0)


async def test_a_token_is_said_and_a_wrong_one_is_not_worth_a_retry(tmp_path: Path) -> None:
    async with running_broker(tmp_path, token="sesame") as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port, token="sesame")
        assert (await client.publish(b"1")).offset == 0
        await client.close()
        for token in ("", "wrong"):
            with pytest.raises(Unauthorized) as raised:
                await BrokerClient.connect("127.0.0.1", broker.port, token=token)
            assert not raised.value.retriable


async def test_being_turned_away_says_why(tmp_path: Path) -> None:
    async with running_broker(tmp_path, max_connections=1) as broker:
        first = await BrokerClient.connect("127.0.0.1", broker.port)
        with pytest.raises(BrokerError) as raised:
            await BrokerClient.connect("127.0.0.1", broker.port)
        assert (raised.value.code, raised.value.retriable) == ("overloaded", True)
        await first.close()


# the connection ends


async def test_everything_that_waits_fails_when_the_connection_ends() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(WELCOME + frame(b'{"type":"goaway","reason":"shutting_down"}'))
        await read_frame(reader)

    async with peer(leave) as port:
        client = await BrokerClient.connect("127.0.0.1", port)
        receiving = asyncio.create_task(client.receive())
        acking = asyncio.create_task(client.ack(1))
        publish = client.publish(b"1")
        for waiting in (receiving, acking, publish):
            with pytest.raises(ConnectionLost) as raised:
                await waiting
            assert raised.value.retriable
        with pytest.raises(ConnectionLost):
            await client.publish(b"2")
        with pytest.raises(ConnectionLost):
            await client.stats()
        with pytest.raises(ConnectionLost):
            await client.drain()
        with pytest.raises(ConnectionLost):
            await client.receive()
        await client.close()


async def test_what_had_arrived_is_given_out_before_the_connection_is_reported_lost() -> None:
    async def deliver(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(WELCOME + encode_record(0, 0, "", 0, b"1") + messages.gap_frame(1, 3, "retention"))

    async with peer(deliver) as port:
        client = await BrokerClient.connect("127.0.0.1", port)
        await client._protocol.closed
        message, gap = await client.receive()
        assert isinstance(message, Message)
        assert gap == Gap(1, 3, "retention")
        with pytest.raises(ConnectionLost):
            await client.receive()
        await client.close()


async def test_a_changed_byte_is_never_taken_for_data() -> None:
    record = bytearray(encode_record(0, 0, "", 0, b'"payload"'))
    record[-4] ^= 1

    async def deliver(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(WELCOME + encode_record(0, 0, "", 0, b"1") + bytes(record))
        await reader.read()

    async with peer(deliver) as port:
        client = await BrokerClient.connect("127.0.0.1", port)
        (message,) = await client.receive()
        assert isinstance(message, Message)
        with pytest.raises(ConnectionLost, match="checksum"):
            await client.receive()
        await client.close()


async def test_an_error_nobody_asked_for_ends_the_connection_with_its_reason() -> None:
    async def complain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(WELCOME + frame(b'{"type":"error","error":"enough","code":"overloaded"}'))
        await reader.read()

    async with peer(complain) as port:
        client = await BrokerClient.connect("127.0.0.1", port)
        with pytest.raises(BrokerError, match="enough"):
            await client.receive()
        await client.close()


# stats for the web


async def test_figures_can_be_asked_for_without_a_loop(tmp_path: Path) -> None:
    async with running_broker(tmp_path, token="sesame") as broker:
        stats = await asyncio.to_thread(fetch_stats, "127.0.0.1", broker.port, token="sesame")
        assert stats["total_messages"] == 0
        assert stats == json.loads(json.dumps(stats))
        with pytest.raises(Unauthorized):
            await asyncio.to_thread(fetch_stats, "127.0.0.1", broker.port)


def test_figures_of_no_broker() -> None:
    with pytest.raises(BrokerUnavailable, match="no broker at"):
        fetch_stats("127.0.0.1", free_port())
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(BrokerUnavailable, match="no answer"):
        fetch_stats("127.0.0.1", silent.getsockname()[1], timeout=0.05)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "hung up"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it speaks HTTP: HTTP/1.1 400 Bad Request"),
        (frame(b"[]"), "is no broker"),
    ],
)
def test_figures_of_what_is_no_broker(answer: bytes, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(100)
                sock.sendall(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(BrokerUnavailable, match=words):
            fetch_stats("127.0.0.1", server.getsockname()[1])
        thread.join()
