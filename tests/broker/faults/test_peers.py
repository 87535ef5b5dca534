"""Rows 8 to 15 of the fault matrix: peers that are slow, stopped, many, malicious, or gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from broker.client.client import BrokerClient
from broker.log.log import Log
from broker.protocol.connection import ConnectionLimits, Publish, ServerConnection
from broker.protocol.frames import frame
from broker.protocol.messages import request_frame
from tests.broker.faults.proxy import Chaos, chaos_proxy
from tests.broker.faults.tools import need, need_namespaces
from tests.broker.faults.workload import Workload, payload
from tests.broker.harness import PRODUCER, offsets, plain_client, publish_all, running_broker, take, wait_until
from tests.broker.process import ROOT, BrokerProcess, broker_process

MIB = 1 << 20


def memory(pid: int) -> float:
    """Resident MiB."""
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def open_files(pid: int) -> int:
    """How many file descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_row_08_sixteen_subscribers_that_never_read(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as ends:  # nothing stays open for the next test to stumble over
        broker = ends.enter_context(broker_process(tmp_path, "--buffer-size", "100"))
        port, _ = await asyncio.to_thread(broker.wait_listening)
        healthy = await BrokerClient.connect("127.0.0.1", port)
        ends.push_async_callback(healthy.close)
        await healthy.subscribe("healthy", 0)
        alone = await _memory_after_50_mb(broker, port, healthy, 0)
        stuck = [ends.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(16)]
        for number, sock in enumerate(stuck):
            sock.sendall(request_frame("subscribe", subscriber_id=f"stuck{number}", offset=0))
        beside = await _memory_after_50_mb(broker, port, healthy, 2000)
        assert beside - alone <= 16 * 0.6 + 8  # 8 MiB of freed memory stay with the broker
        # However far they fall behind.
        assert await _memory_after_50_mb(broker, port, healthy, 4000) - beside <= 4
        # One wakes up and gets all, in order.
        for sock in stuck[1:]:
            sock.close()
        stream = ends.enter_context(stuck[0].makefile("rb"))
        for number in range(-1, 6000):
            body = stream.read(int.from_bytes(stream.read(4), "big"))
            if number >= 0:
                assert int(body[44:60]) == number


async def _memory_after_50_mb(broker: BrokerProcess, port: int, healthy: BrokerClient, first: int) -> float:
    """Publish 2,000 messages that the healthy one gets; resident MiB of the broker then.

    At most 40 are under way: with all at once, waiting groups come and go by tens of MiB, more the slower the disk is.
    """
    reading = asyncio.create_task(take(healthy, 2000))
    for number in range(first, first + 2000, 40):
        await publish_all(port, 40, first=number, size=25_000)
    assert offsets(await reading) == list(range(first, first + 2000))
    return memory(broker.process.pid)


SUBSCRIBER = """
import asyncio, sys
from broker.client.client import BrokerClient
async def main():
    client = await BrokerClient.connect("127.0.0.1", int(sys.argv[1]))
    await client.subscribe("stopped")
    while True:
        for message in await client.receive():
            await client.ack(message.offset)
asyncio.run(main())
"""


async def test_row_09_a_stopped_subscriber_is_dropped_and_resumes_from_its_commit(tmp_path: Path) -> None:
    async with running_broker(tmp_path, ping_after_s=0.5, dead_after_s=1.5, tick_s=0.1) as broker:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SUBSCRIBER, str(broker.port), cwd=ROOT)
        try:
            await publish_all(broker.port, 20)
            await wait_until(lambda: broker.log.commits.get("stopped") == 19)
            os.kill(process.pid, signal.SIGSTOP)
            await publish_all(broker.port, 100, first=20)
            await wait_until(lambda: "stopped" not in broker.delivery.subscriptions)
            assert broker.counters.dead == 1
            other = await BrokerClient.connect("127.0.0.1", broker.port)
            assert await other.subscribe("stopped") == 20
            assert offsets(await take(other, 100)) == list(range(20, 120))
            await other.close()
        finally:
            process.kill()
            await process.wait()


async def test_row_10_a_thousand_idle_connections(tmp_path: Path) -> None:
    with broker_process(tmp_path) as broker:
        port, _ = await asyncio.to_thread(broker.wait_listening)
        await publish_all(port, 500)
        files = open_files(broker.process.pid)
        before = memory(broker.process.pid)
        idle = []
        for number in range(1000):
            idle.append(socket.create_connection(("127.0.0.1", port)))
            if number % 100 == 99:
                await asyncio.to_thread(_ping, idle[-1])
        each = (memory(broker.process.pid) - before) * 1024 / 1000
        assert each <= 8, f"{each:.1f} KiB for an idle connection"
        await publish_all(port, 500, first=500)
        for sock in idle:
            sock.close()
        await wait_until(lambda: open_files(broker.process.pid) <= files)


def _ping(sock: socket.socket) -> None:
    sock.sendall(request_frame("ping"))
    assert sock.recv(4096)


