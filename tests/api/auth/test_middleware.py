"""api.auth.middleware, api.views.access. Who may ask: anybody while it is open; else whoever has a token or is logged in. Nothing stays open by being forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.test import Client
from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from api.auth import middleware
from api.auth.throttling import Throttle
from api.auth.tokens import make_token, revoke
from api.models import ApiToken
from stores.base import Store
from telemetry_site.env import RequestRate
from tests.api.conftest import Api

GPUS = "/api/v1/gpus"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(autouse=True)
def _own_throttle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    own = Throttle(tmp_path / "rates.sqlite3")
    monkeypatch.setattr(middleware, "throttle", own)
    yield
    own.close()


@pytest.fixture
def closed(settings: Settings) -> None:
    settings.API_AUTH_REQUIRED = True


@pytest.fixture
def person(db: None, settings: Settings) -> Client:
    """A browser that is logged in, as nobody special."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    User.objects.create_user("ada", password="correct horse battery")
    client = Client()
    answer = client.post("/login", {"username": "ada", "password": "correct horse battery", "next": GPUS})
    assert (answer.status_code, answer["Location"]) == (302, GPUS)
    return client


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def finished(answer: Any) -> int:
    """The status of an answer that was read to its end, so that a file is closed."""
    if answer.streaming:
        list(answer.streaming_content)
    return int(answer.status_code)


def status(path: str, **headers: str) -> int:
    return finished(Client().get(path, headers=headers))


def all_paths() -> list[str]:
    """Every address of the site, with something in place of its variable parts."""

    def walk(patterns: list[URLPattern | URLResolver], prefix: str) -> Iterator[str]:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                if str(pattern.pattern) != "admin/":
                    yield from walk(pattern.url_patterns, prefix + str(pattern.pattern))
            else:
                route = prefix + str(pattern.pattern)
                yield "/" + route.replace("<key:uuid>", "GPU-a0").replace("<key:name>", "host-a").replace(
                    "<row:id>", "1"
                ).replace("<path:rest>", "nothing").replace("^swagger/?$", "swagger")

    return sorted(set(walk(get_resolver().url_patterns, "")))


def test_the_paths_are_found() -> None:
    assert {"/", GPUS, "/metrics", "/api/schema", "/redoc", "/swagger", "/api/v1/hosts/host-a"} <= set(all_paths())


@pytest.mark.parametrize("path", all_paths())
def test_closed_means_closed(db: None, closed: None, path: str) -> None:
    if path in {"/health", "/ready", "/login", "/logout", "/favicon.ico"}:
        assert status(path) != 401
        return
    answer = Client().get(path)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Bearer realm="GPU telemetry"'
    assert answer.json()["error"] == "unauthorized"
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "BREW"):
        assert Client().generic(method, path).status_code == 401


def test_the_admin_asks_for_its_own_login(db: None, closed: None) -> None:
    answer = Client().get("/admin/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/login/?next=/admin/")
    assert status("/admin/login/") == 200


def test_static_files_are_for_everybody(db: None, closed: None) -> None:
    assert status("/static/api/site.css") == 200


def test_a_browser_is_led_to_the_login_and_back(db: None, closed: None) -> None:
    answer = Client().get(f"{GPUS}?page=2&search=a%20b", headers=BROWSER)
    assert answer.status_code == 302
    assert answer["Location"] == "/login?next=%2Fapi%2Fv1%2Fgpus%3Fpage%3D2%26search%3Da%2520b"
    assert Client().post(GPUS, headers=BROWSER).status_code == 401
    assert status(f"{GPUS}?format=json", **BROWSER) == 401


def test_a_login_opens(fleet: Store, closed: None, person: Client) -> None:
    for path in (GPUS, "/metrics", "/api/schema", "/swagger/index.html"):
        assert person.get(path).status_code == 200
    assert person.get("/login?next=/api/v1/gpus", headers=BROWSER).status_code == 302  # logged in already
    person.post("/logout")
    assert person.get(GPUS).status_code == 401


