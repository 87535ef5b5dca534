"""Touched windows wait until they are rolled up, and longer if they are touched meanwhile."""

from __future__ import annotations

import pytest

from inventory.rollup_state import HOUR_NS, MINUTE_NS
from inventory.rollup_touches import HOURS, MINUTES, settle, touch, touches

pytestmark = pytest.mark.django_db

NOON = 490_000 * HOUR_NS


def waiting(store: str = "here") -> list[tuple[str, int, str]]:
    return [each[:3] for each in touches(store)]


def test_a_window_waits_once_for_each_writer() -> None:
    for _ in range(2):
        touch("here", MINUTES, {NOON + MINUTE_NS, NOON}, "a")
    touch("here", MINUTES, [NOON], "b")
    touch("elsewhere", MINUTES, [NOON], "a")
    assert waiting() == [(MINUTES, NOON, "a"), (MINUTES, NOON, "b"), (MINUTES, NOON + MINUTE_NS, "a")]
    assert waiting("elsewhere") == [(MINUTES, NOON, "a")]


def test_what_was_rolled_up_waits_no_more_and_its_hour_does() -> None:
    touch("here", MINUTES, [NOON, NOON + 59 * MINUTE_NS, NOON + HOUR_NS], "a")
    touch("here", MINUTES, [NOON], "b")
    first, *_, last = touches("here")
    assert settle("here", [first, last]) == 2
    assert sorted(waiting()) == [
        (HOURS, NOON, "a"),
        (HOURS, NOON + HOUR_NS, "a"),
        (MINUTES, NOON, "b"),
        (MINUTES, NOON + 59 * MINUTE_NS, "a"),
    ]
    assert settle("here", touches("here")) == 3  # an hour was touched again
    assert sorted(waiting()) == [(HOURS, NOON, "a"), (HOURS, NOON, "b")]
    assert settle("here", touches("here")) == 2
    assert waiting() == []


def test_what_was_touched_while_it_was_rolled_up_waits_again() -> None:
    touch("here", MINUTES, [NOON], "a")
    before = touches("here")
    touch("here", MINUTES, [NOON], "a")
    assert settle("here", before) == 0
    assert sorted(waiting()) == [(HOURS, NOON, "a"), (MINUTES, NOON, "a")]


def test_one_that_was_rolled_up_and_touched_again_is_not_the_one_before() -> None:
    """An earlier process that comes late must not take it for the one it saw."""
    touch("here", MINUTES, [NOON], "a")
    before = touches("here")
    assert settle("here", before) == 1
    touch("here", MINUTES, [NOON], "a")
    assert settle("here", before) == 0
    assert (MINUTES, NOON, "a") in waiting()


def test_an_hour_that_is_touched_while_it_is_rolled_up_waits_again() -> None:
    touch("here", MINUTES, [NOON], "a")
    settle("here", touches("here"))
    hour = touches("here")
    touch("here", MINUTES, [NOON], "a")
    settle("here", [each for each in touches("here") if each.tier == MINUTES])
    assert settle("here", hour) == 0
    assert waiting() == [(HOURS, NOON, "a")]
