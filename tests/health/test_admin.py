"""health.admin, health.roles: events, mutes and notices in the admin, who may do what, and what pages cost."""

from __future__ import annotations

from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from health.models import Event, EventState, Mute, Notice, Resolution, WatchState
from health.rule_table import rules_now
from inventory.models import Host
from inventory.roles import OPERATORS, VIEWERS
from tests.health.building import NOON, make_event
from tests.inventory.building import UTIL, block, gpu, save
from tests.inventory.test_admin import cells, page
from tests.inventory.test_asset_admin import login

pytestmark = pytest.mark.django_db

EVENTS = "/admin/health/event/"
MUTES = "/admin/health/mute/"
NOTICES = "/admin/health/notice/"
WATCH = "/admin/health/watchstate/"
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _plain_rules(settings: Settings) -> None:
    settings.HEALTH_RULES = ""


@pytest.fixture
def staff() -> Client:
    return login()


def act(client: Client, url: str, action: str, rows: list[Any], note: str | None = None, **more: str) -> str:
    """The page after an action: the asking one, or with a note the list."""
    data: dict[str, Any] = {
        "action": action,
        "_selected_action": [row.pk for row in rows],
        "select_across": "0",
        **more,
    }
    if note is not None:
        data |= {"apply": "1", "note": note}
    return unescape(client.post(url, data, follow=True).content.decode())


def test_the_list_shows_what_is_wrong_and_can_be_narrowed(staff: Client) -> None:
    make_event("ecc_dbe", severity="critical", opened=NOON + HOUR)
    make_event("temp_high", entity="GPU-b", hostname="node-2", state=EventState.CLOSED, closed=NOON)
    make_event("host_stale", entity_kind="host", entity="node-3", hostname="node-3", state=EventState.UNKNOWN)
    Mute.objects.create(rule="ecc_dbe", starts=NOON, expires=timezone.now() + HOUR)
    Host.objects.create(name="node-3", first_seen=NOON, last_seen=NOON, asset_state="maintenance")

    def rules(query: str = "") -> list[str]:
        html = page(staff, f"{EVENTS}?{query}")
        return [row["rule"] for row in cells(html)] if "<tbody>" in html else []

    assert rules() == ["ecc_dbe", "host_stale", "temp_high"]
    assert rules("state=ongoing") == ["ecc_dbe", "host_stale"]
    assert rules("state=closed") == ["temp_high"]
    assert rules("severity=critical") == ["ecc_dbe"]
    assert rules("rule=host_stale") == ["host_stale"]
    assert rules("q=node-2") == ["temp_high"]
    assert rules("o=-2") == ["host_stale", "temp_high", "ecc_dbe"]  # the worst last
    muted = {row["rule"]: row["silence"] for row in cells(page(staff, EVENTS))}
    assert muted["ecc_dbe"].startswith("until ")
    assert (muted["host_stale"], muted["temp_high"]) == ("in maintenance", "–")


def test_an_event_shows_its_steps_and_nothing_can_be_typed(staff: Client) -> None:
    event = make_event("temp_high", details={"value": 91.5})
    act(staff, EVENTS, "acknowledge_events", [event], "looking <at> it")
    html = page(staff, f"{EVENTS}{event.pk}/change/")
    for text in (rules_now()["temp_high"].title, "91.5", "looking &lt;at&gt; it", "root", f"/events/{event.pk}"):
        assert text in html
    assert 'type="text"' not in html.split('id="content"')[1]
    assert staff.post(f"{EVENTS}{event.pk}/change/", {"severity": "info"}).status_code == 403
    assert staff.get(f"{EVENTS}add/").status_code == staff.get(f"{EVENTS}{event.pk}/delete/").status_code == 403


def test_many_are_acknowledged_once_a_page_has_asked_why(staff: Client) -> None:
    events = [make_event(entity=f"GPU-{n}") for n in range(3)]
    over = make_event(entity="GPU-x", state=EventState.CLOSED)
    asking = act(staff, EVENTS, "acknowledge_events", [*events, over])
    assert "3 events. What is closed already is left out." in asking
    assert 'value="Acknowledge"' in asking
    assert not Event.objects.exclude(acknowledged=None).exists()
    done = act(staff, EVENTS, "acknowledge_events", [*events, over], "fans")
    assert "Changed 3 of 3 events." in done
    assert set(Event.objects.exclude(acknowledged=None).values_list("acknowledged_by", flat=True)) == {"root"}
    assert LogEntry.objects.count() == 3
    assert "Changed acknowledged: fans." in unescape(page(staff, "/admin/admin/logentry/"))
    assert "Changed acknowledged: fans." in unescape(page(staff, f"{EVENTS}{events[0].pk}/history/"))