def test_a_login_by_the_admin_opens_too(fleet: Store, closed: None) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    assert client.get(GPUS).status_code == 200
    assert client.get("/api/v1/tokens").json() == {"data": [], "count": 0, "next": None, "previous": None}


def test_login_and_logout_want_the_form_s_own_mark(person: Client) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert strict.post("/login", {"username": "ada", "password": "correct horse battery"}).status_code == 403
    strict.cookies = person.cookies
    assert strict.post("/logout").status_code == 403
    assert person.get("/logout").status_code == 405


def test_a_login_leads_nowhere_else(person: Client) -> None:
    answer = Client().post(
        "/login", {"username": "ada", "password": "correct horse battery", "next": "https://evil.example/"}
    )
    assert (answer.status_code, answer["Location"]) == (302, "/")


def test_a_wrong_password_says_so_and_no_more(person: Client) -> None:
    for name in ("ada", "nobody", "a\0b", "x" * 10_000):
        page = Client().post("/login", {"username": name, "password": "wrong"})
        assert page.status_code == 200
        assert b'role="alert"' in page.content


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_opens(fleet: Store, closed: None, scheme: str) -> None:
    _, secret = make_token("grafana")
    for path in (GPUS, "/metrics", "/api/schema", "/api/v1/stats"):
        assert status(path, authorization=f"{scheme} {secret}") == 200


def expired() -> str:
    row, secret = make_token("old")
    ApiToken.objects.filter(pk=row.pk).update(expires=timezone.now() - timedelta(seconds=1))
    return secret


def revoked() -> str:
    row, secret = make_token("gone")
    revoke(ApiToken.objects.filter(pk=row.pk))
    return secret


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    "make", [expired, revoked, lambda: "garbage", lambda: "", lambda: "é\0", lambda: "x" * 8000, lambda: "a b c"]
)
def test_a_bad_token_is_a_401_also_where_none_is_needed(
    fleet: Store, settings: Settings, required: bool, make: Any
) -> None:
    settings.API_AUTH_REQUIRED = required
    answer = Client().get(GPUS, headers=bearer(make()))
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Bearer realm="GPU telemetry", error="invalid_token"'
    assert set(answer.json()) == {"error", "message"}


def test_other_schemes_are_somebody_else_s(fleet: Store, settings: Settings, person: Client) -> None:
    basic = {"authorization": "Basic YWRhOmFkYQ=="}
    assert status(GPUS, **basic) == 200  # a proxy's own login, as many have one
    settings.API_AUTH_REQUIRED = True
    assert status(GPUS, **basic) == 401
    assert person.get(GPUS, headers=basic).status_code == 200


def test_a_token_in_the_address_is_none(fleet: Store, closed: None) -> None:
    _, secret = make_token("grafana")
    assert status(f"{GPUS}?token={secret}") == 401


@pytest.mark.parametrize("required", [True, False])
def test_who_may_ask_is_for_the_scope_admin(db: None, settings: Settings, required: bool, person: Client) -> None:
    settings.API_AUTH_REQUIRED = required
    _, reader = make_token("grafana")
    _, chief = make_token("audit", scope="admin")
    nobody = Client().get("/api/v1/tokens")
    assert nobody.status_code == 401
    assert nobody["WWW-Authenticate"] == 'Bearer realm="GPU telemetry"'
    refused = Client().get("/api/v1/tokens", headers=bearer(reader))
    assert refused.status_code == 403
    assert refused.json() == {"error": "forbidden", "message": "the scope admin is required; yours is read"}
    assert person.get("/api/v1/tokens").status_code == 403
    answer = Client().get("/api/v1/tokens", headers=bearer(chief)).json()
    assert [(each["name"], each["scope"], each["state"]) for each in answer["data"]] == [
        ("audit", "admin", "active"),
        ("grafana", "read", "active"),
    ]
    assert reader not in str(answer)
    assert status(GPUS, **bearer(chief)) == 200  # admin may read


