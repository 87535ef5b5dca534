from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from stores.open import reset_store
from stores.sqlite import SqliteStore
from tests.ingest.captures import readings_in, stored_readings, write_capture
from tests.ingest.processes import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "state", CSV_PATH=tmp_path / "capture.csv")
    write_capture(tmp_path / "capture.csv")
    yield fleet
    fleet.kill_all()


def test_memory_is_refused_with_the_reason(settings: Settings) -> None:
    settings.STORAGE_TYPE = "memory"
    with pytest.raises(CommandError, match="memory lives in the web process"):
        call_command("collect", stderr=StringIO())


def test_a_store_that_cannot_be_opened_is_one_line(settings: Settings, tmp_path: Path) -> None:
    reset_store()
    settings.SQLITE_PATH = tmp_path  # a folder
    with pytest.raises(CommandError) as caught:
        call_command("collect", stderr=StringIO())
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def stored(fleet: Fleet) -> list[tuple[str, str, int, float]]:
    store = SqliteStore(fleet.state_dir / "readings.sqlite3")
    try:
        return stored_readings(store)
    finally:
        store.close()


@pytest.mark.acceptance
def test_sigterm_flushes_commits_and_exits_0(fleet: Fleet, tmp_path: Path) -> None:
    fleet.migrate()
    fleet.environ["FLUSH_INTERVAL"] = "1h"
    fleet.collector.start()
    fleet.collector.wait_for("waiting, and going on")
    fleet.broker.start()
    fleet.streamer.start()
    assert fleet.streamer.wait() == 0
    fleet.collector.wait_for("is back after")
    status, seconds = fleet.collector.stop()
    assert status == 0
    assert seconds < 8
    fleet.environ |= {"FLUSH_INTERVAL": "200ms"}
    fleet.collector.start("--once")
    assert fleet.collector.wait() == 0
    assert sorted(stored(fleet)) == sorted(readings_in(tmp_path / "capture.csv"))
    assert fleet.broker.stop()[0] == 0
