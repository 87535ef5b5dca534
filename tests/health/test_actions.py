"""health.actions: what people do to events, beside what watch writes."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from health.actions import (
    ActionCount,
    EventIsClosed,
    acknowledge,
    acknowledge_all,
    add_note,
    mute_all,
    resolve,
    resolve_all,
)
from health.engine.events import Change, Entity, EntityPlace, Key, Touch, Transition
from health.models import Event, EventState, EventTransition, Mute, Resolution
from health.rule_table import rules_now
from health.watch.recording import record
from readings.times import to_ns
from tests.health.building import NOON, make_event
from tests.inventory.test_concurrency import at_once


def steps(event: Event) -> list[tuple[str, str, str]]:
    return list(event.transitions.values_list("kind", "user", "note"))[1:]


@pytest.mark.django_db
def test_an_acknowledgement_is_kept_with_who_and_why() -> None:
    event = make_event()
    before = timezone.now()
    found = acknowledge(event, "ada", "looking at the fan")
    event.refresh_from_db()
    assert found == event
    assert (event.acknowledged_by, event.state) == ("ada", "open")
    assert event.acknowledged is not None
    assert before <= event.acknowledged <= timezone.now()
    assert (found.acknowledged, found.acknowledged_by) == (event.acknowledged, "ada")
    assert steps(event) == [("acknowledged", "ada", "looking at the fan")]
    assert not Resolution.objects.exists()


@pytest.mark.django_db
def test_who_acknowledged_first_stays_and_the_second_leaves_a_note() -> None:
    event = make_event()
    acknowledge(event, "ada")
    assert acknowledge(event, "bob").acknowledged_by == "ada"
    acknowledge(event, "bob", "me too")
    assert steps(event) == [("acknowledged", "ada", ""), ("noted", "bob", "me too")]


@pytest.mark.django_db
def test_resolving_closes_the_event_and_asks_watch_to_begin_anew() -> None:
    event = make_event("xid_fatal", subject="79", state=EventState.UNKNOWN)
    found = resolve(event, "ada", "GPU was reseated")
    event.refresh_from_db()
    assert (event.state, event.resolved_by, event.closed) == ("closed", "ada", found.closed)
    assert steps(event) == [("resolved", "ada", "GPU was reseated")]
    asked = Resolution.objects.values_list("rule", "entity_kind", "entity", "subject")
    assert list(asked) == [("xid_fatal", "gpu", event.entity, "79")]
    make_event("xid_fatal", subject="79", opened=NOON + timedelta(hours=1))  # there is room for a new one


@pytest.mark.django_db
def test_nothing_ends_before_it_was_seen() -> None:
    ahead = timezone.now() + timedelta(minutes=1)
    assert resolve(make_event(last_seen=ahead), "ada").closed == ahead


@pytest.mark.django_db
def test_an_event_that_is_over_takes_notes_only() -> None:
    event = make_event(state=EventState.CLOSED, closed=NOON)
    for action in (acknowledge, resolve):
        with pytest.raises(EventIsClosed):
            action(event, "ada", "too late")
    add_note(event, "ada", "it was the PSU")
    assert steps(event) == [("noted", "ada", "it was the PSU")]
    event.refresh_from_db()
    assert (event.acknowledged, event.resolved_by, event.closed) == (None, "", NOON)


@pytest.mark.django_db
def test_a_persons_change_is_in_the_admins_history() -> None:
    person = User.objects.create_user("ada")
    event = make_event()
    acknowledge(event, "ada", "on it", user_id=person.pk)
    resolve(event, "ada", user_id=person.pk)
    entries = LogEntry.objects.order_by("pk")
    assert [entry.get_change_message() for entry in entries] == [
        "Changed acknowledged: on it.",
        "Changed resolved: –.",
    ]
    assert {(entry.object_id, entry.user_id) for entry in entries} == {(str(event.pk), person.pk)}


@pytest.mark.django_db
def test_many_are_changed_with_as_many_queries_as_few(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    events = [make_event(entity=f"GPU-{n}") for n in range(40)]
    make_event(entity="GPU-x", state=EventState.CLOSED)
    person = User.objects.create_user("ada")
    keys = list(Event.objects.values_list("pk", flat=True))
    acknowledge(events[0], "bob", user_id=person.pk)  # the content type is known from here on
    with django_assert_num_queries(6):  # begin, read, update, transitions, history, end
        assert acknowledge_all(keys[:3], "ada", "some", user_id=person.pk) == ActionCount(2, 1)
    with django_assert_num_queries(6):
        assert acknowledge_all(keys, "ada", "all", user_id=person.pk) == ActionCount(37, 4)
    with django_assert_num_queries(7):  # and the resolutions
        assert resolve_all(keys, "ada", user_id=person.pk) == ActionCount(40, 1)
    assert Resolution.objects.count() == 40
    assert EventTransition.objects.filter(kind="resolved").count() == 40


@pytest.mark.django_db
def test_one_mute_covers_what_several_events_share() -> None:
    events = [
        make_event("xid_app", subject="13"),
        make_event("xid_app", subject="31"),
        make_event("host_stale", entity_kind="host", entity="node-1"),
    ]
    until = timezone.now() + timedelta(hours=8)
    mutes = mute_all(events, until, "ada", "test bench")
    assert sorted(map(str, mutes)) == ["host_stale · node-1", f"xid_app · {events[0].entity}"]
    assert set(Mute.objects.values_list("created_by", "note")) == {("ada", "test bench")}
    for mute in Mute.objects.all():
        assert abs(mute.expires - until) < timedelta(seconds=1)


@pytest.mark.django_db(transaction=True)
def test_an_event_that_watch_closes_meanwhile_is_not_resolved_too() -> None:
    """Both may hold the same row: the second waits for the first and sees what it wrote."""
    event = make_event()
    writing, answers = threading.Barrier(2), []

    def watch() -> None:
        with transaction.atomic():
            Event.objects.filter(pk=event.pk, state="open").update(state="closed", closed=NOON)
            writing.wait(30)
            waiting.wait(0.2)  # resolve() has begun by now, and cannot have ended

    def person() -> None:
        writing.wait(30)
        try:
            answers.append(str(resolve(event, "ada")))
        except EventIsClosed:
            answers.append("closed")
        waiting.set()

    waiting = threading.Event()
    at_once(watch, person)
    assert answers == ["closed"]
    assert not Resolution.objects.exists()
    event.refresh_from_db()
    assert (event.closed, event.resolved_by) == (NOON, "")


@pytest.mark.django_db(transaction=True)
def test_people_and_watch_write_to_the_same_events_at_once() -> None:
    """None waits for ever, nothing is lost, and what a person closed stays closed."""
    events = [make_event(entity=f"GPU-{n}", opened=NOON + timedelta(seconds=n % 7)) for n in range(60)]
    keys = [event.pk for event in events]
    rounds = 15

    def watch() -> None:
        for number in range(2, rounds + 2):
            steps, touches = [], []
            for event in events:
                key = Key(event.rule, Entity("gpu", event.entity), "")
                opened_ns, at_ns = to_ns(event.opened), to_ns(event.opened) + number * 1_000_000_000
                touches.append(Touch(key, opened_ns, at_ns, number))
                steps.append(Transition(Change.RAISED, key, opened_ns, at_ns, "critical", EntityPlace(), count=number))
            with transaction.atomic():
                record(steps, touches, rules_now())

    def person() -> None:
        for number in range(rounds):
            some = keys[number * 4 : number * 4 + 4]
            acknowledge_all(some, "ada", "on it")
            add_note(events[number], "ada", f"{number}")
            resolve_all(some[:2], "ada")

    at_once(watch, person)
    now = Event.objects.in_bulk(keys)
    resolved = {key for start in range(0, 60, 4) for key in keys[start : start + 2]}
    assert {key for key, event in now.items() if event.state == "closed"} == resolved
    assert {event.acknowledged_by for event in now.values()} == {"ada"}
    assert {event.count for key, event in now.items() if key not in resolved} == {rounds + 1}
    assert Resolution.objects.count() == len(resolved)
    kinds = Counter(EventTransition.objects.values_list("kind", flat=True))
    assert (kinds["acknowledged"], kinds["resolved"], kinds["noted"]) == (60, 30, rounds)
