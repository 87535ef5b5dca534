"""When touched windows are made. No test waits: times are given."""

from __future__ import annotations

from ingest.rollups.due import LONGEST_SECONDS, OPEN_SECONDS, QUIET_SECONDS, WaitingWindows
from inventory.rollup_touches import HOURS, MINUTES, WindowTouch
from readings.times import SECOND
from stores.rollups.windows import Tier

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NOON = 490_000 * HOUR


def minute(number: int, version: int = 1, writer: str = "a") -> WindowTouch:
    return WindowTouch(MINUTES, NOON + number * MINUTE, writer, version)


def due(
    waiting: WaitingWindows, now_ns: int, now: float, until: dict[Tier, int] | None = None
) -> tuple[list[int], list[int]]:
    """Which minutes of the hour are due, recent ones and late ones."""
    found = waiting.due(until or {"1m": NOON, "1h": NOON}, now_ns, now)
    recent, late = ([(each.start_ns - NOON) // MINUTE for each in part] for part in (found.recent, found.late))
    return recent, late


def test_a_minute_is_made_soon_after_it_is_over_though_readings_still_come() -> None:
    waiting = WaitingWindows()
    waiting.update([minute(0), minute(1)], 0)
    assert due(waiting, NOON + MINUTE + 19 * SECOND, 0) == ([], [])
    assert due(waiting, NOON + MINUTE + 20 * SECOND, 0) == ([0], [])
    assert due(waiting, NOON + 2 * MINUTE + 20 * SECOND, 0) == ([0, 1], [])


def test_late_readings_are_waited_for_and_no_longer_than_a_minute() -> None:
    made: dict[Tier, int] = {"1m": NOON + MINUTE, "1h": NOON}
    waiting = WaitingWindows()
    for second in range(int(LONGEST_SECONDS["1m"])):
        waiting.update([minute(0, version=second)], second)
        assert due(waiting, NOON + 5 * MINUTE, second, made) == ([], [])
    assert due(waiting, NOON + 5 * MINUTE, LONGEST_SECONDS["1m"], made) == ([], [0])
    waiting.remove(waiting.of("1m"))
    waiting.update([minute(0, version=1000)], 1000)
    assert due(waiting, NOON + 5 * MINUTE, 1000 + QUIET_SECONDS - 1, made) == ([], [])
    assert due(waiting, NOON + 5 * MINUTE, 1000 + QUIET_SECONDS, made) == ([], [0])


def test_an_old_capture_is_late() -> None:
    waiting = WaitingWindows()
    waiting.update([minute(1), minute(0)], 0)
    assert due(waiting, NOON + 24 * HOUR, 0) == ([], [])
    assert due(waiting, NOON + 24 * HOUR, QUIET_SECONDS) == ([], [0, 1])


def test_when_readings_stop_the_last_minute_is_made_though_it_is_not_over() -> None:
    """By this machine's clock, which may be wrong."""
    waiting = WaitingWindows()
    waiting.update([minute(0)], 0)
    assert due(waiting, NOON + 30 * SECOND, OPEN_SECONDS["1m"] - 1) == ([], [])
    assert due(waiting, NOON + 30 * SECOND, OPEN_SECONDS["1m"]) == ([], [0])
    assert due(waiting, NOON - HOUR, OPEN_SECONDS["1m"]) == ([], [0])


def test_hours_wait_for_their_last_minutes() -> None:
    waiting = WaitingWindows()
    waiting.update([WindowTouch(HOURS, NOON, "a", 1)], 0)
    assert due(waiting, NOON + HOUR + 59 * SECOND, 0) == ([], [])
    assert due(waiting, NOON + HOUR + 60 * SECOND, 0) == ([0], [])


def test_an_hour_waits_while_its_minutes_do_and_not_for_ever() -> None:
    hour, end_ns = WindowTouch(HOURS, NOON, "a", 1), NOON + HOUR + 60 * SECOND
    waiting = WaitingWindows()
    waiting.update([hour, minute(58), WindowTouch(MINUTES, NOON + HOUR, "a", 1)], 0)
    assert due(waiting, end_ns, 0) == ([58], [])
    waiting.update([hour], 5)
    assert due(waiting, end_ns, 5) == ([0], [])
    made: dict[Tier, int] = {"1m": NOON + HOUR, "1h": NOON + HOUR}
    for second in range(0, int(LONGEST_SECONDS["1h"]), 5):
        waiting.update([hour, minute(3, version=second)], second)
        assert (0, "1h") not in [
            (each.start_ns - NOON, each.tier) for each in waiting.due(made, end_ns + HOUR, second).late
        ]
    late = waiting.due(made, end_ns + HOUR, LONGEST_SECONDS["1h"]).late
    assert [each.tier for each in late] == ["1m", "1h"]


def test_a_window_waits_until_it_is_gone_from_the_database() -> None:
    waiting = WaitingWindows()
    waiting.update([minute(0), minute(0, writer="b"), minute(1)], 0)
    assert len(waiting) == 2
    assert [len(each.touches) for each in waiting.of("1m")] == [2, 1]
    waiting.update([minute(1)], 5)
    assert [each.start_ns for each in waiting.of("1m")] == [NOON + MINUTE]
    assert waiting.of("1h") == []
