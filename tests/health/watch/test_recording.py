"""Transitions become rows: few of them, and each once."""

from __future__ import annotations

import pytest
from pytest_django import DjangoAssertNumQueries

from health.engine.events import Change, Entity, EntityPlace, Key, Touch, Transition
from health.models import Event, EventState, EventTransition
from health.rule_table import rules_now
from health.watch.recording import record
from readings.times import to_datetime
from tests.health.building import make_event
from tests.health.engine.building import MINUTE, START

pytestmark = pytest.mark.django_db

KEY = Key("temp_high", Entity("gpu", "GPU-1"))


def step(
    change: Change, at_ns: int = START, *, key: Key = KEY, severity: str = "warning", count: int = 1
) -> Transition:
    values: dict[str, float | str] = {"value": 90.0} if change in {Change.OPENED, Change.RAISED} else {}
    return Transition(
        change, key, START, at_ns, severity, EntityPlace("node-1", 1, "H100"), count, change.value, values
    )


def test_an_event_lives_through_its_steps() -> None:
    rules = rules_now()
    record([step(Change.OPENED)], [], rules)
    record([step(Change.RAISED, START + MINUTE, severity="critical")], [], rules)
    record([step(Change.LOST, START + 2 * MINUTE, severity="critical")], [], rules)
    event = Event.objects.get()
    assert (event.state, event.severity, event.details) == (EventState.UNKNOWN, "critical", {"value": 90.0})
    record([step(Change.REGAINED, START + 3 * MINUTE, severity="critical")], [], rules)
    steps = record([step(Change.CLOSED, START + 4 * MINUTE, severity="critical")], [], rules)
    assert [each.kind for _, each in steps] == ["closed"]
    event.refresh_from_db()
    assert (event.state, event.closed) == (EventState.CLOSED, to_datetime(START + 4 * MINUTE))
    kinds = EventTransition.objects.order_by("at").values_list("kind", flat=True)
    assert list(kinds) == ["opened", "raised", "lost", "regained", "closed"]


def test_writing_the_same_again_changes_nothing() -> None:
    rules = rules_now()
    said = [step(Change.OPENED), step(Change.CLOSED, START + MINUTE)]
    assert len(record(said, [], rules)) == 2
    assert record(said, [], rules) == []
    assert (Event.objects.count(), EventTransition.objects.count()) == (1, 2)


def test_what_opens_closes_and_opens_again_in_one_go_is_two_events() -> None:
    again = Transition(Change.OPENED, KEY, START + MINUTE, START + MINUTE, "warning", EntityPlace())
    record([step(Change.OPENED), step(Change.CLOSED, START + MINUTE), again], [], rules_now())
    assert list(Event.objects.order_by("opened").values_list("state", flat=True)) == ["closed", "open"]


def test_repeats_are_counted_and_few_of_them_are_steps() -> None:
    rules = rules_now()
    record([step(Change.OPENED)], [], rules)
    for count in range(2, 20):
        record([step(Change.REPEATED, START + count, count=count)], [], rules)
    assert Event.objects.get().count == 19
    assert EventTransition.objects.filter(kind="repeated").count() == 4  # the 2nd, 4th, 8th and 16th


def test_what_a_person_closed_stays_closed() -> None:
    rules = rules_now()
    record([step(Change.OPENED)], [], rules)
    Event.objects.update(state=EventState.CLOSED, resolved_by="ann")
    assert record([step(Change.LOST, START + MINUTE)], [Touch(KEY, START, START + MINUTE, 7)], rules) == []
    assert Event.objects.get().state == EventState.CLOSED
    assert Event.objects.get().count == 1


def test_a_touch_brings_an_open_event_up_to_date() -> None:
    rules = rules_now()
    record([step(Change.OPENED)], [], rules)
    record([], [Touch(KEY, START, START + MINUTE, 3)], rules)
    event = Event.objects.get()
    assert (event.last_seen, event.count) == (to_datetime(START + MINUTE), 3)


def test_an_event_that_a_lost_state_left_open_gives_way() -> None:
    old = make_event("temp_high", entity="GPU-1", opened=to_datetime(START - MINUTE))
    record([step(Change.OPENED)], [], rules_now())
    old.refresh_from_db()
    assert old.state == EventState.CLOSED
    assert Event.objects.filter(state=EventState.OPEN).count() == 1


def test_many_events_take_few_queries(django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    said = [step(Change.OPENED, key=Key("temp_high", Entity("gpu", f"GPU-{number}"))) for number in range(300)]
    with django_assert_max_num_queries(12):
        record(said, [], rules_now())
    assert Event.objects.count() == 300


def test_info_is_quiet_until_it_is_worse() -> None:
    rules = rules_now()
    record([step(Change.OPENED, severity="info")], [], rules)
    assert Event.objects.get().quiet
    record([step(Change.RAISED, START + MINUTE)], [], rules)
    assert not Event.objects.get().quiet
