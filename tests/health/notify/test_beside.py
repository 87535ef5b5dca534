"""What runs beside the watch, and that bad settings are one line at its start."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import OperationalError

from health.notify.beside import check_settings, run_beside
from health.notify.errors import ChannelError
from health.notify.threads import Turns, in_thread, repeat
from health.rule_table import rules_now
from health.watch.config import watch_config


async def test_it_runs_until_it_is_cancelled_so_that_the_watch_says_when_it_is_over() -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(run_beside(stop, lambda: True))
    stop.set()
    done, _ = await asyncio.wait([task], timeout=0.2)
    assert not done
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


def test_what_cannot_be_used_ends_the_start_in_one_line(settings: Any) -> None:
    check_settings()
    for name, value, said in (
        ("NOTIFY_URLS", ["nosuch://s3cret"], "NOTIFY_URLS: URL 1 is of a kind that Apprise does not know"),
        ("ALERTMANAGER_TLS_CA", "/no/such/file", "ALERTMANAGER_TLS_CA (--alertmanager-tls-ca): '/no/such/file' is not"),
    ):
        settings.ALERTMANAGER_URL = ["https://localhost"]
        setattr(settings, name, value)
        with pytest.raises(ChannelError) as caught:
            check_settings()
        assert str(caught.value).startswith(said)
        with pytest.raises(CommandError, match=r"^NOTIFY_URLS|^ALERTMANAGER"):
            watch_config(rules_now())
        setattr(settings, name, type(value)())


async def test_a_thread_may_end_its_work_also_when_it_is_cancelled() -> None:
    stop, turns, done = asyncio.Event(), Turns(), threading.Event()

    def work() -> None:
        turns.halt.wait(10)
        time.sleep(0.2)
        done.set()

    task = asyncio.create_task(in_thread(stop, "ends", turns, work))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_a_thread_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.notify.threads.STOPPING_TAKES", 0.1)
    stop, released = asyncio.Event(), threading.Event()
    stop.set()

    def hang() -> None:
        released.wait(20)

    await asyncio.wait_for(in_thread(stop, "hangs", Turns(), hang), 5)
    released.set()


@pytest.mark.django_db
def test_a_step_that_fails_has_another_turn_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "health")
    turns = Turns()
    turns.wait = lambda seconds: None  # type: ignore[method-assign]
    results = iter([OperationalError("gone\naway"), OperationalError("gone"), 0.0, ValueError("bug"), None])

    def step() -> float:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        if result is None:
            turns.end()
        return 0.0

    repeat(turns, "sending", step)
    assert [record.getMessage() for record in caplog.records] == [
        "sending: the database is away: gone away",
        "sending: the database is back",
        "sending failed",
    ]


def test_without_channels_apprise_is_not_loaded() -> None:
    code = (
        "import django, sys; django.setup(); from health.watch.config import watch_config; from health.rule_table import rules_now;"
        "watch_config(rules_now()); sys.exit('apprise' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
