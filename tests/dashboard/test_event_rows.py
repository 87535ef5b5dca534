"""dashboard.event_rows: events in words, and in groups."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dashboard.event_rows import EventRows, around_url, events_url, grouped
from health.models import Mute
from health.muting import mutes_changed
from tests.health.building import NOON, make_event

pytestmark = pytest.mark.django_db


def test_what_to_do_is_the_rules_advice_unless_the_event_has_another_action() -> None:
    made = EventRows(NOON)
    own = made.row(make_event(entity="GPU-1", action="contact_support"))
    other = made.row(make_event(entity="GPU-2", action="reset_gpu"))
    assert own.title == "Hot core"
    assert "cooling" in own.action
    assert other.action == "Drain the GPU and reset it."


def test_a_rule_that_is_not_in_the_table_any_more_keeps_its_name() -> None:
    row = EventRows(NOON).row(make_event(rule="gone_rule", action="gone_action"))
    assert (row.title, row.action) == ("gone_rule", "gone_action")


def test_an_xid_is_what_the_subject_says_and_only_for_rules_of_xids() -> None:
    made = EventRows(NOON)
    xid = made.xid(make_event(rule="xid_app", subject="32"))
    assert xid is not None
    assert xid.disagree
    assert made.xid(make_event(rule="temp_high", subject="32")) is None
    assert made.xid(make_event(rule="xid_app", subject="٣٢")) is None


def test_an_ongoing_event_lasts_until_now_and_a_closed_one_until_its_end() -> None:
    made = EventRows(NOON + timedelta(minutes=5))
    assert made.row(make_event(entity="GPU-1")).seconds == 300
    closed = make_event(entity="GPU-2", state="closed", closed=NOON + timedelta(seconds=40))
    assert made.row(closed).seconds == 40


def test_a_clock_that_is_ahead_makes_no_negative_duration() -> None:
    assert EventRows(NOON - timedelta(hours=1)).row(make_event()).seconds == 0


def test_what_nobody_is_notified_of_says_until_when() -> None:
    event = make_event()
    Mute.objects.create(rule=event.rule, starts=NOON, expires="2999-01-02T03:04:00Z")
    mutes_changed()
    assert EventRows().row(event).muted == "muted until 2999-01-02 03:04 UTC"
    event.state = "closed"
    assert EventRows().row(event).muted == ""


def test_the_half_hours_around_an_event_are_of_its_gpu_or_its_host() -> None:
    event = make_event(entity="GPU-1")
    assert around_url(event) == "/gpus/GPU-1?start=2026-03-01T11:30:00Z&end=2026-03-01T12:30:00Z"
    event = make_event(entity_kind="host", entity="rack 7/β#1", hostname="rack 7/β#1")
    assert around_url(event).startswith("/hosts/rack%207%2F%CE%B2%231?start=")
    assert around_url(make_event(entity_kind="fleet", entity="", hostname="")) == ""


def test_events_of_one_rule_and_host_are_one_group_with_the_worst_severity() -> None:
    events = [
        make_event(entity="GPU-1", slot=3, severity="warning", opened=NOON - timedelta(hours=1)),
        make_event(entity="GPU-2", slot=1, severity="critical", summary="99 °C", count=4),
        make_event(entity="GPU-3", hostname="node-2", severity="warning"),
        make_event(
            rule="host_stale", entity_kind="host", entity="node-3", hostname="node-3", slot=None, severity="critical"
        ),
    ]
    first, second, third = grouped(EventRows(NOON).rows(events))
    assert (first.rule, first.severity, first.slots, first.events, first.count) == (
        "temp_high",
        "critical",
        "gpus 1, 3",
        2,
        5,
    )
    assert (first.summary, first.opened) == ("99 °C", NOON - timedelta(hours=1))
    assert first.url == events_url(rule="temp_high", hostname="node-1") == "/events?rule=temp_high&hostname=node-1"
    assert (second.title, second.slots, second.url) == ("Host silent", "", f"/events/{events[3].pk}")
    assert (third.hostname, third.severity, third.slots) == ("node-2", "warning", "gpu 0")


def test_many_slots_are_cut() -> None:
    events = [make_event(entity=f"GPU-{slot}", slot=slot) for slot in range(12)]
    assert grouped(EventRows(NOON).rows(events))[0].slots == "gpus 0, 1, 2, 3, 4, 5, 6, 7, …"
