from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from broker.client.client import BrokerClient, Message, fetch_stats
from broker.errors import BrokerError
from broker.protocol.messages import request_frame
from tests.broker.process import BrokerProcess, broker_process

PRODUCER = "00000000000000aa"


@contextmanager
def broker_that_cannot_start(state_dir: Path, *flags: str, **environment: str) -> Iterator[tuple[int, str]]:
    """Gives the exit status and the last line of the process."""
    with broker_process(state_dir, *flags, **environment) as broker:
        status = broker.wait_end()
        yield status, broker.lines[-1]
        assert not any("Traceback" in line for line in broker.lines)


async def read_all(port: int) -> list[Message]:
    client = await BrokerClient.connect("127.0.0.1", port)
    first = await client.subscribe("checker", -2)
    messages: list[Message] = []
    while first + len(messages) < client.welcome.next:
        messages += [one for one in await client.receive() if isinstance(one, Message)]
    await client.close()
    return messages


async def test_sigterm_ends_it_in_order_under_load(tmp_path: Path) -> None:
    with broker_process(tmp_path) as broker:
        port, _ = broker.wait_listening()
        client = await BrokerClient.connect("127.0.0.1", port)
        publishes = [client.publish(b"%d" % n, producer=PRODUCER, sequence=n) for n in range(5000)]
        await publishes[0]
        started = time.monotonic()
        broker.process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*publishes, return_exceptions=True)
        assert await asyncio.to_thread(broker.wait_end) == 0
        assert time.monotonic() - started < 10
        assert any("SIGTERM: stopping" in line for line in broker.lines)
        await client.close()
    answered = [answer.offset for answer in answers if not isinstance(answer, BaseException)]
    assert all(isinstance(answer, BrokerError) and answer.retriable for answer in answers[len(answered) :])
    with broker_process(tmp_path) as broker:
        port, _ = broker.wait_listening()
        assert any("clean stop" in line for line in broker.lines)
        kept = await read_all(port)
        assert [message.offset for message in kept[: len(answered)]] == answered


async def test_health_and_figures_over_http(tmp_path: Path) -> None:
    with broker_process(tmp_path) as broker:
        port, http_port = broker.wait_listening()

        def get(path: str) -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{http_port}{path}") as answer:
                return str(answer.read().decode())

        assert await asyncio.to_thread(get, "/health") == '{"status":"healthy","reasons":[]}\n'
        assert '"total_messages":0' in await asyncio.to_thread(get, "/stats")
        assert "broker_next_offset 0.0" in await asyncio.to_thread(get, "/metrics")
        assert (await asyncio.to_thread(fetch_stats, "127.0.0.1", port))["segments"] == 1


@pytest.mark.parametrize("flag", ["--tcp-addr", "--http-addr"])
def test_a_port_in_use(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with broker_that_cannot_start(tmp_path, flag, where) as (status, line):
            assert status == 1
            assert f"cannot listen on {where}" in line
            assert line.endswith("Address already in use")


@pytest.mark.parametrize("flag", ["--tcp-addr", "--http-addr"])
def test_listening_to_a_network_needs_a_token_or_a_word(tmp_path: Path, flag: str) -> None:
    with broker_that_cannot_start(tmp_path, flag, "0.0.0.0:0") as (status, line):
        assert status == 1
        assert flag[2:].replace("-", "_").upper() in line
        assert "BROKER_TOKEN" in line
        assert "BROKER_ALLOW_ANONYMOUS" in line
    for allowed in ({"BROKER_TOKEN": "open sesame, please"}, {"BROKER_ALLOW_ANONYMOUS": "true"}):
        with broker_process(tmp_path, flag, "0.0.0.0:0", **allowed) as broker:
            broker.wait_for("listening on")
            stop(broker)


def stop(broker: BrokerProcess) -> None:
    broker.process.send_signal(signal.SIGINT)
    assert broker.wait_end() == 0


def test_a_folder_that_cannot_hold_the_log(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("x" * 50)
    log = tmp_path / "broker"
    log.write_text("not a folder")
    with broker_that_cannot_start(tmp_path) as (status, line):
        assert status == 1
        assert str(log) in line


SHORT_OF_FILES = ("sh", "-c", 'ulimit -n 120; exec "$@"', "sh")


async def test_few_open_files_lose_no_answered_message(tmp_path: Path) -> None:
    with broker_process(tmp_path, "--segment-bytes", "64KiB", prefix=SHORT_OF_FILES) as broker:
        port, _ = broker.wait_listening()
        assert any("MAX_CONNECTIONS 2000: at most 120 files" in line for line in broker.lines)
        publisher = await BrokerClient.connect("127.0.0.1", port)
        answered: list[int] = []
        ends = time.monotonic() + float(os.environ.get("FEW_FILES_S", "3"))

        async def crowd() -> None:
            """Connects again and again, says something or nothing, and hangs up at some time."""
            while time.monotonic() < ends:
                with suppress(OSError, asyncio.IncompleteReadError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(request_frame("ping"))
                    with suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(), 0.5)
                    writer.transport.abort()

        async def publish() -> None:
            while time.monotonic() < ends:
                first = len(answered)
                some = [
                    publisher.publish(b'"%d %b"' % (n, b"x" * 500), producer=PRODUCER, sequence=n)
                    for n in range(first, first + 50)
                ]
                answered.extend([(await one).offset for one in some])

        await asyncio.gather(publish(), *(crowd() for _ in range(200)))
        await publisher.close()
        assert broker.process.poll() is None
        assert sum(map(len, broker.lines)) < 1_000_000
        assert not any("Traceback" in line for line in broker.lines)
        kept = await read_all(port)
        assert answered == [message.offset for message in kept]
        assert len(list((tmp_path / "broker").glob("*.log"))) > 2
        logging.getLogger(__name__).info("%d messages, %d bytes of log", len(answered), sum(map(len, broker.lines)))


def test_too_few_open_files_are_an_error(tmp_path: Path) -> None:
    with broker_process(tmp_path, prefix=("sh", "-c", 'ulimit -n 70; exec "$@"', "sh")) as broker:
        assert broker.wait_end() == 1
        assert "allow 80 or more (ulimit -n)" in broker.lines[-1]