async def test_row_11_slowloris_costs_what_it_sent_and_ends(tmp_path: Path) -> None:
    async with running_broker(tmp_path, partial_frame_s=1.0, tick_s=0.1) as broker:
        before = memory(os.getpid())
        slow = [await asyncio.open_connection("127.0.0.1", broker.port) for _ in range(200)]
        for _, writer in slow:
            writer.write((8 * MIB - 1).to_bytes(4, "big") + b"{")
        await wait_until(lambda: broker.partial_bytes == 200 * 5)
        assert memory(os.getpid()) - before <= 20  # the test's own ends included
        await publish_all(broker.port, 200)
        for _ in range(3):  # a byte now and then buys no time
            for _, writer in slow:
                writer.write(b" ")
            await asyncio.sleep(0.2)
        for reader, writer in slow:
            body = (await reader.read()).decode()
            assert "was not complete after 1 s" in body
            writer.close()
        await wait_until(lambda: broker.partial_bytes == 0 and not broker.connections)


async def test_row_11_unfinished_frames_together_stay_within_the_budget(tmp_path: Path) -> None:
    async with running_broker(tmp_path, partial_bytes=8 * MIB) as broker:
        slow = [await asyncio.open_connection("127.0.0.1", broker.port) for _ in range(40)]
        most = 0
        for _, writer in slow:
            writer.write((8 * MIB - 1).to_bytes(4, "big") + b"x" * MIB)
        for _ in range(50):
            await asyncio.sleep(0.01)
            most = max(most, broker.partial_bytes)
        assert MIB < most <= 8 * MIB + 40 * (256 << 10)  # one read of each connection
        for _, writer in slow:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()
        await wait_until(lambda: not broker.connections)
        await publish_all(broker.port, 10)


@pytest.mark.parametrize("length", [0, 8 * MIB + 1, 1 << 31, (1 << 32) - 1])
async def test_row_12_a_length_no_frame_has(tmp_path: Path, length: int) -> None:
    async with running_broker(tmp_path) as broker:
        other = await BrokerClient.connect("127.0.0.1", broker.port)
        before = memory(os.getpid())
        async with plain_client(broker.port) as client:
            client.send(type="publish", payload=1)
            client.writer.write(length.to_bytes(4, "big") + request_frame("ping") + b"x" * 100_000)
            assert (await client.receive())["offset"] == 0
            assert (await client.receive())["code"] == ("too_large" if length else "bad_frame")
            assert await client.is_closed()
        assert memory(os.getpid()) - before < 4
        assert (await other.publish(b"1")).offset == 1
        await other.close()


async def test_row_12_a_frame_of_the_largest_size_is_taken(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, plain_client(broker.port) as client:
        head, tail = b'{"type":"publish","payload":"', b'"}'
        payload = b"x" * (8 * MIB - 200 - len(head) - len(tail))
        client.send_body(head + payload + tail)
        assert (await client.receive())["offset"] == 0
        assert (await client.ask(type="ping"))["success"] is True


SEEDS = (
    b'{"type":"publish","message_id":"m","producer":"00000000000000aa","sequence":7,"payload":{"v":[1.5e3,-2,"\xc3\xa9",null]}}',
    # Expected after the one above.
    b'{"type":"publish","producer":"00000000000000aa","sequence":8,"payload":{"v":[-1.5E+3,2,"\xe2\x82\xac",{}]}}',
    b'{"type":"publish","payload":[true,false,null,1e300,12345678901234567890,"\\u00e9\\ud83d\\ude00",{"a":{"b":[]}}]}',
    b'{"type":"subscribe","subscriber_id":"c1","offset":-2}',
    b'{"type":"ack","message_id":"00000000000000aa:000000000007","offset":12}',
    b'{"type":"hello","token":"t","client":"c"}',
    b'{"type":"publish","payload":' + b"[" * 30 + b"1e30" + b"]" * 30 + b"}",
)
ALPHABET = b'{}[]",:\\ue+-.0129eEtfn\xff\xc3\x80\x00 \n'
ODD = (
    b"[" * 100_000,
    b'{"type":"publish","payload":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    b'{"type":"publish","payload":' + b"9" * 5000 + b"}",
    b'{"type":"publish","payload":1e999}',
    b'{"type":"publish","payload":"\\ud800"}',
    b'{"type":"publish","payload":"\xed\xa0\x80"}',
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32,
)


# A million in CI, more in the soak.
FRAMES = int(os.environ.get("FAULT_FRAMES", "200000"))


def mutated(rng: random.Random) -> bytes:
    """A frame that once was good."""
    if rng.random() < 0.0005:
        return frame(rng.choice(ODD))
    body = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(0, 4)):
        place = rng.randrange(len(body) or 1)
        match rng.randrange(4):
            case 0 if body:
                body[place] = rng.choice(ALPHABET)
            case 1:
                body.insert(place, rng.choice(ALPHABET))
            case 2:
                del body[place : place + 1]
            case _:
                body[place:place] = body[place : place + rng.randint(1, 20)]
    data = bytearray(frame(bytes(body)))
    if rng.random() < 0.001:
        data[rng.randrange(4)] = rng.randrange(256)
    return bytes(data)


def feed_mutated(count: int, seed: int) -> tuple[int, int]:
    """Feed that many mutated frames in pieces of any size; how many publishes got through, how many were refused."""
    rng = random.Random(seed)
    limits = ConnectionLimits(max_frame=1 << 20)
    connection = ServerConnection(limits, 0.0)
    taken = refused = 0
    while count > 0:
        batch = min(count, rng.randint(1, 64))
        count -= batch
        data = b"".join(mutated(rng) for _ in range(batch))
        place = 0
        while place < len(data):
            size = rng.choice((1, 3, 100, 1000, 1 << 18))
            for event in connection.receive_data(data[place : place + size], 0.0):
                if isinstance(event, Publish):
                    taken += len(event.payloads)
                    for payload in event.payloads:
                        json.loads(payload)
                else:
                    refused += 1
            place += size
        if connection.closing or connection.partial_bytes:
            connection = ServerConnection(limits, 0.0)
    return taken, refused


def test_row_13_mutated_frames() -> None:
    taken, refused = feed_mutated(FRAMES, seed=13)
    assert taken > FRAMES // 10
    assert refused > FRAMES // 4


async def test_row_13_garbage_over_tcp_hurts_nobody_else(tmp_path: Path) -> None:
    rng = random.Random(130)
    async with running_broker(tmp_path, partial_frame_s=0.5, tick_s=0.1) as broker:
        other = await BrokerClient.connect("127.0.0.1", broker.port)
        for number in range(200):
            reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            data = b"".join(mutated(rng) for _ in range(10)) if number % 4 else rng.randbytes(2000)
            writer.write(data)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 30)
            writer.close()
            if not number % 20:
                await other.publish(b"%d" % number)
        last = broker.log.next_offset
        await other.subscribe("reader", 0)
        for one in await take(other, last):
            json.loads(one.payload)  # type: ignore[union-attr]
        await other.close()


