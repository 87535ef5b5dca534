"""From a fault of the fleet to who hears of it: broker, streamer and watch as processes, and real receivers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.alertmanager import Alertmanager, find_alertmanager
from tests.health.notify.receivers import Receiver, receiving, until
from tests.ingest.processes import Fleet, Service

pytestmark = pytest.mark.acceptance


@pytest.fixture
def heartbeats() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def manager(receiver: Receiver, tmp_path: Path) -> Iterator[Alertmanager]:
    found = Alertmanager(find_alertmanager(), tmp_path / "alertmanager", f"{receiver.url}/from-alertmanager")
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def fleet(tmp_path: Path, receiver: Receiver, heartbeats: Receiver, manager: Alertmanager) -> Iterator[Any]:
    found = Fleet(
        tmp_path / "state",
        SOURCE="simulate", SIM_HOSTS=2, SIM_GPUS_PER_HOST=2, SIM_METRICS="health", SIM_FAULTS="xid:79@1/1+3s", SCRAPE_INTERVAL="200ms",
        TIMESTAMPS="auto", NOTIFY_URLS=f"[name=hook]{receiver.channel}", NOTIFY_WAIT="1s", ALERTMANAGER_URL=manager.url,
        HEARTBEAT_URL=f"{heartbeats.url}/ping", HEARTBEAT_INTERVAL="1s", PUBLIC_URL="http://gpus.example.com",
    )  # fmt: skip
    found.migrate()
    watch = Service("watch", found, "watch")
    try:
        yield found, watch
    finally:
        watch.kill()
        found.kill_all()


def test_a_fatal_xid_is_heard_of_everywhere_and_the_heart_beats_while_it_is_judged(
    fleet: tuple[Fleet, Service], receiver: Receiver, heartbeats: Receiver, manager: Alertmanager
) -> None:
    services, watch = fleet
    services.broker.start()
    watch.start()
    services.streamer.start()

    def heard(path: str) -> list[Any]:
        return [each.json for each in receiver.got if each.path == path]

    until(lambda: any("(79)" in each["title"] for each in heard("/hook")), 60)
    (message,) = [each for each in heard("/hook") if "(79)" in each["title"]]
    assert message["title"].startswith("CRITICAL: ")
    assert "http://gpus.example.com/events/" in message["message"]
    until(lambda: any(alert["labels"]["alertname"] == "xid_fatal" for alert in manager.alerts()))
    (alert,) = [alert for alert in manager.alerts() if alert["labels"]["alertname"] == "xid_fatal"]
    assert (alert["labels"]["subject"], alert["labels"]["severity"]) == ("79", "critical")
    until(lambda: any(each["status"] == "firing" for each in heard("/from-alertmanager")))
    heartbeats.wait_for(2)
    services.broker.kill()
    time.sleep(3)  # one may be on its way
    before = len(heartbeats.got)
    time.sleep(3)
    assert len(heartbeats.got) == before
    services.broker.start()
    heartbeats.wait_for(before + 1)
    status, seconds = watch.stop()
    assert (status, "stopped before everything was written" in watch.log) == (0, False)
    assert seconds < 10