def test_many_are_resolved(staff: Client) -> None:
    events = [make_event(entity=f"GPU-{n}") for n in range(3)]
    assert "Changed 3 of 3 events." in act(staff, EVENTS, "resolve_events", events[:1], "", select_across="1")
    assert Resolution.objects.count() == 3
    assert "All of the selected are closed." in act(staff, EVENTS, "resolve_events", events)


@pytest.mark.parametrize(("action", "hours"), [("mute_1h", 1), ("mute_8h", 8), ("mute_7d", 168)])
def test_what_many_are_about_is_muted_for_a_while(staff: Client, action: str, hours: int) -> None:
    events = [make_event("xid_app", subject=subject) for subject in ("13", "31")]
    assert "Added 1 mutes for 2 events." in act(staff, EVENTS, action, events, "bench")
    mute = Mute.objects.get()
    assert (mute.rule, mute.gpu, mute.created_by, mute.note) == ("xid_app", events[0].entity, "root", "bench")
    assert abs(mute.expires - mute.starts - hours * HOUR) < timedelta(seconds=1)
    assert [entry.get_change_message() for entry in LogEntry.objects.all()] == ["Added."]


def test_too_much_at_once_is_refused(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.admin.MOST_ACTED_ON", 2)
    events = [make_event(entity=f"GPU-{n}") for n in range(3)]
    assert "Select at most 2 events." in act(staff, EVENTS, "resolve_events", events, "")
    monkeypatch.setattr("health.muting.MOST_MUTES", 1)
    assert "Nothing is muted: more than 1 mutes" in act(staff, EVENTS, "mute_1h", events[:2], "x")
    assert "maxlength" in act(staff, EVENTS, "mute_1h", events[:2])
    assert "at most 512 characters" in act(staff, EVENTS, "mute_1h", events[:2], "n" * 513)
    assert not Mute.objects.exists()


def new_mute(**fields: str) -> dict[str, str]:
    end = timezone.now() + 2 * HOUR
    blank = {"rule": "", "hostname": "", "gpu": "", "tag": "", "tag_value": "", "note": ""}
    return blank | {"expires_0": f"{end:%Y-%m-%d}", "expires_1": f"{end:%H:%M}"} | fields


def test_a_mute_is_added_and_ended_and_never_changed(staff: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    assert "Expires" in page(staff, f"{MUTES}add/")
    answer = staff.post(f"{MUTES}add/", new_mute(rule="temp_high", hostname="host-1", note="fans"))
    assert answer.status_code == 302, answer.content
    mute = Mute.objects.get()
    assert (str(mute), mute.created_by, mute.note) == ("temp_high · host-1", "root", "fans")
    assert timezone.now() - mute.starts < timedelta(minutes=1)
    html = page(staff, f"{MUTES}{mute.pk}/change/")
    assert "temp_high · host-1" in html
    assert staff.post(f"{MUTES}{mute.pk}/change/", new_mute(rule="ecc_dbe")).status_code == 403
    assert "Ended 1 mutes." in act(staff, MUTES, "end_mutes", [mute])
    assert "Ended 0 mutes." in act(staff, MUTES, "end_mutes", [mute])
    mute.refresh_from_db()
    assert mute.expires <= timezone.now()
    assert [len(cells(page(staff, f"{MUTES}?state={state}"))) if count else 0 for state, count in (("ended", 1),)] == [
        1
    ]
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")] == [
        "Added.",
        "Changed ended by root.",
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "the mute fits everything"),
        ({"rule": "temp_hihg"}, "not one of the available choices"),
        ({"hostname": "nowhere"}, "hostname 'nowhere' is not known"),
        ({"gpu": "GPU-zz"}, "gpu 'GPU-zz' is not known"),
        ({"tag": "rack"}, "tag and tag_value belong together"),
        ({"rule": "temp_high", "expires_0": "2020-01-01"}, "from one minute to 366 days"),
        ({"rule": "temp_high", "expires_0": "soon"}, "valid date"),
    ],
)
def test_a_mute_that_cannot_be_is_said_at_its_field(staff: Client, fields: dict[str, str], problem: str) -> None:
    answer = staff.post(f"{MUTES}add/", new_mute(**fields))
    assert answer.status_code == 200
    assert problem in unescape(answer.content.decode())
    assert not Mute.objects.exists()