def test_row_14_half_open_connections_are_dropped(tmp_path: Path) -> None:
    need("ip", "iproute2")
    command = [*need_namespaces("--net"), sys.executable, "-m", "tests.broker.faults.half_open"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["connected"], told["dead"], told["resumed"]) == (2, 2, [0, 0])
    assert told["seconds"] < 1.5 * 2 + 1


@pytest.mark.parametrize(
    "chaos",
    [
        Chaos(cut_after=200_000),
        Chaos(piece=1, cut_after=3000),
        Chaos(delay_s=0.002, piece=5000),
        Chaos(drop_answers=True),
    ],
    ids=["cut", "single bytes", "delay", "lost answers"],
)
async def test_row_15_a_bad_network_loses_and_repeats_nothing(tmp_path: Path, chaos: Chaos) -> None:
    workload = Workload(publishers=2, window=16)
    most = 20 if chaos.piece == 1 else 150
    async with running_broker(tmp_path) as broker, chaos_proxy(broker.port, chaos) as port:
        if chaos.drop_answers:
            await _lose_answers(workload, port, chaos, broker.log)
        deadline = time.monotonic() + 60
        while any(one.next < most or one.unanswered for one in workload.publishers):
            assert time.monotonic() < deadline
            await workload.run(port, asyncio.Event(), most)
            if chaos.cuts > 20:
                chaos.cut_after = 0
        verdict = await workload.check(broker.port)
    assert verdict.clean, verdict
    assert verdict.records == verdict.answered == sum(one.next for one in workload.publishers)
    if chaos.drop_answers or chaos.cuts:
        assert workload.duplicates > 0 or chaos.cuts


async def _lose_answers(workload: Workload, port: int, chaos: Chaos, log: Log) -> None:
    """Some answers are lost, later ones arrive, then the connection goes."""
    chaos.drop_answers = False
    client = await BrokerClient.connect("127.0.0.1", port)
    publisher = workload.publishers[0]
    chaos.drop_answers = True
    sent = [client.publish(payload(publisher.producer, n), producer=publisher.producer, sequence=n) for n in range(10)]
    await client.drain()
    await wait_until(lambda: log.next_offset == 10)
    chaos.drop_answers = False
    await client.close()
    assert all(isinstance(one.exception(), Exception) for one in sent)
    publisher.next = 10
    publisher.unanswered.extend(range(10))
    chaos.cuts = 0


async def test_row_15_a_second_connection_with_the_same_messages(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker:
        one = await BrokerClient.connect("127.0.0.1", broker.port)
        two = await BrokerClient.connect("127.0.0.1", broker.port)
        sent = [
            client.publish(b"%d" % number, producer=PRODUCER, sequence=number)
            for number in range(500)
            for client in (one, two)
        ]
        answers = await asyncio.gather(*sent)
        assert broker.log.next_offset == 500
        assert sorted(answer.offset for answer in answers if not answer.duplicate) == list(range(500))
        assert sum(answer.duplicate for answer in answers) == 500
        await one.close()
        await two.close()
