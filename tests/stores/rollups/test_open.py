from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from stores.base import StoreError, StoreUnavailable
from stores.influxdb.client import InfluxConfig
from stores.open import reset_store
from stores.rollups import open
from stores.rollups.influxdb import InfluxRollups
from stores.rollups.open import get_rollups, reset_rollups, retention_of, why_no_rollups
from stores.rollups.sqlite import SqliteRollups
from stores.rollups.windows import RollupStore
from tests.influxd import Influxd
from tests.ports import free_port


@pytest.fixture(autouse=True)
def _settings(settings: Settings, tmp_path: Path) -> Iterator[None]:
    reset_rollups()
    settings.STORAGE_TYPE = "sqlite"
    settings.SQLITE_PATH = tmp_path / "r.sqlite3"
    yield
    reset_rollups()


def use(settings: Settings, config: InfluxConfig) -> None:
    settings.STORAGE_TYPE = "influxdb"
    settings.INFLUXDB_URL, settings.INFLUXDB_TOKEN = config.url, config.token
    settings.INFLUXDB_ORG, settings.INFLUXDB_BUCKET = config.org, config.bucket


def test_they_lie_beside_the_readings(tmp_path: Path) -> None:
    assert isinstance(get_rollups(), SqliteRollups)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"r-1m.sqlite3", "r-1h.sqlite3"} <= names
    assert "r.sqlite3" not in names
    assert why_no_rollups() == ""


def test_a_process_opens_them_once() -> None:
    found: list[RollupStore | None] = []
    threads = [threading.Thread(target=lambda: found.append(get_rollups())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1


def test_the_settings_turn_them_off(settings: Settings, tmp_path: Path) -> None:
    settings.ROLLUPS = False
    assert get_rollups() is None
    assert why_no_rollups() == "ROLLUPS=false"
    assert not list(tmp_path.iterdir())


def test_memory_keeps_none(settings: Settings) -> None:
    settings.STORAGE_TYPE = "memory"
    assert get_rollups() is None
    assert why_no_rollups() == "STORAGE_TYPE=memory keeps none"


def test_the_settings_say_how_long_a_tier_is_kept(settings: Settings) -> None:
    settings.RETENTION_1M, settings.RETENTION_1H = 60.0, 120.0
    assert (retention_of("1m"), retention_of("1h")) == (60.0, 120.0)


def test_they_are_closed_with_the_store(settings: Settings, tmp_path: Path) -> None:
    first = get_rollups()
    assert first is not None
    reset_store()
    with pytest.raises(StoreError, match="closed"):
        first.ping()
    settings.SQLITE_PATH = tmp_path / "other.sqlite3"
    assert isinstance(get_rollups(), SqliteRollups)
    assert (tmp_path / "other-1m.sqlite3").exists()


def test_a_bucket_for_each_tier_is_made(settings: Settings, influxd: Influxd, rollup_config: InfluxConfig) -> None:
    use(settings, rollup_config)
    settings.RETENTION_1M, settings.RETENTION_1H = 7200.0, 0.0
    assert isinstance(get_rollups(), InfluxRollups)
    for tier, seconds in (("1m", 7200), ("1h", 0)):
        bucket = influxd.bucket(f"{rollup_config.bucket}_{tier}")
        assert bucket is not None
        assert bucket["retentionRules"][0]["everySeconds"] == seconds
    assert influxd.bucket(rollup_config.bucket) is None


def test_without_the_right_to_make_buckets_they_are_off_and_that_is_said_once(
    settings: Settings, influxd: Influxd, rollup_config: InfluxConfig, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    use(settings, rollup_config)
    settings.INFLUXDB_TOKEN = influxd.limited_token(("read", "buckets"), ("read", "orgs"))
    monkeypatch.setattr(open, "_TRY_AGAIN", 0.0)
    with caplog.at_level(logging.WARNING):
        assert get_rollups() is None
        assert get_rollups() is None
    (line,) = caplog.messages
    assert line.startswith("roll-ups are off, readings are kept all the same: INFLUXDB_TOKEN: ")
    assert f"the token may not make bucket '{rollup_config.bucket}_1m', which is not there" in line
    assert "\n" not in line
    assert line.endswith(why_no_rollups())
    # Somebody gives the right.
    settings.INFLUXDB_TOKEN = rollup_config.token
    assert get_rollups() is not None
    assert why_no_rollups() == ""


def test_a_retention_that_influxdb_cannot_have_turns_them_off(settings: Settings, rollup_config: InfluxConfig) -> None:
    use(settings, rollup_config)
    settings.RETENTION_1M = 60.0
    assert get_rollups() is None
    assert why_no_rollups().startswith(
        "RETENTION_1M (--retention-1m): 60s is too short: InfluxDB keeps readings for 1h"
    )


def test_a_server_that_is_away_is_asked_again(
    settings: Settings, influxd: Influxd, rollup_config: InfluxConfig
) -> None:
    use(settings, rollup_config)
    settings.INFLUXDB_URL = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(StoreUnavailable, match="connection refused"):
        get_rollups()
    settings.INFLUXDB_URL = influxd.url
    assert get_rollups() is not None
