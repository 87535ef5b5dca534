"""api.views.events, api.views.mutes, api.auth.changing, api.bodies: who may change something, by which body, and what it does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from api.auth.tokens import make_token
from health.models import Event, EventState, Mute, Resolution
from stores.base import Store
from tests.health.building import NOON, make_event

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
MUTES = "/api/v1/mutes"


@pytest.fixture
def event() -> Event:
    return make_event()


def path_of(event: Event, action: str) -> str:
    return f"/api/v1/events/{event.pk}/{action}"


class Asking:
    """Asks with a token or a session."""

    def __init__(self, client: Client, **headers: str) -> None:
        self.client, self.headers = client, headers

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.generic(method, path, data, content_type=content_type, headers=self.headers)

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.ask("POST", path, body)
        assert answer.status_code == status, answer.content
        return answer.json()

    def refused(self, path: str, body: Any, status: int = 400) -> str:
        found = self.post(path, body, status)
        assert set(found) == {"error", "message"}
        assert "\n" not in found["message"]
        return str(found["message"])


def with_token(scope: str = "admin") -> Asking:
    return Asking(Client(), authorization=f"Bearer {make_token(f'pager-{scope}', scope)[1]}")


def staff(*permissions: str, is_staff: bool = True) -> Asking:
    """A browser of a person with these permissions, with the token of one of its pages."""
    person = User.objects.create_user("ada", is_staff=is_staff)
    person.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    client = Client(enforce_csrf_checks=True)
    client.force_login(person)
    page = client.get("/admin/login/" if not is_staff else "/admin/password_change/").content.decode()
    mark = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert mark is not None
    return Asking(client, **{"x-csrftoken": mark[1]})


WRITES = ("acknowledge", "resolve", "note")


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("action", WRITES)
def test_nobody_writes_unknown_also_where_everybody_reads(
    event: Event, settings: Settings, required: bool, action: str
) -> None:
    settings.API_AUTH_REQUIRED = required
    nobody = Asking(Client())
    for method, path in (("POST", path_of(event, action)), ("POST", MUTES), ("DELETE", f"{MUTES}/1")):
        answer = nobody.ask(method, path, {"note": "x"})
        assert answer.status_code == 401, path
        assert answer["WWW-Authenticate"].startswith("Bearer")
    assert event.transitions.count() == 1


@pytest.mark.parametrize("path", [*(f"/api/v1/events/1/{action}" for action in WRITES), MUTES])
def test_a_token_needs_the_scope_admin(path: str) -> None:
    assert with_token("read").refused(path, {"note": "x"}, 403) == "the scope admin is required; yours is read"


def test_a_token_of_the_scope_admin_writes_under_its_name(event: Event) -> None:
    asking = with_token()
    body = asking.post(path_of(event, "acknowledge"), {"note": "on it"})
    assert (body["acknowledged_by"], body["transitions"][-1]["user"]) == ("token pager-admin", "token pager-admin")
    assert asking.post(path_of(event, "acknowledge"))["transitions"] == body["transitions"]  # no body, and done already
    body = asking.post(path_of(event, "note"), {"note": "fan\nreplaced"})
    assert (body["transitions"][-1]["kind"], body["transitions"][-1]["note"]) == ("noted", "fan\nreplaced")
    body = asking.post(path_of(event, "resolve"), {})
    assert (body["state"], body["resolved_by"]) == ("closed", "token pager-admin")
    assert Resolution.objects.count() == 1
    assert not LogEntry.objects.exists()


def test_a_person_needs_the_permission_and_to_be_staff(event: Event) -> None:
    asking = staff("change_event")
    assert asking.post(path_of(event, "acknowledge"), {"note": "x"})["acknowledged_by"] == "ada"
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id) == ("ada", str(event.pk))
    assert "health.add_mute" in asking.refused(MUTES, {"rule": "temp_high", "for": "2h"}, 403)
    User.objects.update(is_staff=False)
    assert "a user of the staff" in asking.refused(path_of(event, "acknowledge"), {}, 403)


@pytest.mark.parametrize("permissions", [(), ("view_event",), ("add_mute",)])
def test_a_person_without_the_permission_changes_nothing(event: Event, permissions: tuple[str, ...]) -> None:
    assert "health.change_event" in staff(*permissions).refused(path_of(event, "resolve"), {}, 403)
    event.refresh_from_db()
    assert event.state == "open"


def test_a_login_alone_is_not_enough_against_forged_requests(event: Event) -> None:
    asking = staff("change_event", "add_mute", "change_mute")
    mute = Mute.objects.create(rule="temp_high", starts=NOON, expires=timezone.now() + HOUR)
    own = dict(asking.headers)
    for headers in (
        {},
        {"x-csrftoken": "x" * 64},
        {"x-csrftoken": own["x-csrftoken"], "origin": "https://evil.example"},
    ):
        forged = Asking(asking.client, **headers)
        for method, path in (
            ("POST", path_of(event, "acknowledge")),
            ("POST", MUTES),
            ("DELETE", f"{MUTES}/{mute.pk}"),
        ):
            answer = forged.ask(method, path, {"rule": "temp_high", "for": "2h"} if path == MUTES else {})
            assert answer.status_code == 403, (headers, path)
            assert "X-CSRFToken" in answer.json()["message"]
    event.refresh_from_db()
    assert event.acknowledged is None
    assert Mute.objects.count() == 1
    asking.post(path_of(event, "acknowledge"))


def test_what_is_closed_takes_notes_only() -> None:
    event = make_event(state=EventState.CLOSED, closed=NOON)
    asking = with_token()
    for action in ("acknowledge", "resolve"):
        assert asking.refused(path_of(event, action), {}, 409) == f"event {event.pk} is closed: it takes notes only"
    assert asking.post(path_of(event, "note"), {"note": "PSU"})["transitions"][-1]["note"] == "PSU"


def test_other_methods_are_not_there(event: Event) -> None:
    asking = with_token()
    for path, method in (
        ("/api/v1/events", "POST"),
        (f"/api/v1/events/{event.pk}", "DELETE"),
        (path_of(event, "resolve"), "GET"),
        (path_of(event, "resolve"), "PUT"),
        (MUTES, "DELETE"),
        ("/api/v1/rules", "POST"),
    ):
        answer = asking.ask(method, path, {})
        assert answer.status_code == 405, path
        assert answer["Allow"]
    assert asking.refused("/api/v1/events/999/resolve", {}, 404) == "there is no event '999'"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{bad", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        ([], "the body cannot be used"),
        ({"note": 1}, "$.note"),
        ({"note": "x", "colour": "red"}, "unknown field `colour`; known here: note"),
        ({"note": "n" * 4001}, "$.note"),
        ({"note": "a\0b"}, "note holds control characters"),
        ({}, "missing required field `note`"),
        ({"note": ""}, "$.note"),
    ],
)
def test_a_body_that_cannot_be_used_is_said(event: Event, body: Any, said: str) -> None:
    assert said in with_token().refused(path_of(event, "note"), body)
    assert event.transitions.count() == 1


def test_a_body_is_json_and_a_post_has_no_parameters(event: Event) -> None:
    asking = with_token()
    answer = asking.ask("POST", path_of(event, "note"), b"note=x", "application/x-www-form-urlencoded")
    assert (answer.status_code, answer.json()["error"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["message"]
    assert "'note' is not a known parameter" in asking.refused(f"{path_of(event, 'acknowledge')}?note=x", {})


def test_an_action_takes_few_queries(event: Event, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    asking = with_token()
    asking.post(path_of(event, "note"), {"note": "the token is looked up once"})
    with django_assert_max_num_queries(12):
        asking.post(path_of(event, "resolve"), {"note": "x"})


def test_a_mute_counts_at_once_and_ends_when_told(event: Event, fleet: Store, settings: Settings) -> None:
    settings.FLEET_SECONDS = 60.0
    asking = with_token()
    assert asking.ask("GET", f"/api/v1/events/{event.pk}").json()["muted"] is False
    made = asking.ask("POST", MUTES, {"rule": "temp_high", "hostname": "host-a", "for": "2h", "note": "fans"})
    assert made.status_code == 201
    body = made.json()
    assert made["Location"] == body["url"] == f"http://testserver{MUTES}/{body['id']}"
    length = datetime.fromisoformat(body["expires"]) - datetime.fromisoformat(body["starts"])
    assert abs(length - 2 * HOUR) < timedelta(seconds=1)
    assert (body["rule"], body["hostname"], body["state"], body["created_by"], body["note"]) == (
        "temp_high", "host-a", "active", "token pager-admin", "fans",
    )  # fmt: skip
    Event.objects.update(hostname="host-a")
    assert asking.ask("GET", f"/api/v1/events/{event.pk}").json()["muted"] is True
    assert [mute["id"] for mute in asking.ask("GET", MUTES).json()["data"]] == [body["id"]]
    ended = asking.ask("DELETE", f"{MUTES}/{body['id']}").json()
    assert ended["state"] == "ended"
    assert asking.ask("DELETE", f"{MUTES}/{body['id']}").json() == ended
    assert asking.ask("GET", f"/api/v1/events/{event.pk}").json()["muted"] is False
    assert asking.ask("GET", MUTES).json()["count"] == 0
    assert asking.ask("GET", f"{MUTES}?state=ended").json()["data"] == [ended]
    assert asking.ask("GET", f"{MUTES}?state=all").json()["count"] == 1
    assert asking.ask("GET", f"{MUTES}/999").status_code == asking.ask("DELETE", f"{MUTES}/999").status_code == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"for": "2h"}, "give it a rule, a hostname, a gpu or a tag"),
        ({"rule": "temp_hihg", "for": "2h"}, "rule 'temp_hihg' is not known: see /api/v1/rules"),
        ({"rule": "temp_high"}, "give either for, as 2h, or expires"),
        ({"rule": "temp_high", "for": "2h", "expires": "2099-01-01T00:00:00Z"}, "give either for"),
        ({"rule": "temp_high", "for": "soon"}, "for 'soon'"),
        ({"rule": "temp_high", "for": "5s"}, "from one minute to 366 days"),
        ({"rule": "temp_high", "for": "999d"}, "from one minute to 366 days"),
        ({"rule": "temp_high", "expires": "2020-01-01T00:00:00Z"}, "from one minute to 366 days"),
        ({"rule": "temp_high", "expires": "tomorrow"}, "expires 'tomorrow'"),
        ({"hostname": "nowhere", "for": "2h"}, "hostname 'nowhere' is not known"),
        ({"gpu": "GPU-zz", "for": "2h"}, "gpu 'GPU-zz' is not known"),
        ({"gpu": "nowhere/6", "for": "2h"}, "gpu 'nowhere/6' is not known"),
        ({"tag": "rack", "for": "2h"}, "tag and tag_value belong together"),
        ({"tag": "1", "tag_value": "x", "for": "2h"}, "is no tag: a name begins with a letter"),
    ],
)
def test_a_mute_that_cannot_be_is_said(fleet: Store, body: dict[str, str], said: str) -> None:
    assert said in with_token().refused(MUTES, body)
    assert not Mute.objects.exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"gpu": "GPU-a0", "for": "1m"},
        lambda: {"gpu": "GPU-b0:3", "for": "7d"},
        lambda: {"gpu": "host-a/6", "for": "1h30m"},
        lambda: {"tag": "rack", "tag_value": "r12", "expires": (timezone.now() + HOUR).isoformat()},
    ],
)
def test_a_mute_may_be_of_a_gpu_a_slot_or_a_tag(fleet: Store, make: Callable[[], dict[str, str]]) -> None:
    assert with_token().post(MUTES, make(), 201)["state"] == "active"


def test_too_many_mutes_are_refused(fleet: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.muting.MOST_MUTES", 1)
    asking = with_token()
    asking.post(MUTES, {"rule": "temp_high", "for": "2h"}, 201)
    assert "more than 1 mutes" in asking.refused(MUTES, {"rule": "temp_high", "for": "2h"}, 409)


def test_a_persons_mutes_are_in_the_admins_history(fleet: Store) -> None:
    asking = staff("add_mute", "change_mute")
    made = asking.post(MUTES, {"rule": "temp_high", "for": "8h"}, 201)
    assert made["created_by"] == "ada"
    assert asking.ask("DELETE", made["url"].removeprefix("http://testserver")).status_code == 200
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")] == [
        "Added.",
        "Changed ended by ada.",
    ]
