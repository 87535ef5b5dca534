"""Heartbeats come while events are judged, and then alone."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from health.notify.heartbeat import Heart, run
from health.notify.threads import SENDING
from tests.health.notify.receivers import Receiver, until
from tests.ports import free_port


def test_it_beats_only_while_it_is_judged(receiver: Receiver) -> None:
    judging = False
    heart = Heart(f"{receiver.url}/ping/uuid?msg=ok", 60.0, lambda: judging)
    assert heart.step() == 1.0
    assert receiver.got == []
    judging = True
    assert heart.step() == 60.0
    assert [(each.method, each.path) for each in receiver.got] == [("GET", "/ping/uuid?msg=ok")]


def test_what_fails_is_tried_soon_and_said_once_without_the_url(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "health")
    receiver.answer = lambda request: (500, {})
    heart = Heart(f"{receiver.url}/s3cret", 60.0, lambda: True)
    assert [heart.step(), heart.step()] == [5.0, 5.0]
    receiver.answer = lambda request: (200, {})
    assert heart.step() == 60.0
    assert [record.getMessage() for record in caplog.records] == [
        "HEARTBEAT_URL is not reached: it answered 500; trying again",
        "HEARTBEAT_URL is reached again",
    ]
    away = Heart(f"http://127.0.0.1:{free_port()}/s3cret", 60.0, lambda: True)
    caplog.clear()
    assert away.step() == 5.0
    assert "s3cret" not in caplog.text


async def test_it_beats_in_a_thread_whose_library_logs_nothing(receiver: Receiver, settings: Any) -> None:
    settings.HEARTBEAT_URL, settings.HEARTBEAT_INTERVAL = f"{receiver.url}/s3cret", 0.05
    names: list[str] = []
    stop = asyncio.Event()

    def is_judging() -> bool:
        names.append(threading.current_thread().name)
        return True

    task = asyncio.create_task(run(stop, is_judging))
    await asyncio.to_thread(until, lambda: len(receiver.got) >= 3)
    stop.set()
    await asyncio.wait_for(task, 10)
    assert set(names) == {f"{SENDING}heartbeat"}
    # It says that it has finished a little before it is gone.
    await asyncio.to_thread(until, lambda: all(each.name != f"{SENDING}heartbeat" for each in threading.enumerate()))


async def test_without_a_url_it_only_waits(settings: Any) -> None:
    settings.HEARTBEAT_URL = ""
    stop = asyncio.Event()
    task = asyncio.create_task(run(stop, lambda: True))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(task, 5)
