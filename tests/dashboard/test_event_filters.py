"""dashboard.event_filters: what the URL of the list asks for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dashboard.event_filters import EventChoice
from health.models import Event
from inventory.models import Host
from tests.health.building import NOON, make_event
from tests.inventory.building import UTIL, block, gpu, save

START, END = NOON - timedelta(hours=1), NOON + timedelta(hours=1)


@pytest.mark.parametrize(
    "query",
    [
        {"state": "__proto__", "severity": "fatal", "acknowledged": "maybe", "muted": "1"},
        {"rule": "a\x00b", "hostname": "x" * 400, "tag": "no value"},
        {"state": "open; drop table"},
    ],
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(query: dict[str, str]) -> None:
    assert EventChoice.of(query) == EventChoice()


def test_only_more_than_a_state_is_narrow() -> None:
    assert not EventChoice.of({"state": "closed"}).is_narrow
    assert EventChoice.of({"state": "closed", "rule": "temp_high"}).is_narrow


def names(events: list[Event]) -> list[str]:
    return [event.entity for event in events]


@pytest.fixture
def events(db: None) -> None:
    save(block(gpu("a", hostname="node-1"), 0, {UTIL: 1.0}))
    Host.objects.filter(name="node-1").update(tags={"rack": "r1"})
    make_event(entity="info", severity="info", opened=NOON)
    make_event(entity="old", severity="critical", opened=NOON - timedelta(days=3), hostname="node-2")
    make_event(entity="new", severity="critical", opened=NOON, acknowledged=NOON, acknowledged_by="ada")
    make_event(entity="warn", severity="warning", state="unknown", opened=NOON)
    make_event(entity="trial", severity="critical", quiet=True, opened=NOON, rule="clock_low")
    make_event(entity="over", state="closed", opened=NOON - timedelta(hours=3), closed=NOON)
    make_event(entity="long over", state="closed", opened=NOON - timedelta(days=9), closed=NOON - timedelta(days=8))


@pytest.mark.usefixtures("events")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["new", "old", "warn", "info", "trial"]),
        ({"state": "unknown"}, ["warn"]),
        ({"state": "closed"}, []),
        ({"severity": "critical"}, ["new", "old", "trial"]),
        ({"rule": "clock_low"}, ["trial"]),
        ({"hostname": "node-2"}, ["old"]),
        ({"uuid": "info"}, ["info"]),
        ({"tag": "rack=r1"}, ["new", "warn", "info", "trial"]),
        ({"acknowledged": "yes"}, ["new"]),
        ({"acknowledged": "no"}, ["old", "warn", "info", "trial"]),
        ({"rule": "x' OR 1=1 --"}, []),
    ],
)
def test_what_is_not_over_comes_worst_first(query: dict[str, str], expected: list[str]) -> None:
    assert names(list(EventChoice.of(query).ongoing())) == expected


@pytest.mark.usefixtures("events")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, []),
        ({"state": "closed"}, ["over"]),
        ({"state": "all"}, ["over"]),
        ({"state": "all", "severity": "critical"}, []),
        ({"state": "all", "muted": "yes"}, []),
    ],
)
def test_what_is_over_is_listed_where_it_was_ongoing_in_the_range(query: dict[str, str], expected: list[str]) -> None:
    assert names(list(EventChoice.of(query).closed(START, END))) == expected
