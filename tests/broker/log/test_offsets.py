from __future__ import annotations

import errno
from pathlib import Path

import pytest

from broker.log import offsets
from broker.log.offsets import CommittedOffsets
from tests.broker.logs import FaultyDisk, StillClock


def test_a_commit_never_goes_back(tmp_path: Path) -> None:
    store = CommittedOffsets(tmp_path, FaultyDisk(), StillClock(), 100)
    assert store.get("c1") is None
    for offset, expected in ((5, 5), (3, 5), (5, 5), (6, 6)):
        store.set("c1", offset)
        assert store.get("c1") == expected
    assert store.items() == [("c1", 6)]


def test_commits_are_saved_when_they_have_changed(tmp_path: Path) -> None:
    disk = FaultyDisk()
    store = CommittedOffsets(tmp_path, disk, StillClock(), 100)
    store.save()
    assert list(tmp_path.iterdir()) == []
    store.set("c1", 5)
    disk.failing["replace"] = errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        store.save()
    disk.failing.clear()
    store.save()
    assert CommittedOffsets(tmp_path, disk, StillClock(), 100).items() == [("c1", 5)]
    syncs = disk.syncs
    store.save()
    assert disk.syncs == syncs


def test_commits_past_the_log_are_set_to_its_end(tmp_path: Path) -> None:
    store = CommittedOffsets(tmp_path, FaultyDisk(), StillClock(), 100)
    store.set("c1", 99)
    store.set("c2", 3)
    store.save()
    assert dict(CommittedOffsets(tmp_path, FaultyDisk(), StillClock(), 10).items()) == {"c1": 9, "c2": 3}
    # In an empty log nothing is committed.
    assert CommittedOffsets(tmp_path, FaultyDisk(), StillClock(), 0).items() == []


def test_the_idle_and_the_surplus_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "MOST_SUBSCRIBERS", 3)
    clock = StillClock()
    store = CommittedOffsets(tmp_path, FaultyDisk(), clock, 100)
    for number in range(3):
        store.set(f"c{number}", number)
        clock.pass_time(3600)
    store.set("c0", 0)
    store.set("c3", 3)
    assert [subscriber_id for subscriber_id, _ in store.items()] == ["c2", "c0", "c3"]
    clock.pass_time(30 * 24 * 3600 - 1800)
    store.save()
    assert [subscriber_id for subscriber_id, _ in store.items()] == ["c0", "c3"]
