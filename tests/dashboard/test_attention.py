"""dashboard.attention: what of the fleet needs attention, and the part of the page that says it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.test import Client
from django.utils import timezone

from api.fleet import select_slots
from dashboard.attention import MOST_GROUPS, FleetAttention, filters_of, gpus_in_need, needs_attention
from health.models import WatchState
from health.queries import ongoing_now
from inventory.fleet import fleet_now
from tests.dashboard.reading import html, text_of
from tests.health.building import NOON, make_event
from tests.inventory.building import UTIL, block, gpu, save

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def hosts() -> None:
    """``half`` has lost one of two GPUs, ``gone`` is silent, ``well`` reports and is used by the namespace ml."""
    save(
        block(gpu("GPU-1", hostname="half"), 0, {UTIL: 1.0}),
        block(gpu("GPU-2", hostname="half", gpu_id=1), -400, {UTIL: 1.0}),
        block(gpu("GPU-3", hostname="gone"), -400, {UTIL: 1.0}),
        block(gpu("GPU-4", hostname="well", namespace="ml", pod="p"), 0, {UTIL: 1.0}),
    )


def found(**filters: str) -> FleetAttention:
    fleet = fleet_now()
    chosen = select_slots(fleet, **filters_of({name: [value] for name, value in filters.items()}))
    return needs_attention(fleet, chosen, NOON)


def lines(attention: FleetAttention) -> list[tuple[str, str, str, str]]:
    return [(each.severity, each.title, each.hostname, each.slots) for each in attention.groups]


def test_without_events_what_is_gone_is_named_all_the_same() -> None:
    assert lines(found()) == [("critical", "GPU missing", "half", "slot 1"), ("warning", "Host silent", "gone", "")]


def test_what_an_event_says_is_not_said_twice() -> None:
    make_event("gpu_missing", entity="GPU-2", hostname="half", slot=1, severity="critical")
    make_event("host_stale", entity_kind="host", entity="gone", hostname="gone", slot=None, severity="critical")
    assert {each.rule for each in found().groups} == {"gpu_missing", "host_stale"}


def test_a_gpu_that_fell_off_the_bus_is_not_missing_too() -> None:
    make_event("xid_fatal", entity="GPU-2", hostname="half", slot=1, severity="critical", subject="48")
    assert "GPU missing" in {each.title for each in found().groups}
    make_event("xid_fatal", entity="GPU-2", hostname="half", slot=1, severity="critical", subject="79")
    assert "GPU missing" not in {each.title for each in found().groups}


def test_while_a_source_is_silent_its_hosts_are_not_named_one_by_one() -> None:
    make_event("source_silent", entity_kind="source", entity="s", hostname="", slot=None, severity="critical")
    assert [each.title for each in found().groups] == ["Source silent", "GPU missing"]


def test_the_worst_come_first_info_not_at_all_and_the_rest_is_counted() -> None:
    for number in range(9):
        make_event(entity=f"GPU-x{number}", hostname=f"node-{number}")
    make_event("idle_held", severity="info", entity="GPU-4", hostname="well")
    make_event("ecc_dbe", severity="critical", entity="GPU-4", hostname="well")
    make_event("clock_low", severity="critical", quiet=True, entity="GPU-4", hostname="well")
    attention = found()
    assert [each.severity for each in attention.groups] == ["critical"] * 2 + ["warning"] * (MOST_GROUPS - 2)
    assert "idle_held" not in {each.rule for each in attention.groups}
    # Ten events, and two that are gone without one.
    assert attention.more == 12 - MOST_GROUPS


def test_what_somebody_has_taken_up_says_so_and_comes_after_the_rest_of_its_severity() -> None:
    make_event("xid_fatal", entity="GPU-1", hostname="half", severity="critical", subject="48", acknowledged=NOON)
    make_event("ecc_dbe", entity="GPU-4", hostname="well", severity="critical")
    assert [(each.rule, each.handled) for each in found().groups if each.rule] == [
        ("ecc_dbe", ""),
        ("xid_fatal", "acknowledged"),
    ]


def test_filters_leave_events_of_what_they_choose() -> None:
    make_event("ecc_dbe", severity="critical", entity="GPU-4", hostname="well")
    make_event("temp_high", entity="GPU-1", hostname="half")
    make_event("fleet_idle", entity_kind="fleet", entity="", hostname="", slot=None, severity="warning")
    assert [each.rule for each in found(namespace="ml").groups] == ["ecc_dbe"]
    assert found(namespace="none").expected == 0


def test_gpus_that_are_gone_or_have_an_event_above_info_are_counted_once() -> None:
    make_event("gpu_missing", entity="GPU-2", hostname="half", severity="critical")
    make_event("temp_high", entity="GPU-4:3", hostname="well")
    make_event("idle_held", severity="info", entity="GPU-1", hostname="half")
    fleet = fleet_now()
    assert gpus_in_need(fleet, np.ones(len(fleet), np.bool_), ongoing_now()) == 3


def test_the_part_has_what_the_page_has_and_the_count_of_the_header(client: Client) -> None:
    event = make_event("ecc_dbe", severity="critical", entity="GPU-4", hostname="well", opened=timezone.now())
    for path in ("/", "/events/attention"):
        body = html(client, path)
        assert f'<a href="/events/{event.pk}"><b>' in body
        assert "<sup data-critical><span" in body
        assert "90 °C, limit 85 °C. Nothing to do" in text_of(body)
    assert "Nothing is wrong" not in body


def test_it_says_when_nothing_judges_and_when_nothing_is_wrong(client: Client) -> None:
    assert "Nothing is judging" in text_of(html(client, "/events/attention"))
    WatchState.objects.create(pk=1, holder="w", lease_until=timezone.now() + timedelta(minutes=1))
    text = text_of(html(client, "/events/attention?namespace=ml"))
    assert "Nothing is judging" not in text
    assert "Nothing is wrong: every expected GPU reports" in text
    assert "No GPU matches the filters." in text_of(html(client, "/events/attention?namespace=none"))


def test_markup_in_names_is_text(client: Client) -> None:
    hostile = "<script>alert(1)</script>"
    make_event(hostile, hostname=hostile, summary=hostile, severity="critical")
    make_event("source_silent", entity_kind="source", entity=hostile, hostname="", severity="critical")
    body = html(client, "/events/attention")
    assert hostile not in body
    assert body.count("&lt;script&gt;") >= 3
