"""Notices are written with the events, once for each step and channel that wants it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from health.models import Event, EventTransition, Notice
from health.notify.outbox import LATE, notice_key, post
from inventory.models import GPU, Host
from tests.health.building import NOON, make_event

pytestmark = pytest.mark.django_db
SOON = NOON + timedelta(seconds=2)
ONE = override_settings(NOTIFY_URLS=["[name=one]json://localhost"])
Queries = Callable[..., Any]


def step(event: Event, kind: str = "opened", **fields: Any) -> tuple[Event, EventTransition]:
    return event, EventTransition(
        **{"event": event, "kind": kind, "at": event.opened, "recorded": SOON, "severity": event.severity} | fields
    )


def test_without_channels_nothing_is_done(django_assert_num_queries: Queries) -> None:
    event = make_event()
    with django_assert_num_queries(0):
        assert post([step(event)]) == 0


@ONE
def test_a_step_is_posted_once_however_often_it_is_recorded(django_assert_num_queries: Queries) -> None:
    event = make_event()
    with django_assert_num_queries(1):
        post([step(event)], SOON)
    post([step(event)], SOON + timedelta(hours=1))
    (notice,) = Notice.objects.all()
    assert (notice.kind, notice.channel, notice.created, notice.sent) == ("opened", "one", SOON, None)
    assert notice.due == SOON + timedelta(seconds=30)
    assert not notice.late


@ONE
def test_which_steps_count() -> None:
    event = make_event(severity="critical")
    kinds = ("opened", "repeated", "raised", "lost", "regained", "closed", "acknowledged", "resolved", "noted")
    post([step(event, kind) for kind in kinds], SOON)
    assert sorted(Notice.objects.values_list("kind", flat=True)) == ["closed", "opened", "raised", "resolved"]
    Notice.objects.all().delete()
    post([step(make_event("quiet_rule", quiet=True)), step(make_event("info_rule", severity="info"))], SOON)
    assert not Notice.objects.exists()


@override_settings(
    NOTIFY_URLS=["[name=all]json://a", "[name=bad,severity>=critical]json://b", "[name=ml,tag.team=ml]json://c"]
)
def test_each_channel_gets_what_it_wants(django_assert_num_queries: Queries) -> None:
    seen = {"first_seen": NOON, "last_seen": NOON}
    host = Host.objects.create(name="node-1", tags={"team": "hpc"}, **seen)
    GPU.objects.create(id="GPU-ml", uuid="GPU-ml", host=host, tags={"team": "ml"}, **seen)
    plain, tagged = make_event(severity="critical"), make_event(entity="GPU-ml")
    with django_assert_num_queries(3):
        post([step(plain), step(tagged)], SOON)
    found = Notice.objects.values_list("channel", "event__entity")
    assert set(found) == {("all", "GPU-ml"), ("all", plain.entity), ("bad", plain.entity), ("ml", "GPU-ml")}


@ONE
def test_what_was_a_warning_first_is_heard_of_to_its_end_by_its_worst() -> None:
    event = make_event(severity="critical")
    with override_settings(NOTIFY_SEVERITY="critical"):
        post([step(event, severity="warning"), step(event, "raised"), step(event, "closed", severity="warning")], SOON)
    assert sorted(Notice.objects.values_list("kind", flat=True)) == ["closed", "raised"]


@ONE
def test_what_comes_long_after_it_happened_is_late() -> None:
    event = make_event()
    post([step(event)], NOON + LATE + timedelta(seconds=1))
    assert Notice.objects.get().late


def test_keys_are_of_the_step_alone() -> None:
    event = make_event()
    key = notice_key(event, "opened", "warning")
    assert key == notice_key(Event.objects.get(), "opened", "warning")
    assert len(key) == 32
    other = make_event(subject="79")
    assert (
        len(
            {
                key,
                notice_key(event, "closed", "warning"),
                notice_key(event, "opened", "critical"),
                notice_key(other, "opened", "warning"),
            }
        )
        == 4
    )


@ONE
def test_a_thousand_events_take_few_queries(django_assert_max_num_queries: Queries) -> None:
    events = Event.objects.bulk_create(
        Event(
            rule="temp_high", entity_kind="gpu", entity=f"GPU-{number}", severity="warning", opened=NOON, last_seen=NOON
        )
        for number in range(1000)
    )
    with django_assert_max_num_queries(16):  # as many rows in one as the database takes
        assert post([step(event) for event in events], SOON) == 1000
