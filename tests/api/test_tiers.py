"""api.tiers: which tier answers, that it answers what raw readings do, and what is said where it cannot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_django import Settings

from inventory.models import RollupState
from inventory.rollup_state import advance, open_state, reach_back
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND, format_time
from stores.base import Store
from stores.memory import MemoryStore
from stores.open import get_store, reset_store, store_key
from stores.rollups.combining import combine
from stores.rollups.open import get_rollups
from stores.rollups.raw import partials_from_raw
from stores.rollups.windows import STEP_NS, Tier, WindowTable
from tests.api.conftest import A100, H100, MINUTE, Api, save
from tests.api.test_influxdb import use_influxdb

QUERY = "/api/v1/query"
UTIL, POWER, XID = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_XID_ERRORS"
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
NAMES = [UTIL, POWER, XID, ENERGY]
HOUR = 60 * MINUTE
HOURS = 3
GPUS = [Gpu(uuid=f"GPU-{n}", hostname=f"host-{n // 2}", model_name=H100 if n < 4 else A100) for n in range(6)]


class Rolled(NamedTuple):
    """Readings of three hours each 20 s, and what is rolled up of them. The third hour is over, and complete."""

    start_ns: int
    end_ns: int

    def between(self, start: int, end: int) -> str:
        """Fixed times, in ns from the start."""
        return f"start_time={format_time(self.start_ns + start)}&end_time={format_time(self.start_ns + end)}"


@cache
def block_from(start_ns: int) -> PointBlock:
    """What is told of these hours."""
    points: list[Point] = [
        (
            place,
            start_ns + at * SECOND,
            [float((at + 13 * place) % 97), 300.5 + place, at % 70, 1e9 + (at % 5000) * 3.0],
        )
        for at in range(0, HOURS * 3600, 20)
        for place in range(len(GPUS))
        if (at // 60 + place) % 11  # minutes without readings
    ]
    return PointBlock(GPUS, NAMES, points)


@cache
def windows_from(start_ns: int) -> list[WindowTable]:
    """All windows of these hours."""
    store = MemoryStore()
    store.write([block_from(start_ns)])
    return [
        table
        for tier, step in STEP_NS.items()
        for start in range(start_ns, start_ns + HOURS * HOUR, step)
        for table in rolled_up(store, tier, start)
    ]


def rolled_up(store: Store, tier: Tier, start_ns: int) -> list[WindowTable]:
    return combine(partials_from_raw(store, start_ns, start_ns + STEP_NS[tier]), tier, start_ns)


def set_complete(start_ns: int, end_ns: int) -> None:
    open_state(store_key(), end_ns)
    RollupState.objects.update(minutes_from_ns=start_ns, hours_from_ns=start_ns)
    reach_back(store_key(), start_ns)
    advance(store_key(), minutes_until_ns=end_ns, hours_until_ns=end_ns, newest_ns=end_ns)


@pytest.fixture(params=["sqlite", "influxdb"])
def rolled(db: None, request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Rolled]:
    settings.SQLITE_PATH = tmp_path / "readings.sqlite3"
    reset_store()
    settings.STORAGE_TYPE = "sqlite"
    if request.param == "influxdb":
        use_influxdb(settings, request.getfixturevalue("influx_config"))
    settings.RETENTION_PERIOD = 0.0
    yield fill(get_store())
    reset_store()


def fill(store: Store) -> Rolled:
    start = time.time_ns() // HOUR * HOUR - HOURS * HOUR
    save(store, block_from(start))
    rollups = get_rollups()
    assert rollups is not None
    rollups.write(windows_from(start))
    set_complete(start, start + HOURS * HOUR)
    return Rolled(start, start + HOURS * HOUR)


QUESTIONS = [
    ("1m", f"metric={UTIL}&by=host&every=1m"),
    ("1m", f"metric={UTIL}&by=host&every=5m&top=2"),
    ("1m", f"metric={POWER}&agg=sum&every=1m"),
    ("1m", f"metric={UTIL}&agg=max&by=model&every=10m"),
    ("1m", f"metric={UTIL}&agg=min&hostname=host-0&hostname=host-2&every=1m"),
    ("1m", f"metric={UTIL}&agg=count&model={H100.replace(' ', '%20')}&every=1m"),
    ("1m", f"metric={XID}&by=model&every=2m"),
    ("1m", f"metric={ENERGY}&agg=last&every=1m"),
    ("1m", f"metric={UTIL}"),
    ("1h", f"metric={UTIL}&by=host&every=1h&top=2"),
    ("1h", f"metric={UTIL}&by=gpu&every=1h"),
    ("1h", f"metric={POWER}&agg=sum&by=model&every=2h&top=1"),
    ("1h", f"metric={UTIL}&agg=max&uuid=GPU-1&uuid=GPU-5&every=1h"),
    ("1h", f"metric={ENERGY}&agg=increase&by=host&every=1h"),
    ("1h", f"metric={ENERGY}&agg=increase&every=3h"),
    ("1h", f"metric={XID}&by=gpu&every=1h"),
    ("1h", f"metric={UTIL}&by=model"),
]
RANGES: list[str | tuple[int, int]] = [
    "start_time=-2h",
    "start_time=-4h&end_time=-59m",
    (0, HOURS * HOUR),
    (7 * MINUTE + SECOND, 2 * HOUR + 8 * MINUTE),
]


def test_a_tier_answers_what_raw_readings_answer(api: Api, rolled: Rolled) -> None:
    for (tier, question), asked in product(QUESTIONS, RANGES):
        times = asked if isinstance(asked, str) else rolled.between(*asked)
        body = api.get(f"{QUERY}?{question}&{times}&tier={tier}")
        assert body["tier"] == tier
        again = f"start_time={body['start_time']}&end_time={body['end_time']}&every={body['every']}"
        plain = "&".join(part for part in question.split("&") if not part.startswith("every="))
        raw = api.get(f"{QUERY}?{plain}&{again}&tier=raw")
        assert raw.pop("tier") == "raw"
        assert body["data"]
        assert {**body, "tier": None} == {**raw, "tier": None}, (question, times)


def test_a_light_question_is_answered_from_raw_readings_and_a_heavy_one_from_the_tier_that_fits(
    api: Api, rolled: Rolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rolled.between(0, HOURS * HOUR)

    def tier_of(question: str) -> tuple[str, str]:
        body = api.get(f"{QUERY}?{question}")
        assert body["data"]
        return body["tier"], body["every"]

    assert tier_of(f"metric={UTIL}&every=1h&{whole}") == ("raw", "1h")
    monkeypatch.setattr("stores.rollups.choice.LIGHT_READINGS", 1)
    assert tier_of(f"metric={UTIL}&every=1h&{whole}") == ("1h", "1h")
    assert tier_of(f"metric={UTIL}&every=5m&{whole}") == ("1m", "5m")
    assert tier_of(f"metric={UTIL}&every=30s&{whole}") == ("raw", "30s")
    assert tier_of(f"metric={UTIL}&agg=p95&every=1h&{whole}") == ("raw", "1h")
    assert tier_of(f"metric={UTIL}&by=gpu&every=5m&{whole}") == ("raw", "5m")
    # Without every, windows are as long as the tier needs.
    assert tier_of(f"metric={UTIL}&{whole}") == ("1m", "1m")
    assert tier_of(f"metric={POWER}&agg=sum&{whole}") == ("1m", "1m")
    # What roll-ups keep of hosts does not tell which model's reading was the last.
    both = Gpu(uuid="GPU-9", hostname="host-0", model_name=A100)
    save(get_store(), PointBlock([both], NAMES, [(0, rolled.start_ns, [1.0, 2.0, 3.0, 4.0])]))
    rollups = get_rollups()
    assert rollups is not None
    rollups.write(rolled_up(get_store(), "1h", rolled.start_ns))
    assert tier_of(f"metric={UTIL}&agg=last&by=host&every=1h&{whole}") == ("raw", "1h")
    message = api.refused(f"{QUERY}?metric={UTIL}&agg=last&by=host&every=1h&{whole}&tier=1h", 400)
    assert "agg last" in message
    assert message.endswith("; tier=raw works")


def test_a_range_of_a_day_has_hours_where_minutes_would_be_too_many(
    api: Api, rolled: Rolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.rollups.choice.LIGHT_READINGS", 1)
    body = api.get(f"{QUERY}?metric={POWER}&agg=sum&start_time=-1d")
    assert (body["tier"], body["every"]) == ("1h", "1h")
    body = api.get(f"{QUERY}?metric={UTIL}&start_time=-1d")
    assert (body["tier"], body["every"]) == ("1m", "2m")


REFUSED: list[tuple[str, tuple[str, ...]]] = [
    (f"metric={UTIL}&tier=5m", ("tier", "raw", "1m", "1h")),
    (f"metric={UTIL}&every=5m&tier=1h", ("tier 1h cannot", "every=1h")),
    (f"metric={UTIL}&every=10s&tier=1m", ("tier 1m cannot", "every=1m works")),
    (f"metric={UTIL}&by=gpu&tier=1m", ("tier 1m cannot", "use every=1h", "tier=raw works")),
    (f"metric={UTIL}&agg=p95&tier=1h", ("no percentiles", "tier=raw works")),
    (f"metric={UTIL}&by=pod&tier=1h", ("no pods", "tier=raw works")),
    (f"metric={POWER}&agg=sum&every=5m&tier=1m", ("without top", "every=1m works")),
]


def test_what_a_tier_cannot_give_is_a_400_with_what_works(api: Api, rolled: Rolled) -> None:
    for question, words in REFUSED:
        message = api.refused(f"{QUERY}?{question}&{rolled.between(0, HOURS * HOUR)}", 400)
        for word in words:
            assert word in message, question


def test_what_raw_readings_no_longer_have_comes_from_a_tier_or_is_a_400_with_what_works(
    api: Api, rolled: Rolled, settings: Settings
) -> None:
    settings.RETENTION_PERIOD = (time.time_ns() - rolled.end_ns) / SECOND + 3600.0  # the last of the three hours
    first = rolled.between(0, HOUR)
    assert api.get(f"{QUERY}?metric={UTIL}&every=5m&{first}")["tier"] == "1m"
    assert api.get(f"{QUERY}?metric={UTIL}&by=gpu&{first}")["tier"] == "1h"
    message = api.refused(f"{QUERY}?metric={POWER}&agg=sum&every=5m&{first}", 400)
    assert "raw readings of that time are gone" in message
    assert "every=1m works" in message
    message = api.refused(f"{QUERY}?metric={UTIL}&every=1m&tier=1m&{rolled.between(SECOND, HOUR)}", 400)
    assert "whole steps of 1h" in message
    # Nothing keeps percentiles.
    assert api.get(f"{QUERY}?metric={UTIL}&agg=p95&every=5m&{first}")["tier"] == "raw"


def test_files_have_the_tier_in_a_header(api: Api, rolled: Rolled) -> None:
    times = rolled.between(0, HOURS * HOUR)
    answers = [
        api.ask(f"{QUERY}?metric={UTIL}&by=host&every=1h&{times}&tier={tier}&format=csv") for tier in ("1h", "raw")
    ]
    assert [each["X-Tier"] for each in answers] == ["1h", "raw"]
    of_tier, of_raw = (b"".join(each.streaming_content) for each in answers)
    assert of_tier == of_raw
    assert len(of_tier.splitlines()) == 1 + 3 * HOURS


def test_without_roll_ups_all_comes_from_raw_readings(
    api: Api, rolled: Rolled, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.rollups.choice.LIGHT_READINGS", 1)
    question = f"{QUERY}?metric={UTIL}&every=1h&{rolled.between(0, HOURS * HOUR)}"
    assert api.get(question)["tier"] == "1h"
    RollupState.objects.all().delete()
    assert api.get(question)["tier"] == "raw"
    assert "no complete windows yet" in api.refused(f"{question}&tier=1h", 400)
    settings.ROLLUPS = False
    reset_store()
    assert api.get(question)["tier"] == "raw"
    assert "ROLLUPS=false, so there are no roll-ups" in api.refused(f"{question}&tier=1h", 400)


def test_tiers_are_asked_only_for_what_their_retention_has_left(
    api: Api, rolled: Rolled, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.rollups.choice.LIGHT_READINGS", 1)
    question = f"{QUERY}?metric={UTIL}&every=1m&{rolled.between(0, HOUR)}"
    assert api.get(question)["tier"] == "1m"
    settings.RETENTION_1M = 60.0
    assert api.get(question)["tier"] == "raw"
