"""health.queries: lists of events, and what is ongoing now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from health.models import Event, EventState
from health.queries import (
    EventFilter,
    EventPlace,
    SeverityCounts,
    after_place,
    counts_of,
    events_matching,
    events_of,
    ongoing_events,
    ongoing_now,
)
from inventory.models import GPU, Host
from tests.health.building import NOON, make_event
from tests.inventory.building import UTIL, block, gpu, save

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def rules(**fields: Any) -> list[str]:
    return [event.rule for event in events_matching(EventFilter(**fields))]


@pytest.fixture
def events() -> dict[str, Event]:
    """From the oldest to the newest."""
    save(block(gpu("GPU-a", hostname="node-1"), 0, {UTIL: 1.0}), block(gpu("GPU-b", hostname="node-2"), 0, {UTIL: 1.0}))
    Host.objects.filter(name="node-1").update(tags={"rack": "r1"})
    GPU.objects.filter(pk="GPU-b").update(tags={"team": "ml"})
    return {
        "over": make_event("over", entity="GPU-a", state=EventState.CLOSED, closed=NOON + HOUR),
        "ecc_dbe": make_event("ecc_dbe", entity="GPU-a", severity="critical", opened=NOON + HOUR),
        "host_stale": make_event(
            "host_stale", entity_kind="host", entity="node-2", hostname="node-2", opened=NOON + 2 * HOUR
        ),
        "lost": make_event(
            "lost", entity="GPU-b", hostname="node-2", state=EventState.UNKNOWN, opened=NOON + 3 * HOUR, severity="info"
        ),
        "stored": make_event("stored", entity="GPU-a:1", quiet=True, opened=NOON + 4 * HOUR),
    }


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, "stored lost host_stale ecc_dbe over"),
        ({"states": ["open"]}, "stored host_stale ecc_dbe"),
        ({"states": ["unknown", "closed"]}, "lost over"),
        ({"severities": ["critical", "info"]}, "lost ecc_dbe"),
        ({"rules": ["over", "nothing"]}, "over"),
        ({"hostnames": ["node-2"]}, "lost host_stale"),
        ({"gpus": ["GPU-a", "node-2"]}, "ecc_dbe over"),
        ({"tags": [("rack", "r1")]}, "stored ecc_dbe over"),
        ({"tags": [("team", "ml")]}, "lost"),
        ({"tags": [("team", "r1")]}, ""),
        ({"tags": [("rack", "r1"), ("team", "ml")], "states": ["unknown"]}, "lost"),
        ({"quiet": True}, "stored"),
        ({"quiet": False, "states": ["open"]}, "host_stale ecc_dbe"),
        ({"end": NOON}, "over"),
        ({"start": NOON + HOUR}, "stored lost host_stale ecc_dbe over"),
        ({"start": NOON + HOUR + HOUR / 60}, "stored lost host_stale ecc_dbe"),
        ({"start": NOON + 2 * HOUR, "end": NOON + 2 * HOUR}, "host_stale ecc_dbe"),
    ],
)
def test_filters(events: dict[str, Event], fields: dict[str, Any], found: str) -> None:
    assert rules(**fields) == found.split()


def test_a_list_goes_on_after_any_place_also_among_events_of_one_instant() -> None:
    for number in range(5):
        make_event(entity=f"GPU-{number}", opened=NOON + (number // 3) * HOUR)
    whole = list(events_matching(EventFilter()))
    for place, event in enumerate(whole):
        rest = after_place(events_matching(EventFilter()), EventPlace(event.opened, event.pk))
        assert list(rest) == whole[place + 1 :]


def test_counts_by_severity(events: dict[str, Event], django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1):
        assert counts_of(events_matching(EventFilter())) == SeverityCounts(critical=1, warning=3, info=1)
    assert counts_of(events_matching(EventFilter(rules=["nothing"]))) == (0, 0, 0)
    assert SeverityCounts(0, 2, 1).mark == 2
    assert SeverityCounts().mark == 0


def test_what_is_ongoing_by_gpu_and_host_in_one_query(
    events: dict[str, Event], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_event("temp_margin", entity="GPU-b:2", hostname="node-2", severity="critical")
    make_event("source_silent", entity_kind="source", entity="dcgm", hostname="", severity="critical")
    make_event("gpu_missing", entity_kind="slot", entity="node-1/6", severity="critical")
    with django_assert_num_queries(1):
        now = ongoing_now()
        assert now.by_gpu == {
            "GPU-a": (1, 0, 0),
            "GPU-b": (1, 0, 1),
            "GPU-b:2": (1, 0, 0),
            "node-1/6": (1, 0, 0),
        }
        assert now.by_host == {"node-1": (2, 0, 0), "node-2": (1, 1, 1)}
        assert now.of_hosts == {"node-2": (0, 1, 0)}
        assert now.elsewhere == (1, 0, 0)
        assert now.total == (4, 1, 1)


def test_the_worst_ongoing_events_come_first(events: dict[str, Event]) -> None:
    make_event("temp_margin", entity="GPU-b", severity="critical", opened=NOON)
    assert [event.rule for event in ongoing_events()] == ["ecc_dbe", "temp_margin", "host_stale", "lost"]


def test_the_events_of_a_gpu_are_its_boards_too_and_those_of_a_host_all_on_it(events: dict[str, Event]) -> None:
    def found(**of: Any) -> list[str]:
        return [event.rule for event in events_of(start=NOON, end=NOON + 9 * HOUR, **of)]

    assert found(gpu_id="GPU-a") == ["ecc_dbe", "over"]
    save(block(gpu("GPU-a", mig_id="1", hostname="node-1"), 0, {UTIL: 1.0}))  # from now on its instance is known
    assert found(gpu_id="GPU-a") == ["stored", "ecc_dbe", "over"]
    assert found(gpu_id="GPU-a:1") == ["stored", "ecc_dbe", "over"]
    assert found(hostname="node-2") == ["lost", "host_stale"]
    assert events_of(gpu_id="GPU-a", start=NOON, end=NOON, most=9) == [events["over"]]
