"""The notifier as a process that is killed, on a real database file, and a service that is away."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from telemetry_site.options import BY_NAME
from tests.health.notify.receivers import Received, Receiver, until

ROOT = Path(__file__).resolve().parents[3]


class Place:
    """A database, and notifiers on it."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self._database = folder / "inventory.sqlite3"
        self.environ = {
            **{name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in BY_NAME},
            "STATE_DIR": str(folder),
            "NOTIFY_URLS": f"[name=hook]{receiver.channel}",
            "NOTIFY_WAIT": "0",
            "NOTIFY_MOST": "10000",
        }
        self.run("manage.py", "migrate", "-v0")

    def run(self, *arguments: str) -> None:
        """Run a program to its end."""
        subprocess.run([sys.executable, *arguments], cwd=ROOT, env=self.environ, check=True, timeout=60)

    def start(self) -> subprocess.Popen[bytes]:
        """Start a notifier."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.health.notify.sender", "run"],
            cwd=ROOT,
            env=self.environ,
            stderr=subprocess.DEVNULL,
        )

    def outcomes(self) -> list[tuple[Any, ...]]:
        """Of all notices."""
        with sqlite3.connect(self._database) as connection:
            found = connection.execute("SELECT outcome, count(*) FROM health_notice GROUP BY outcome").fetchall()
        connection.close()
        return found


@pytest.fixture
def place(tmp_path: Path, receiver: Receiver) -> Place:
    return Place(tmp_path, receiver)


def slowly(seconds: float) -> Callable[[Received], tuple[int, Mapping[str, str]]]:
    """Takes a message after a while."""

    def answer(request: Received) -> tuple[int, Mapping[str, str]]:
        time.sleep(seconds)
        return 200, {}

    return answer


def test_a_kill_repeats_at_most_the_message_on_its_way_with_the_same_key(place: Place, receiver: Receiver) -> None:
    place.run("-m", "tests.health.notify.sender", "post", "8")
    receiver.answer = slowly(0.3)
    kills = 5
    for number in range(kills):
        process = place.start()
        receiver.wait_for(len(receiver.got) + 1 + number % 2)
        process.kill()
        process.wait()
    receiver.answer = lambda request: (200, {})
    process = place.start()
    until(lambda: place.outcomes() == [("sent", 8)])
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    titles = Counter(each.json["title"] for each in receiver.got)
    assert set(titles) == {f"CRITICAL: rule_{number} on node-1" for number in range(8)}
    assert 8 < len(receiver.got) <= 8 + kills
    keys = Counter((each.key, each.json["title"]) for each in receiver.got)
    assert len(keys) == 8, "a repeat has the key of the first"


def test_a_stop_in_order_repeats_nothing(place: Place, receiver: Receiver) -> None:
    place.run("-m", "tests.health.notify.sender", "post", "3")
    receiver.answer = slowly(0.5)
    for count in (1, 2, 3):
        process = place.start()
        receiver.wait_for(count)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (len(receiver.got), place.outcomes()) == (3, [("sent", 3)])


def test_it_stops_soon_though_a_service_hangs(place: Place, receiver: Receiver) -> None:
    place.run("-m", "tests.health.notify.sender", "post", "1")
    receiver.answer = slowly(30)
    process = place.start()
    receiver.wait_for(1)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert time.monotonic() - began < 10


def test_a_service_that_is_away_at_first_gets_everything_in_the_end(place: Place, receiver: Receiver) -> None:
    receiver.answer = lambda request: (500, {})
    process = place.start()
    place.run("-m", "tests.health.notify.sender", "post", "5")
    receiver.wait_for(3)
    receiver.answer = lambda request: (200, {})
    until(lambda: place.outcomes() == [("sent", 5)])
    process.kill()
    process.wait()
    sent = {each.json["title"] for each in receiver.got}
    assert sent == {f"CRITICAL: rule_{number} on node-1" for number in range(5)}