def test_a_notice_is_sent_again(staff: Client) -> None:
    event = make_event()
    fields = {"event": event, "kind": "opened", "created": NOON, "due": NOON}
    Notice.objects.create(
        channel="mail",
        key="a",
        sent=NOON,
        outcome="given up",
        attempts=9,
        last_error="550 no",
        message="m",
        tried=NOON,
        **fields,
    )
    Notice.objects.create(channel="chat", key="b", sent=NOON, outcome="sent", attempts=1, **fields)
    assert "550 no" in page(staff, NOTICES)
    Notice.objects.create(channel="mail", key="c", attempts=3, message="m", **fields)
    chosen = Notice.objects.filter(channel="mail")
    assert "1 notices will be sent again." in act(staff, NOTICES, "send_notices_again", list(chosen))
    notice = chosen.get(key="a")
    assert (notice.sent, notice.outcome, notice.attempts, notice.last_error) == (None, "", 0, "")
    assert (notice.message, notice.tried) == ("", None)
    assert chosen.get(key="c").attempts == 3  # it may be on its way
    assert timezone.now() - notice.due < timedelta(minutes=1)
    assert Notice.objects.get(channel="chat").sent == NOON


def test_the_state_of_watch_is_shown_without_its_blobs(staff: Client) -> None:
    WatchState.objects.create(pk=1, holder="node-9", judged=12, engine=b"x" * 5000, usage=b"y" * 5000)
    with CaptureQueriesContext(connection) as queries:
        html = page(staff, WATCH) + page(staff, f"{WATCH}1/change/")
    assert "node-9" in html
    assert not any(
        '"engine"' in query["sql"] or '"usage"' in query["sql"] for query in queries if "watchstate" in query["sql"]
    )


def test_pages_cost_the_same_however_much_there_is(staff: Client) -> None:
    def make(count: int, name: str) -> None:
        for number in range(count):
            event = make_event(entity=f"GPU-{name}-{number}")
            Notice.objects.create(event=event, kind="opened", channel="mail", key=event.entity, created=NOON, due=NOON)
            Mute.objects.create(gpu=event.entity, starts=NOON, expires=timezone.now() + HOUR)

    def costs() -> list[int]:
        found = []
        for path in (EVENTS, f"{EVENTS}?state=ongoing&q=GPU", MUTES, NOTICES, f"{EVENTS}{first.pk}/change/"):
            with CaptureQueriesContext(connection) as queries:
                page(staff, path)
            found.append(len(queries))
        return found

    make(1, "a")
    first = Event.objects.get()
    before = costs()
    make(40, "b")
    assert costs() == before
    assert max(before) <= 12


def test_what_each_group_may_do(settings: Settings) -> None:
    event = make_event()
    mute = Mute.objects.create(rule="temp_high", starts=NOON, expires=timezone.now() + HOUR)
    viewer, operator = login(VIEWERS), login(OPERATORS)
    for client in (viewer, operator):
        for path in (EVENTS, MUTES, NOTICES, WATCH, f"{EVENTS}{event.pk}/change/", f"{MUTES}{mute.pk}/change/"):
            assert client.get(path).status_code == 200, path
        assert client.get(f"{MUTES}{mute.pk}/delete/").status_code == 403
    assert viewer.get(f"{MUTES}add/").status_code == 403
    for action in ("acknowledge_events", "resolve_events", "mute_1h"):
        act(viewer, EVENTS, action, [event], "x")
    act(viewer, MUTES, "end_mutes", [mute])
    event.refresh_from_db()
    mute.refresh_from_db()
    assert (event.state, event.acknowledged, Mute.objects.count()) == ("open", None, 1)
    assert mute.expires > timezone.now()
    assert operator.get(f"{MUTES}add/").status_code == 200
    assert "Changed 1 of 1 events." in act(operator, EVENTS, "acknowledge_events", [event], "x")
    assert "Added 1 mutes" in act(operator, EVENTS, "mute_1h", [event], "x")
    assert "Ended 1 mutes." in act(operator, MUTES, "end_mutes", [mute])
