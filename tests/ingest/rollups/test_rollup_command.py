"""``manage.py rollup`` on a store of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from inventory.rollup_state import HOUR_NS, complete
from inventory.rollup_touches import HOURS, MINUTES, touch, touches
from readings.times import SECOND, format_time
from stores.open import get_store, reset_store, store_key
from stores.rollups.open import get_rollups
from tests.stores.rollups.reckoning import ENERGY, UTIL, Given, blocks_of, gpu

pytestmark = pytest.mark.django_db(transaction=True)

BEGINS = (time.time_ns() // HOUR_NS - 5) * HOUR_NS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, settings: Settings) -> Iterator[None]:
    reset_store()
    settings.SQLITE_PATH = tmp_path / "readings.sqlite3"
    settings.RETENTION_PERIOD = 0.0
    yield
    reset_store()


def stored() -> None:
    """Two hours of readings that were stored before anybody rolled up."""
    get_store().write(
        blocks_of(
            Given(gpu("U"), name, BEGINS + number * 600 * SECOND, float(number))
            for number in range(12)
            for name in (UTIL, ENERGY)
        )
    )


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("rollup", *arguments, stdout=out)
    return out.getvalue()


def counts(tier_level: str) -> list[float]:
    """The number of readings in each window."""
    rollups = get_rollups()
    assert rollups is not None
    tier, level = tier_level.split()
    table = rollups.read(tier, level, UTIL, ("count",), BEGINS, BEGINS + 5 * HOUR_NS)  # type: ignore[arg-type]
    found: list[float] = table.stats["count"][:, 0].tolist()
    return found


def test_all_of_raw_is_rolled_up_and_that_is_told() -> None:
    stored()
    assert "nothing is rolled up of sqlite" in run()
    said = run("--rebuild")
    assert "120 of 120 windows of 1m" in said
    assert "2 of 2 windows of 1h" in said
    assert counts("1m fleet") == [1.0] * 12
    assert counts("1h gpu") == counts("1h host") == [6.0, 6.0]
    reach = complete(store_key(), HOURS)
    assert reach is not None
    assert reach.start_ns == BEGINS
    assert reach.end_ns >= BEGINS + 4 * HOUR_NS  # nothing came since
    told = run()
    assert f"hours: complete from {format_time(BEGINS)} until {format_time(reach.end_ns)}" in told
    assert "windows that wait: 0 of 1m, 0 of 1h" in told
    assert "no process rolls up now" in told


def test_a_part_of_it_is_made_anew() -> None:
    stored()
    run("--rebuild")
    rollups = get_rollups()
    assert rollups is not None
    rollups.drop("1m", BEGINS, BEGINS + 2 * HOUR_NS)
    run("--rebuild", "--start", format_time(BEGINS + HOUR_NS), "--end", format_time(BEGINS + 2 * HOUR_NS))
    assert counts("1m fleet") == [1.0] * 6


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (-1, 1, "raw readings make whole windows from"),
        (0, 3, "other windows stay as they are"),
        (1, 1, "raw readings make whole windows from"),
        (0.5, 1, "is not the start of an hour"),
    ],
)
def test_what_raw_does_not_have_is_refused(start: float, end: float, reason: str) -> None:
    stored()
    times = [format_time(BEGINS + int(hours * HOUR_NS)) for hours in (start, end)]
    with pytest.raises(CommandError, match=reason):
        run("--rebuild", "--start", times[0], "--end", times[1])
    assert touches(store_key()) == []


def test_what_raw_has_lost_is_refused(settings: Settings) -> None:
    settings.RETENTION_PERIOD = 4.5 * 3600
    stored()
    with pytest.raises(CommandError, match="raw readings make whole windows from"):
        run("--rebuild", "--start", format_time(BEGINS))


def test_what_waits_is_rolled_up_once() -> None:
    stored()
    touch(store_key(), MINUTES, [BEGINS, BEGINS + 600 * SECOND], "one that was killed")
    assert "2 of 2 windows of 1m" in run("--once")
    # And the minute with the counter's next reading, since there may be another one before it now.
    assert counts("1m fleet") == [1.0] * 3
    assert counts("1h fleet") == [6.0]
    assert touches(store_key()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--start", "2026-01-01"], "they are for --rebuild"),
        (["--rebuild", "--start", "soon"], "--start: "),
        (["--rebuild", "--once"], "not allowed with"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], reason: str) -> None:
    stored()
    with pytest.raises(CommandError, match=reason):
        run(*arguments)


def test_an_empty_store_and_one_without_roll_ups(settings: Settings) -> None:
    with pytest.raises(CommandError, match="no raw readings in sqlite"):
        run("--rebuild")
    settings.ROLLUPS = False
    with pytest.raises(CommandError, match="ROLLUPS"):
        run("--once")
