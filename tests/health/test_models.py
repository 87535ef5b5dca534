"""The tables keep what the engine and people rely on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from health.engine.events import Change
from health.models import EventState, Mute, Severity, TransitionKind
from tests.health.building import NOON, make_event

pytestmark = pytest.mark.django_db


def test_one_event_is_ongoing_for_a_rule_an_entity_and_a_subject() -> None:
    first = make_event("xid_fatal", subject="79")
    make_event("xid_fatal", subject="48")
    with pytest.raises(IntegrityError), transaction.atomic():
        make_event("xid_fatal", subject="79", opened=NOON + timedelta(hours=1))
    first.state = EventState.CLOSED
    first.save()
    make_event("xid_fatal", subject="79", opened=NOON + timedelta(hours=1))


def test_an_opening_is_recorded_once() -> None:
    make_event(state=EventState.CLOSED)
    with pytest.raises(IntegrityError), transaction.atomic():
        make_event(state=EventState.CLOSED)


def test_the_engines_changes_are_kinds_of_transitions() -> None:
    assert {change.value for change in Change} <= set(TransitionKind.values)
    assert Severity.values == ["info", "warning", "critical"]


def test_a_mute_names_its_scope() -> None:
    mute = Mute(rule="temp_high", tag="rack", tag_value="r12", starts=NOON, expires=NOON + timedelta(hours=1))
    assert str(mute) == "temp_high · rack=r12"
    assert str(Mute(starts=NOON, expires=NOON)) == "everything"
