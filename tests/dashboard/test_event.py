"""dashboard.views.event: the page of one event, and what people may do there."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.test import Client
from django.utils import timezone

from dashboard.views.event import figures_of, metrics_of, window_of
from health.models import Event, EventTransition, Mute, Resolution
from health.rule_table import rules_now
from readings.mig import UTILISATION
from tests.dashboard.reading import html, text_of
from tests.dashboard.test_page import page_data
from tests.health.building import NOON, make_event

pytestmark = pytest.mark.django_db


@pytest.fixture
def event() -> Event:
    return make_event(pod="train-7", namespace="ml", action="contact_support")


@pytest.fixture
def keeper(client: Client) -> User:
    """A user of the staff who may change events and mute, and who is logged in."""
    user = User.objects.create_user("ada", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("change_event", "add_mute")))
    client.force_login(user)
    return user


def act(client: Client, event: Event, **form: str) -> Any:
    return client.post(f"/events/{event.pk}", form)


def test_it_says_what_where_since_when_and_what_to_do(client: Client, event: Event) -> None:
    text = text_of(html(client, f"/events/{event.pk}"))
    for words in (
        "90 °C, limit 85 °C",
        "node-1 · gpu 0 · 00000000",
        "Pod ml/train-7",
        "2026-03-01 12:00:00",
        "Look at the host's cooling",
        "value 90 limit 85",
        "Numbers from l9gpu",
        "Opened",
    ):
        assert words in text, words


def test_the_gpu_at_that_time_is_one_click_away(client: Client, event: Event) -> None:
    body = html(client, f"/events/{event.pk}")
    assert f'href="/gpus/{event.entity}?start=2026-03-01T11:30:00Z&amp;end=2026-03-01T12:30:00Z"' in body


def test_where_sources_differ_on_an_xid_it_says_so(client: Client) -> None:
    event = make_event(rule="xid_app", subject="32")
    assert "Sources differ NVIDIA: restart the application. gpud: fatal" in text_of(html(client, f"/events/{event.pk}"))


def test_what_happened_names_who_did_what(client: Client, event: Event, keeper: User) -> None:
    act(client, event, do="acknowledge", note="fan\nordered")
    act(client, event, do="note", note="fan came")
    text = text_of(html(client, f"/events/{event.pk}").split('id="steps"')[1])
    assert re.search(r"Noted by ada fan came .* Acknowledged by ada fan ordered .* Opened", text)


def test_the_same_before_is_listed(client: Client, event: Event) -> None:
    make_event(state="closed", opened=NOON - timedelta(days=1), closed=NOON - timedelta(hours=20), summary="95 °C")
    make_event(state="closed", opened=NOON - timedelta(days=1), closed=NOON, entity="GPU-other", summary="other")
    text = text_of(html(client, f"/events/{event.pk}").split("The same before")[1].split("</section>")[0])
    assert "for 4 h" in text
    assert "95 °C" in text
    assert "other" not in text


@pytest.mark.parametrize("number", ["0", "7", "9" * 18, "9" * 40])
def test_an_event_that_is_not_there_is_a_404_that_says_so(client: Client, number: str) -> None:
    response = client.get(f"/events/{number}")
    assert response.status_code == 404
    assert "There is no event" in response.content.decode()
    assert client.post(f"/events/{number}", {"do": "resolve"}).status_code == 404


# What people do


def test_acknowledge_resolve_and_note(client: Client, event: Event, keeper: User) -> None:
    response = act(client, event, do="acknowledge", note="mine")
    assert (response.status_code, response["Location"]) == (303, f"/events/{event.pk}")
    event.refresh_from_db()
    assert (event.acknowledged_by, event.state) == ("ada", "open")
    assert act(client, event, do="resolve", note="fan replaced").status_code == 303
    event.refresh_from_db()
    assert (event.state, event.resolved_by) == ("closed", "ada")
    assert Resolution.objects.filter(rule=event.rule, entity=event.entity).exists()
    assert act(client, event, do="note", note="really").status_code == 303
    kinds = list(EventTransition.objects.filter(event=event).values_list("kind", flat=True))
    assert kinds == ["opened", "acknowledged", "resolved", "noted"]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("here", {"rule": "temp_high", "gpu": "GPU-00000000-0000-0000-0000-000000000001", "hostname": ""}),
        ("host", {"rule": "", "gpu": "", "hostname": "node-1"}),
        ("rule", {"rule": "temp_high", "gpu": "", "hostname": ""}),
    ],
)
def test_a_mute_has_its_scope_its_end_and_its_author(
    client: Client, event: Event, keeper: User, scope: str, expected: dict[str, str]
) -> None:
    assert act(client, event, do="mute", scope=scope, length="8h", note="fans").status_code == 303
    mute = Mute.objects.get()
    assert {name: getattr(mute, name) for name in expected} == expected
    assert (mute.created_by, mute.note) == ("ada", "fans")
    assert abs(mute.expires - timezone.now() - timedelta(hours=8)) < timedelta(minutes=1)
    assert "muted until" in html(client, f"/events/{event.pk}")


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        ({"do": "delete"}, 400, "must be acknowledge, resolve, note or mute"),
        ({}, 400, "must be acknowledge, resolve, note or mute"),
        ({"do": "note", "note": " "}, 400, "The note is empty."),
        ({"do": "note", "note": "x" * 4001}, 400, "4,001 characters"),
        ({"do": "note", "note": "a\x00b"}, 400, "control characters"),
        ({"do": "mute", "length": "9y"}, 400, "must be one of 1h, 8h"),
        ({"do": "mute", "length": "1h", "scope": "all"}, 400, "What is muted must be"),
    ],
)
def test_what_cannot_be_done_is_said_on_the_page(
    client: Client, event: Event, keeper: User, form: dict[str, str], status: int, words: str
) -> None:
    response = act(client, event, **form)
    assert response.status_code == status
    assert words in text_of(response.content.decode())
    assert EventTransition.objects.count() == 1
    assert not Mute.objects.exists()


def test_a_closed_event_takes_notes_only(client: Client, event: Event, keeper: User) -> None:
    Event.objects.update(state="closed", closed=NOON)
    for do in ("acknowledge", "resolve"):
        response = act(client, event, do=do)
        assert response.status_code == 409
        assert "takes notes only" in response.content.decode()
    body = html(client, f"/events/{event.pk}")
    assert 'value="note"' in body
    assert 'value="resolve"' not in body


@pytest.mark.parametrize("who", ["nobody", "reader", "staff"])
@pytest.mark.parametrize("do", ["acknowledge", "resolve", "note", "mute"])
def test_others_can_only_read(client: Client, event: Event, who: str, do: str) -> None:
    if who != "nobody":
        client.force_login(User.objects.create_user(who, is_staff=who == "staff"))
    else:
        assert AnonymousUser().is_anonymous
    assert '<form method="post" class="event-form"' not in html(client, f"/events/{event.pk}")
    assert act(client, event, do=do, note="x", length="1h").status_code == 403
    event.refresh_from_db()
    assert (event.state, event.acknowledged) == ("open", None)
    assert EventTransition.objects.count() == 1
    assert not Mute.objects.exists()


def test_a_form_without_the_token_against_forgery_is_refused(event: Event) -> None:
    strict = Client(enforce_csrf_checks=True)
    user = User.objects.create_superuser("root")
    strict.force_login(user)
    assert strict.post(f"/events/{event.pk}", {"do": "resolve"}).status_code == 403
    body = strict.get(f"/events/{event.pk}").content.decode()
    found = re.search(r'class="event-form">\s*<input type="hidden" name="csrfmiddlewaretoken" value="(\w+)"', body)
    assert found is not None
    form = {"do": "resolve", "csrfmiddlewaretoken": found[1]}
    assert strict.post(f"/events/{event.pk}", form).status_code == 303


def test_markup_in_names_and_notes_is_text(client: Client, keeper: User) -> None:
    hostile = "</script><script>alert(1)</script>"
    event = make_event(hostname=hostile, pod=hostile, summary=hostile, subject="<b>", details={hostile: hostile})
    act(client, event, do="note", note=hostile)
    body = html(client, f"/events/{event.pk}")
    assert "<script>alert" not in body
    assert body.count("&lt;script&gt;alert(1)") >= 5


# What the charts show


def test_the_charts_have_the_metric_behind_it_its_mark_and_its_limit(client: Client, event: Event) -> None:
    found = page_data(html(client, f"/events/{event.pk}"))["event"]
    noon_ms = round(NOON.timestamp() * 1000)
    assert found["mark"] == {"time": noon_ms, "until": None, "kind": "warning", "text": "Hot core: 90 °C, limit 85 °C"}
    assert (found["gpu"], found["host"], found["limit"]) == (event.entity, "node-1", 85.0)
    assert found["start"] == noon_ms - 1_800_000


def test_the_metrics_of_a_rule_are_those_that_the_fleet_sends() -> None:
    rules = rules_now()
    sent = ["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_UTIL", "DCGM_EXP_XID_ERRORS_COUNT:xid:79"]
    assert metrics_of(rules["temp_high"], sent) == ["DCGM_FI_DEV_GPU_TEMP"]
    assert metrics_of(rules["xid_fatal"], sent) == ["DCGM_EXP_XID_ERRORS_COUNT"]
    assert metrics_of(rules["host_stale"], sent) == metrics_of(None, sent) == [UTILISATION]


def test_the_charts_end_half_an_hour_after_the_event_and_not_after_now() -> None:
    half = timedelta(minutes=30)
    event = make_event(state="closed", closed=NOON + timedelta(minutes=10))
    assert window_of(event, NOON + timedelta(days=1)) == (NOON - half, NOON + timedelta(minutes=40))
    assert window_of(event, NOON + timedelta(minutes=20)) == (NOON - half, NOON + timedelta(minutes=20))
    event.closed = NOON + timedelta(days=9)
    assert window_of(event, NOON + timedelta(days=10)) == (NOON - half, NOON + half)


def test_figures_of_any_kind_become_text() -> None:
    found = figures_of({"a": 1.0, "b": 1234567.25, "c": "x", "d": True, "e": float("nan")})
    assert [each.text for each in found] == ["1", "1.23457e+06", "x", "True", "nan"]
    assert figures_of(["no", "names"]) == []
