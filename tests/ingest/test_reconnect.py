from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import NoReturn

import pytest

from broker.client.client import BrokerClient
from broker.errors import ConnectionLost, Unauthorized
from ingest.errors import BrokerRefusal
from ingest.reconnect import Uplink
from tests.broker.harness import running_broker
from tests.ingest.processes import free_port
from tests.ingest.wiring import local, until


async def forever(client: BrokerClient) -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


def uplink_to(port: int) -> Uplink:
    return Uplink(lambda: local(port).connect("me"), broker="the broker")


async def test_it_connects_again_after_each_failure(tmp_path: Path) -> None:
    served = 0

    async def fail(client: BrokerClient) -> NoReturn:
        nonlocal served
        served += 1
        raise ConnectionLost("cut")

    async with running_broker(tmp_path) as broker:
        uplink = uplink_to(broker.port)
        running = asyncio.create_task(uplink.run(fail, lambda: False))
        await until(lambda: served >= 3)
        assert not running.done()
        running.cancel()


async def test_without_anything_to_send_a_connection_ends_the_outage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    port = free_port()
    uplink = uplink_to(port)
    running = asyncio.create_task(uplink.run(forever, lambda: True))
    await until(lambda: "waiting, and going on when it is back" in caplog.text)
    assert not uplink.connected
    async with running_broker(tmp_path, port=port):
        await until(lambda: uplink.connected)
        assert "the broker is back after" in caplog.text
        running.cancel()
        await until(lambda: not uplink.connected)


async def test_an_answer_ends_the_outage_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    uplink = uplink_to(free_port())
    running = asyncio.create_task(uplink.run(forever, lambda: False))
    await until(lambda: "waiting, and going on when it is back" in caplog.text)
    uplink.note_answered(7)
    running.cancel()
    assert (uplink.batches_answered, uplink.readings_answered) == (1, 7)
    assert "the broker is back after" in caplog.text


async def test_a_broker_that_will_never_take_it_ends_the_run(tmp_path: Path) -> None:
    async with running_broker(tmp_path, token="sesame") as broker:
        with pytest.raises(BrokerRefusal, match="refuses this streamer") as caught:
            await uplink_to(broker.port).run(forever, lambda: True)
    assert isinstance(caught.value.__cause__, Unauthorized)
