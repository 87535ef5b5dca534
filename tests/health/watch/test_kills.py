"""Whatever is killed, and when: the events and their steps are those of a run without kills."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from health.watch.watcher import LEASE_WAIT_SECONDS
from inventory.leases import LEASE
from tests.health.watch.kills import JudgedFleet, Outcome, differences, make_log, play
from tests.ingest.processes import Service


@pytest.mark.acceptance
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_kills_lose_no_event_and_open_none_twice(tmp_path: Path, database: str) -> None:
    kills = 8 if database == "sqlite" else 9
    expected, found = play(tmp_path, seed=20260301, kills=kills, steps=6000, database=database, pause=1.0)
    assert differences(expected, found) == []
    assert len(expected.events) > 500
    assert expected.steps > 1000
    assert found.kills.total() == kills
    assert len(found.kills) == (2 if database == "sqlite" else 3)
    assert found.on_the_way >= 3


@pytest.mark.acceptance
@pytest.mark.timeout(120)
def test_another_watch_takes_over_within_the_lease_of_one_that_was_killed(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", 1, 50)
    fleet = JudgedFleet(tmp_path / "fleet", log, None, "")
    spare = Service("spare", fleet, "watch")
    try:
        fleet.broker.start()
        fleet.watch.start()
        fleet.watch.wait_for("judging as")
        spare.start()
        spare.wait_for("waiting: the watch on")
        time.sleep(2 * LEASE_WAIT_SECONDS)  # it says so once
        fleet.watch.kill()
        began = time.monotonic()
        spare.wait_for("judging as")
        assert time.monotonic() - began < LEASE.total_seconds() + 2 * LEASE_WAIT_SECONDS
        assert spare.log.count("waiting: the watch on") == 1
        status, seconds = spare.stop()
        assert (status, seconds < 5) == (0, True)
        assert fleet.offset() == 49
    finally:
        spare.kill()
        fleet.kill_all()


def test_what_is_lost_twice_or_otherwise_is_told() -> None:
    one, two = ("xid_fatal", "gpu", (("opened", "1"),)), ("xid_fatal", "gpu", (("opened", "1"), ("closed", "2")))
    assert differences(Outcome([one, two]), Outcome([two, one])) == []
    assert differences(Outcome([one]), Outcome([])) == [f"lost or otherwise: {one}"]
    assert differences(Outcome([one]), Outcome([one, one])) == [f"foreign or twice: {one}"]
    assert len(differences(Outcome([one]), Outcome([two]))) == 2
