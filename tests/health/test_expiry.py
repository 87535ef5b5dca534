"""health.expiry: events that were over long ago are forgotten, and nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from health import expiry
from health.expiry import forget_old_events
from health.models import Event, EventState, EventTransition, Mute, Notice
from tests.health.building import NOON, make_event

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def closed(entity: str, opened: datetime, length: timedelta = DAY) -> Event:
    return make_event(entity=entity, opened=opened, state=EventState.CLOSED, closed=opened + length)


@pytest.fixture(autouse=True)
def _ten_days(settings: Settings) -> None:
    settings.EVENT_RETENTION = 10 * 86400.0


def left() -> list[str]:
    return sorted(Event.objects.values_list("entity", flat=True))


def test_what_is_over_for_so_long_goes_with_its_steps_and_notices() -> None:
    old = closed("old", NOON - 12 * DAY)
    Notice.objects.create(event=old, kind="opened", channel="mail", key="k", created=NOON, due=NOON)
    closed("long", NOON - 12 * DAY, length=5 * DAY)
    closed("new", NOON - 9 * DAY)
    make_event(entity="ongoing", opened=NOON - 300 * DAY)
    make_event(entity="newest", opened=NOON)
    assert forget_old_events(NOON + DAY / 2) == 1
    assert left() == ["long", "new", "newest", "ongoing"]
    assert not Notice.objects.exists()
    assert EventTransition.objects.count() == 4
    assert forget_old_events(NOON + DAY / 2) == 0


def test_the_events_of_an_old_capture_are_not_old() -> None:
    """Their times are those of its own day, years ago."""
    closed("first", NOON - 5 * DAY)
    closed("last", NOON)
    assert forget_old_events(NOON + 3000 * DAY) == 0
    assert left() == ["first", "last"]


def test_a_time_that_is_ahead_makes_nothing_old() -> None:
    closed("now", NOON)
    closed("ahead", NOON + 3000 * DAY)
    assert forget_old_events(NOON + DAY) == 0


def test_0_keeps_all(settings: Settings) -> None:
    settings.EVENT_RETENTION = 0.0
    closed("old", NOON - 900 * DAY)
    make_event(entity="newest", opened=NOON)
    assert forget_old_events(NOON) == 0
    assert left() == ["newest", "old"]


def test_mutes_that_ended_long_ago_go_too() -> None:
    now = timezone.now()
    for days in (-11, -9, 1):
        Mute.objects.create(rule=f"{days}", starts=now - 20 * DAY, expires=now + days * DAY)
    forget_old_events(now)
    assert sorted(Mute.objects.values_list("rule", flat=True)) == ["-9", "1"]


def test_one_call_deletes_no_more_than_is_bearable_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    monkeypatch.setattr(expiry, "_AT_ONCE", 4)
    monkeypatch.setattr(expiry, "MOST_FORGOTTEN", 8)
    for number in range(11):
        closed(f"{number:02d}", NOON - 30 * DAY + number * DAY / 24)
    make_event(entity="newest", opened=NOON)
    with django_assert_max_num_queries(20):
        assert forget_old_events(NOON) == 8
    assert left() == ["08", "09", "10", "newest"]
    assert forget_old_events(NOON) == 3
    assert left() == ["newest"]
