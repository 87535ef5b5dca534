"""dashboard.views.events: the list of events."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from health.models import Event, Mute, WatchState
from health.muting import mutes_changed
from tests.dashboard.reading import html, part, text_of
from tests.health.building import make_event

pytestmark = pytest.mark.django_db
MOST_QUERIES = 15


def listed(body: str) -> list[str]:
    """The summaries of the events that the page lists."""
    table = body.split('data-part="list"')[1]
    return re.findall(r"<small>([^<]*)</small></th>", table)


@pytest.fixture
def now() -> None:
    """Five open events, one of them unknown, and one that closed half an hour ago."""
    at = timezone.now() - timedelta(minutes=50)
    make_event(entity="GPU-aaaaaaaa-1", severity="warning", summary="w", opened=at)
    make_event(
        entity="GPU-bbbbbbbb-1", severity="critical", summary="c", opened=at, hostname="node-2", slot=3, count=12
    )
    make_event(rule="host_stale", entity_kind="host", entity="node-3", hostname="node-3", slot=None, summary="h", opened=at, severity="critical", state="unknown")  # fmt: skip
    make_event(rule="source_silent", entity_kind="source", entity="streamer-1", hostname="", slot=None, summary="s", opened=at, severity="info")  # fmt: skip
    make_event(rule="gpu_missing", entity_kind="slot", entity="node-4/6", hostname="node-4", slot=6, summary="m", opened=at, severity="critical")  # fmt: skip
    make_event(rule="fleet_idle", entity_kind="fleet", entity="", hostname="", slot=None, summary="over", opened=at, state="closed", closed=at + timedelta(minutes=20))  # fmt: skip


@pytest.mark.usefixtures("now")
def test_open_events_come_first_the_worst_on_top(client: Client) -> None:
    body = html(client, "/events")
    assert listed(body) == ["m", "h", "c", "w", "s"]
    assert listed(html(client, "/events?state=all")) == ["m", "h", "c", "w", "s", "over"]
    assert listed(html(client, "/events?state=closed")) == ["over"]


@pytest.mark.usefixtures("now")
def test_an_event_says_what_where_how_long_how_often_and_what_to_do(client: Client) -> None:
    text = part(html(client, "/events?hostname=node-2"), "list")
    assert "Hot core" in text
    assert "node-2 · gpu 3 · bbbbbbbb" in text
    assert re.search(r"50 m 12 times? Nothing to do", text)
    assert "slot 6" in part(html(client, "/events?hostname=node-4"), "list")
    text = part(html(client, "/events?state=unknown"), "list")
    assert "? unknown" in text
    assert "node-3" in text


@pytest.mark.usefixtures("now")
def test_links_lead_to_the_event_its_gpu_and_its_host(client: Client) -> None:
    body = html(client, "/events?hostname=node-2")
    event = Event.objects.get(hostname="node-2")
    for url in (f"/events/{event.pk}", "/gpus/GPU-bbbbbbbb-1", "/hosts/node-2"):
        assert f'href="{url}"' in body


@pytest.mark.usefixtures("now")
def test_severities_are_counted_and_chosen_by_links(client: Client) -> None:
    text = part(html(client, "/events"), "list")
    assert "all 5 ⬣ critical 3 ▲ warning 1 ● info 1" in text
    assert listed(html(client, "/events?severity=warning")) == ["w"]


@pytest.mark.usefixtures("now")
def test_muted_events_can_be_chosen_and_left_out(client: Client) -> None:
    Mute.objects.create(hostname="node-2", starts="2020-01-01T00:00:00Z", expires="2999-01-01T00:00:00Z")
    mutes_changed()
    assert listed(html(client, "/events?muted=yes")) == ["c"]
    assert listed(html(client, "/events?muted=no")) == ["m", "h", "w", "s"]
    assert "muted until 2999-01-01" in part(html(client, "/events?muted=yes"), "list")


@pytest.mark.usefixtures("now")
def test_the_header_of_every_page_counts_critical_events(client: Client) -> None:
    for path in ("/", "/hosts", "/events", "/pipeline"):
        assert re.search(r"<sup data-critical><span[^>]*>⬣</span>3<", html(client, path))
    Event.objects.update(state="closed", closed=timezone.now())


def test_without_critical_events_the_header_counts_nothing(client: Client) -> None:
    make_event(severity="warning")
    assert "<sup data-critical hidden>" in html(client, "/")


@pytest.mark.usefixtures("now")
def test_the_top_events_of_a_day_have_their_number_and_total_time(client: Client) -> None:
    at = timezone.now() - timedelta(hours=30)
    for number in range(3):
        make_event(entity=f"GPU-{number}", rule="clock_low", severity="warning", state="closed", opened=at, closed=at + timedelta(hours=8))  # fmt: skip
    make_event(entity="GPU-9", rule="pcie_replay", state="closed", opened=at, closed=at + timedelta(hours=1))
    text = part(html(client, "/events"), "top")
    # Of the eight hours of each, two were within the last day.
    assert re.search(r"Low clocks? .*?3 (6 h|5 h 59 m)", text) or re.search(r"3 (6 h|5 h 59 m)", text)
    assert "PCIe replay" not in text


def test_many_events_are_in_pages_and_no_event_is_on_two(client: Client) -> None:
    at = timezone.now() - timedelta(minutes=5)
    for number in range(70):
        make_event(entity=f"GPU-{number:03d}", summary=f"open {number}", opened=at)
    for number in range(60):
        make_event(entity=f"GPU-{number:03d}", summary=f"closed {number}", state="closed", opened=at - timedelta(minutes=number + 1), closed=at)  # fmt: skip
    pages = [listed(html(client, f"/events?state=all&page={page}")) for page in (1, 2, 3)]
    assert [len(page) for page in pages] == [50, 50, 30]
    found = [summary for page in pages for summary in page]
    assert len(set(found)) == 130
    assert [each.startswith("open") for each in found] == [True] * 70 + [False] * 60
    assert found[70:] == [f"closed {number}" for number in range(60)]
    body = html(client, "/events?state=all&page=2")
    assert "Page 2 of 3" in body
    assert 'href="/events?state=all" rel="prev"' in body
    assert 'href="/events?state=all&amp;page=3" rel="next"' in body


def test_five_hundred_open_events_cost_no_more_queries_than_one(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(500):
        make_event(entity=f"GPU-{number:03d}", opened=timezone.now())
    with django_assert_max_num_queries(MOST_QUERIES):
        client.get("/events?state=all&tag=rack=r1")
    with django_assert_max_num_queries(MOST_QUERIES):
        client.get("/events?muted=no")


def test_where_nothing_was_found_it_says_how_many_rules_have_data(client: Client) -> None:
    text = part(html(client, "/events"), "list")
    assert re.search(r"Nothing is open\. No rule finds anything wrong ?; \d+ of \d\d rules have their data here", text)


@pytest.mark.usefixtures("now")
def test_filters_that_leave_nothing_can_be_cleared(client: Client) -> None:
    body = html(client, "/events?rule=ecc_dbe&range=6h")
    assert "No event matches these filters." in body
    assert 'href="/events?range=6h"' in body


def test_it_says_when_nothing_judges(client: Client) -> None:
    assert "has never run here" in part(html(client, "/events"), "judging")
    state = WatchState.objects.create(pk=1, holder="watch-1", updated="2026-03-01T12:00:00Z", lease_until="2026-03-01T12:00:30Z")  # fmt: skip
    assert "does not run since 2026-03-01 12:00:00" in part(html(client, "/events"), "judging")
    state.lease_until = timezone.now() + timedelta(minutes=1)
    state.save()
    assert text_of(html(client, "/events").split('data-part="judging">')[1].split("</div>")[0]) == ""


def test_markup_in_names_and_texts_is_text(client: Client) -> None:
    hostile = "<script>alert(1)</script>"
    make_event(hostname=hostile, pod=hostile, namespace=hostile, summary=hostile, acknowledged=timezone.now(), acknowledged_by=hostile)  # fmt: skip
    make_event(rule=hostile, entity=hostile, hostname=hostile)
    for path in ("/events", f"/events?rule={hostile}&hostname={hostile}&tag={hostile}=1"):
        body = html(client, path)
        assert hostile not in body
        assert "&lt;script&gt;" in body