def test_without_token_and_cookie_nobody_looks_anybody_up(
    settings: Settings, django_assert_num_queries: DjangoAssertNumQueries, db: None
) -> None:
    for required in (True, False):
        settings.API_AUTH_REQUIRED = required
        with django_assert_num_queries(0):
            status("/api/v1")


def test_a_token_costs_nothing_once_it_is_known(
    fleet: Store, closed: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    _, secret = make_token("grafana")
    status("/api/v1", **bearer(secret))
    with django_assert_num_queries(0):
        assert status("/api/v1", **bearer(secret)) == 200


def test_a_login_costs_the_session_and_the_user(
    closed: None, person: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(2):
        assert person.get("/api/v1").status_code == 200


def test_a_database_that_is_away_is_a_503(closed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(secret: str) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(middleware, "find_token", away)
    answer = Client().get(GPUS, headers=bearer("x"))
    assert answer.status_code == 503
    assert answer.json()["error"] == "unavailable"
    assert int(answer["Retry-After"]) > 0


def test_each_token_has_an_allowance_of_its_own(fleet: Store, settings: Settings) -> None:
    settings.API_RATE_PER_TOKEN = RequestRate(2, 3600)
    (_, one), (_, two) = make_token("one"), make_token("two")
    assert [status(GPUS, **bearer(one)) for _ in range(3)] == [200, 200, 429]
    assert status(GPUS, **bearer(two)) == 200
    assert status(GPUS) == 200  # nobody's token is not limited by it
    answer = Client().get(GPUS, headers=bearer(one))
    assert answer.json()["error"] == "too_many_requests"
    assert 1700 < int(answer["Retry-After"]) <= 1800


def test_each_address_has_an_allowance_of_its_own(fleet: Store, settings: Settings) -> None:
    settings.API_RATE_PER_ADDRESS = RequestRate(2, 3600)

    def ask(peer: str, forwarded: str = "", path: str = GPUS) -> int:
        headers = {"x-forwarded-for": forwarded} if forwarded else {}
        return finished(Client().get(path, headers=headers, REMOTE_ADDR=peer))

    assert [ask("192.0.2.1", f"203.0.113.{number}") for number in range(4)] == [200, 200, 429, 429]
    assert ask("192.0.2.2") == 200
    assert [ask("192.0.2.1", path=path) for path in ("/health", "/static/api/site.css", "/login")] == [200, 200, 200]
    assert ask("192.0.2.1", path="/api/v1/nothing") == 429
    settings.TRUSTED_PROXIES = 1
    assert [ask("192.0.2.1", "203.0.113.50") for _ in range(3)] == [200, 200, 429]
    assert ask("192.0.2.1", "203.0.113.51") == 200


def test_bad_tokens_count_for_the_address(fleet: Store, settings: Settings) -> None:
    settings.API_RATE_PER_ADDRESS = RequestRate(2, 3600)
    assert [status(GPUS, **bearer(f"guess-{number}")) for number in range(3)] == [401, 401, 429]
    _, secret = make_token("grafana")
    assert status(GPUS, **bearer(secret)) == 200


@pytest.mark.parametrize("path", ["/login", "/admin/login/"])
def test_logins_are_tried_so_often_only(db: None, settings: Settings, path: str) -> None:
    settings.LOGIN_RATE = RequestRate(3, 60)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    tries = [Client().post(path, {"username": "ada", "password": str(number)}).status_code for number in range(4)]
    assert tries == [200, 200, 200, 429]
    assert status(path) == 200


def test_a_page_shows_who_is_logged_in(api: Api, fleet: Store, person: Client) -> None:
    assert 'href="/login?next=/api/v1/gpus"' in api.ask(GPUS, **BROWSER).content.decode()
    page = person.get(GPUS, headers=BROWSER).content.decode()
    assert "ada" in page
    assert 'action="/logout"' in page
