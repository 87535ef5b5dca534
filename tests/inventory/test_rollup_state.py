"""What readers are told of the roll-ups."""

from __future__ import annotations

import pytest

from inventory.rollup_state import (
    HOUR_NS,
    MINUTE_NS,
    advance,
    complete,
    forget,
    lease_of,
    open_state,
    reach_back,
    read_state,
    standing,
)
from inventory.rollup_touches import HOURS, MINUTES, settle, touch, touches

pytestmark = pytest.mark.django_db

NOON = 490_000 * HOUR_NS


def test_nothing_is_complete_before_anything_is_rolled_up() -> None:
    assert complete("here", MINUTES) is None
    assert standing("here") is None
    open_state("here", None)
    assert complete("here", MINUTES) is None
    advance("here", minutes_until_ns=NOON + MINUTE_NS, hours_until_ns=NOON, newest_ns=NOON)
    assert complete("here", MINUTES) == (0, NOON + MINUTE_NS)
    assert complete("here", HOURS) == (0, NOON)
    assert complete("elsewhere", HOURS) is None


def test_what_was_stored_before_is_not_complete_until_it_is_rebuilt() -> None:
    open_state("here", NOON)
    open_state("here", NOON + 9 * HOUR_NS)  # only once
    advance("here", minutes_until_ns=NOON + 2 * HOUR_NS, hours_until_ns=NOON + 2 * HOUR_NS, newest_ns=NOON)
    assert complete("here", MINUTES) == (NOON + MINUTE_NS, NOON + 2 * HOUR_NS)
    assert complete("here", HOURS) == (NOON + HOUR_NS, NOON + 2 * HOUR_NS)
    reach_back("here", NOON - 24 * HOUR_NS)
    reach_back("here", NOON)
    assert complete("here", MINUTES) == complete("here", HOURS) == (NOON - 24 * HOUR_NS, NOON + 2 * HOUR_NS)


def test_what_is_complete_grows_only() -> None:
    open_state("here", None)
    advance("here", minutes_until_ns=NOON, hours_until_ns=NOON, newest_ns=NOON)
    advance("here", minutes_until_ns=NOON - MINUTE_NS, hours_until_ns=NOON + HOUR_NS, newest_ns=0)
    assert complete("here", MINUTES) == (0, NOON)
    assert complete("here", HOURS) == (0, NOON + HOUR_NS)
    state = read_state("here")
    assert state is not None
    assert state.newest_ns == NOON


def test_people_see_what_waits() -> None:
    open_state("here", None)
    for writer in ("a", "b"):
        touch("here", MINUTES, [NOON, NOON + MINUTE_NS], writer)
    settle("here", touches("here")[:2])
    told = standing("here")
    assert told is not None
    assert (told.waiting, told.oldest_waiting_ns) == ({MINUTES: 1, HOURS: 1}, NOON)
    assert (told.is_rolling, told.updated) == (False, None)
    lease_of("here").take("c")
    advance("here", minutes_until_ns=NOON, hours_until_ns=NOON, newest_ns=NOON)
    told = standing("here")
    assert told is not None
    assert told.is_rolling
    assert told.updated is not None


def test_a_store_is_forgotten_with_its_touches() -> None:
    for store in ("here", "elsewhere"):
        open_state(store, None)
        touch(store, MINUTES, [NOON], "a")
    assert forget("here")
    assert not forget("here")
    assert standing("here") is None
    assert touches("here") == []
    assert standing("elsewhere") is not None
