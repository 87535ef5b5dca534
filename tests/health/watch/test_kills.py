"""Whatever is killed, and when: the events and their steps are those of a run without kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.health.watch.kills import Outcome, differences, play


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


def test_what_is_lost_twice_or_otherwise_is_told() -> None:
    one, two = ("xid_fatal", "gpu", (("opened", "1"),)), ("xid_fatal", "gpu", (("opened", "1"), ("closed", "2")))
    assert differences(Outcome([one, two]), Outcome([two, one])) == []
    assert differences(Outcome([one]), Outcome([])) == [f"lost or otherwise: {one}"]
    assert differences(Outcome([one]), Outcome([one, one])) == [f"foreign or twice: {one}"]
    assert len(differences(Outcome([one]), Outcome([two]))) == 2
