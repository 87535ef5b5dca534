"""The API of events: lists, one event, over time, and what people do to them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from health.actions import acknowledge
from health.models import Event, EventState, EventTransition, Mute
from health.rule_table import rules_now
from inventory.models import Host
from stores.base import Store
from tests.api.conftest import Api
from tests.health.building import NOON, make_event

pytestmark = pytest.mark.django_db

EVENTS = "/api/v1/events"
HOUR = timedelta(hours=1)
UUID = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"


@pytest.fixture(autouse=True)
def _plain_rules(settings: Settings) -> None:
    settings.HEALTH_RULES = ""


@pytest.fixture
def events() -> list[Event]:
    """From the oldest to the newest."""
    return [
        make_event("xid_fatal", entity="GPU-a0", hostname="host-a", severity="critical", subject="79", action="reboot_node"),
        make_event("temp_high", entity="GPU-b0", hostname="host-b", opened=NOON + HOUR, state=EventState.CLOSED, closed=NOON + 2 * HOUR),
        make_event("host_stale", entity_kind="host", entity="host-a", hostname="host-a", slot=None, opened=NOON + 3 * HOUR),
        make_event("idle_held", entity="GPU-a0", hostname="host-a", severity="info", quiet=True, opened=NOON + 4 * HOUR, state=EventState.UNKNOWN),
    ]  # fmt: skip


def rules_of(body: Any) -> list[str]:
    return [event["rule"] for event in body["data"]]


def test_an_event_says_what_where_since_when_and_what_to_do(api: Api) -> None:
    opened = timezone.now() - HOUR
    event = make_event(
        "xid_fatal",
        entity=UUID,
        hostname="node-1",
        slot=3,
        severity="critical",
        subject="79",
        namespace="ml",
        pod="train-7",
        opened=opened,
        last_seen=opened + HOUR / 2,
        count=2,
        summary="XID 79",
        details={"xid": 79.0},
        action="reboot_node",
    )
    (found,) = api.get(EVENTS)["data"]
    duration = found.pop("duration_seconds")
    assert 3600 <= duration < 3660
    rule = rules_now()["xid_fatal"]
    assert found == {
        "id": event.pk,
        "rule": "xid_fatal",
        "title": rule.title,
        "severity": "critical",
        "state": "open",
        "entity": {"kind": "gpu", "id": UUID},
        "hostname": "node-1",
        "slot": 3,
        "uuid": UUID,
        "short_uuid": "GPU-5fd4f087",
        "model_name": "Synthetic GPU 80GB",
        "namespace": "ml",
        "pod": "train-7",
        "subject": "79",
        "opened": found["opened"],
        "last_seen": found["last_seen"],
        "closed": None,
        "count": 2,
        "summary": "XID 79",
        "details": {"xid": 79.0},
        "action": "reboot_node",
        "action_text": rule.action_text if rule.action == "reboot_node" else "Drain the host and reboot it.",
        "acknowledged": None,
        "acknowledged_by": "",
        "resolved_by": "",
        "muted": False,
        "muted_until": None,
        "quiet": False,
        "url": f"http://testserver/api/v1/events/{event.pk}",
    }
    assert datetime.fromisoformat(found["opened"]) == opened
    assert api.get(found["url"])["id"] == event.pk


@pytest.mark.parametrize(
    ("query", "rules"),
    [
        ("", "idle_held host_stale temp_high xid_fatal"),
        ("state=open", "host_stale xid_fatal"),
        ("state=ongoing", "idle_held host_stale xid_fatal"),
        ("state=unknown,closed", "idle_held temp_high"),
        ("state=closed&state=unknown", "idle_held temp_high"),
        ("severity=critical&severity=info", "idle_held xid_fatal"),
        ("rule=temp_high&rule=nothing", "temp_high"),
        ("hostname=host-b", "temp_high"),
        ("uuid=GPU-a0", "idle_held xid_fatal"),
        ("quiet=true", "idle_held"),
        ("quiet=false&state=ongoing", "host_stale xid_fatal"),
        ("start_time=2026-03-01T14:30:00Z&end_time=2026-03-01T15:00:00Z", "host_stale xid_fatal"),
        ("end_time=2026-03-01T12:00:00Z", "xid_fatal"),
        ("tag=rack=r1", "idle_held host_stale xid_fatal"),
        ("tag=rack=r2", ""),
    ],
)
def test_filters(api: Api, fleet: Store, events: list[Event], query: str, rules: str) -> None:
    Host.objects.filter(name="host-a").update(tags={"rack": "r1"})
    body = api.get(f"{EVENTS}?{query}")
    assert rules_of(body) == rules.split()
    assert body["count"] == sum(body["by_severity"].values()) == len(body["data"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=broken", "use open, unknown, closed, ongoing, or several"),
        ("severity=bad", "severity 'bad' is not known: use info, warning or critical"),
        ("tag=rack", "use name=value"),
        ("tag=rack=", "use name=value"),
        ("tag=a:b=c", "use name=value"),
        ("quiet=yes", "true or false"),
        ("start_time=tomorrow", "is not a time"),
        ("cursor=x", "is not a cursor"),
        ("colour=red", "is not a known parameter"),
        ("page=1&cursor=WzE3NTI4NzEzNTQwMDAwMDAsMV0", "page and cursor exclude each other"),
    ],
)
def test_what_cannot_be_asked_is_said(api: Api, query: str, said: str) -> None:
    assert said in api.refused(f"{EVENTS}?{query}", 400)


def test_next_walks_through_the_list_while_events_come(api: Api) -> None:
    for number in range(7):
        make_event(entity=f"GPU-{number}", opened=NOON + (number // 3) * HOUR)
    whole = [event["id"] for event in api.get(EVENTS)["data"]]
    walked, url = [], f"{EVENTS}?page_size=2"
    while url:
        body = api.get(url)
        walked += [event["id"] for event in body["data"]]
        url = body["next"]
        make_event(entity=f"GPU-new-{len(walked)}", opened=NOON + 9 * HOUR)
    assert walked == whole
    assert [event["id"] for event in api.get(f"{EVENTS}?page=2&page_size=4")["data"]] == [
        event["id"] for event in api.get(EVENTS)["data"][4:8]
    ]


def test_a_list_takes_as_many_queries_for_many_as_for_one(
    api: Api, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    event = make_event()
    Mute.objects.create(rule="ecc_dbe", starts=NOON, expires=timezone.now() + HOUR)
    with django_assert_num_queries(5):  # counts, events, mutes, hosts and GPUs in maintenance
        api.get(EVENTS)
    for number in range(60):
        make_event(entity=f"GPU-{number}")
    with django_assert_num_queries(5):
        assert len(api.get(EVENTS)["data"]) == 61
    with django_assert_num_queries(5):
        assert api.get(f"{EVENTS}/{event.pk}")["count"] == 1


def test_one_event_has_its_steps_and_where_its_rule_comes_from(api: Api, events: list[Event]) -> None:
    event = acknowledge(events[0], "ada", "on it")
    body = api.get(f"{EVENTS}/{event.pk}")
    opened, acknowledged = body["transitions"]
    assert (opened["kind"], opened["at"], opened["severity"], opened["text"]) == (
        "opened", "2026-03-01T12:00:00Z", "critical", event.summary,
    )  # fmt: skip
    assert (acknowledged["kind"], acknowledged["user"], acknowledged["note"]) == ("acknowledged", "ada", "on it")
    assert body["source"] == rules_now()["xid_fatal"].source
    assert body["disagreement"] == rules_now().xids[79].disagree
    assert body["acknowledged_by"] == "ada"
    assert "there is no event '999'" in api.refused(f"{EVENTS}/999", 404)
    assert "there is nothing at" in api.refused(f"{EVENTS}/{'9' * 40}", 404)


def test_of_very_many_steps_the_newest_are_shown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.events.MOST_TRANSITIONS", 3)
    event = make_event()
    for number in range(5):
        EventTransition.objects.create(event=event, kind="repeated", at=NOON + number * HOUR, recorded=NOON)
    steps = api.get(f"{EVENTS}/{event.pk}")["transitions"]
    assert [step["at"][11:13] for step in steps] == ["14", "15", "16"]


def test_an_event_of_a_rule_that_is_gone_is_shown_by_its_name(api: Api) -> None:
    event = make_event("my_rule", action="dance")
    body = api.get(f"{EVENTS}/{event.pk}")
    assert (body["title"], body["action_text"], body["source"]) == ("my_rule", "dance", "")


def test_a_mute_and_maintenance_silence_what_is_ongoing(api: Api, fleet: Store, events: list[Event]) -> None:
    until = (timezone.now() + HOUR).replace(microsecond=0)
    Mute.objects.create(hostname="host-a", starts=NOON, expires=until)
    Mute.objects.create(rule="temp_high", starts=NOON, expires=until)
    found = {event["rule"]: event for event in api.get(EVENTS)["data"]}
    assert {rule: event["muted"] for rule, event in found.items()} == {
        "xid_fatal": True, "temp_high": False, "host_stale": True, "idle_held": True,
    }  # fmt: skip
    assert datetime.fromisoformat(found["xid_fatal"]["muted_until"]) == until
    Host.objects.filter(name="host-a").update(asset_state="maintenance")
    again = api.get(f"{EVENTS}/{events[0].pk}")
    assert (again["muted"], again["muted_until"]) == (True, None)


def test_events_over_time_and_the_rules_with_most(api: Api, events: list[Event]) -> None:
    body = api.get(f"{EVENTS}/summary?start_time=2026-03-01T12:00:00Z&end_time=2026-03-01T16:00:00Z&every=1h")
    assert (body["every"], body["start_time"], body["end_time"]) == (
        "1h",
        "2026-03-01T12:00:00Z",
        "2026-03-01T16:00:00Z",
    )
    assert [(start[11:13], counts["critical"], counts["warning"]) for start, counts in body["over_time"]] == [
        ("12", 1, 0), ("13", 1, 1), ("14", 1, 1), ("15", 1, 1),
    ]  # fmt: skip
    top = {each["rule"]: (each["count"], each["duration_seconds"]) for each in body["top"]}
    assert top == {"xid_fatal": (1, 4 * 3600.0), "temp_high": (1, 3600.0), "host_stale": (1, 3600.0)}
    assert body["top"][0]["title"] == rules_now()["xid_fatal"].title
    few = api.get(f"{EVENTS}/summary?start_time=2026-03-01T12:00:00Z&end_time=2026-03-01T16:30:00Z&top=1&severity=info")
    assert [each["rule"] for each in few["top"]] == ["idle_held"]
    assert len(few["over_time"]) <= 300


def test_the_summary_of_the_last_day_without_events(
    api: Api, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(2):
        body = api.get(f"{EVENTS}/summary")
    assert body["top"] == []
    assert len(body["over_time"]) in {288, 289}
    assert "end_time must be later" in api.refused(f"{EVENTS}/summary?start_time=-1h&end_time=-2h", 400)
    assert "out of range" in api.refused(f"{EVENTS}/summary?every=1ms", 400)


@pytest.mark.parametrize("path", ["", "/summary"])
def test_a_browser_gets_a_page(api: Api, events: list[Event], path: str) -> None:
    page = api.ask(EVENTS + path, accept="text/html")
    assert page.status_code == 200
    assert b"xid_fatal" in page.content or path


def test_a_browser_gets_the_page_of_one_event(api: Api, events: list[Event]) -> None:
    page = api.ask(f"{EVENTS}/{events[0].pk}", accept="text/html").content.decode()
    assert "Transitions" in page
    assert rules_now()["xid_fatal"].title in page


def test_a_range_with_too_many_events_is_refused_in_words(
    api: Api, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{EVENTS}/summary?start_time=2026-03-01T12:00:00Z&end_time=2026-03-01T16:00:00Z"
    monkeypatch.setattr("api.views.events.MOST_SPANS", 2)
    assert "more than 2 events are in this range" in api.refused(path, 400)
    monkeypatch.setattr("api.views.events.MOST_SPANS", 3)
    assert len(api.get(path)["top"]) == 3
