"""Every error under /api has one shape, whoever raises it."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connection
from django.http import Http404, HttpRequest
from django.test import Client
from pytest_django import Settings
from rest_framework.exceptions import NotAuthenticated, ParseError, Throttled, ValidationError

from api.errors import exception_handler, forbidden, server_error
from stores.base import Store, StoreError, StoreUnavailable
from stores.open import reset_store
from tests.api.conftest import Api


@pytest.mark.parametrize("path", ["/api/nothing", "/api/v1/nothing", "/api/v2/gpus", "/api/", "/api/v1/query/a/b"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_path_is_a_404_with_any_method(path: str, method: str) -> None:
    response = Client(enforce_csrf_checks=True).generic(method, path)
    assert response.status_code == 404
    assert response.json()["error"] == "not_found"


@pytest.mark.parametrize("debug", [True, False])
def test_a_trailing_slash_is_explained(api: Api, settings: Settings, debug: bool) -> None:
    settings.DEBUG = debug
    assert "no trailing slash" in api.refused("/api/v1/gpus/", 404)


def test_a_long_path_is_not_echoed_whole(api: Api) -> None:
    assert len(api.refused("/api/" + "x" * 5000, 404)) < 300


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/gpus", "/api/v1/gpus/x/telemetry", "/api/v1/stats", "/health"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_a_wrong_method_is_a_405(path: str, method: str) -> None:
    response = Client(enforce_csrf_checks=True).generic(method, path, b"{broken", content_type="application/json")
    assert response.status_code == 405
    assert response.json()["error"] == "method_not_allowed"
    assert "GET" in response["Allow"]


def test_a_format_that_cannot_be_written_is_refused(api: Api) -> None:
    assert "use json or html" in api.refused("/api/v1?format=xml", 400)
    assert "use json, html, csv, ndjson or parquet" in api.refused("/api/v1/telemetry?format=xlsx", 400)
    assert "format" in api.refused("/api/v1?format=", 400)
    assert "format" in api.refused("/api/v1?format=json&format=json", 400)
    response = api.ask("/api/v1", accept="application/xml")
    assert response.status_code == 406
    assert response.json()["error"] == "not_acceptable"


def test_an_unknown_host_name_is_a_400(api: Api) -> None:
    response = api.ask("/api/v1", host="elsewhere.example")
    assert response.status_code == 400
    assert response.json()["error"] == "bad_request"
    assert api.ask("/admin/", host="elsewhere.example", accept="text/html")["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    "path", ["/api/v1/telemetry", "/api/v1/gpus/GPU-a0/telemetry", "/api/v1/metrics", "/api/v1/stats"]
)
def test_a_store_that_is_away_is_a_503(api: Api, store: Store, settings: Settings, tmp_path: Path, path: str) -> None:
    reset_store()
    settings.SQLITE_PATH = tmp_path  # a folder cannot be opened
    response = api.ask(path)
    assert response.status_code == 503
    assert response.json()["error"] == "unavailable"
    assert "store" in response.json()["message"]
    assert str(tmp_path) not in response.json()["message"]
    assert int(response["Retry-After"]) > 0


def test_a_database_that_is_away_is_a_503() -> None:
    response = exception_handler(OperationalError("database is locked"), {})
    assert response is not None
    assert response.status_code == 503
    assert response.data["error"] == "unavailable"
    assert "database" in response.data["message"]
    assert response.headers["Retry-After"]


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        (ParseError("JSON parse error"), 400, "bad_request", "JSON parse error"),
        (ValidationError({"a": ["one", "two"], "b": "three"}), 400, "bad_request", "a: one; two; b: three"),
        (NotAuthenticated(), 401, "unauthorized", None),
        (PermissionDenied(), 403, "forbidden", None),
        (Http404(), 404, "not_found", None),
        (StoreUnavailable("/path: locked"), 503, "unavailable", None),
        (StoreError("/path: not a database"), 503, "unavailable", None),
    ],
)
def test_whatever_is_raised_has_the_shape(error: Exception, status: int, code: str, message: str | None) -> None:
    response = exception_handler(error, {})
    assert response is not None
    assert response.status_code == status
    assert set(response.data) == {"error", "message"}
    assert response.data["error"] == code
    assert message is None or response.data["message"] == message


def test_headers_that_go_with_an_error_are_kept() -> None:
    throttled = exception_handler(Throttled(wait=7), {})
    assert throttled is not None
    assert (throttled.status_code, throttled.headers["Retry-After"]) == (429, "7")
    assert throttled.data["error"] == "too_many_requests"
    unknown = NotAuthenticated()
    unknown.auth_header = "Bearer"  # type: ignore[attr-defined]
    answer = exception_handler(unknown, {})
    assert answer is not None
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_fault_of_ours_is_a_500_that_tells_no_secrets(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("secret")

    assert exception_handler(RuntimeError("secret"), {}) is None
    monkeypatch.setattr("api.views.metrics.get_store", broken)
    response = api.ask("/api/v1/metrics")
    assert response.status_code == 500
    assert response.json()["error"] == "server_error"
    assert b"secret" not in response.content


def test_outside_the_api_a_fault_is_a_page() -> None:
    request = HttpRequest()
    request.path_info = "/admin/"
    assert server_error(request)["Content-Type"] == "application/json"
    request.META["HTTP_ACCEPT"] = "text/html,*/*"
    assert server_error(request)["Content-Type"].startswith("text/html")


def test_an_unknown_path_outside_the_api_has_the_shape_or_is_a_page(api: Api) -> None:
    for path in ("/nothing", "/swagger/nothing", "/static/nothing.js", "/admin"):
        response = api.ask(path)
        if path != "/admin":
            assert response.status_code == 404
            assert response.json()["error"] == "not_found"
    assert api.ask("/nothing", accept="text/html")["Content-Type"].startswith("text/html")


def test_what_is_not_allowed_has_the_shape_or_is_a_page() -> None:
    request = HttpRequest()
    request.path_info = "/login"
    assert forbidden(request, PermissionDenied()).status_code == 403
    assert b'"forbidden"' in forbidden(request, PermissionDenied()).content
    request.META["HTTP_ACCEPT"] = "text/html,*/*"
    assert forbidden(request, PermissionDenied())["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("accept", ["text/html,*/*", "*/*"])
def test_a_login_into_a_database_that_cannot_be_written_is_a_503(db: None, settings: Settings, accept: str) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("forbids writes in SQLite's own way")
    settings.LOGIN_RATE = None
    User.objects.create_superuser("operator", password="correct horse battery")
    client = Client(raise_request_exception=False)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = ON")
    try:
        answers = [
            client.post(path, {"username": "operator", "password": "correct horse battery"}, headers={"Accept": accept})
            for path in ("/login", "/admin/login/")
        ]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA query_only = OFF")
    for answer in answers:
        assert answer.status_code == 503
        assert int(answer["Retry-After"]) > 0
        assert b"cannot be written" in answer.content
        assert answer["Content-Type"] == ("application/json" if accept == "*/*" else "text/plain; charset=utf-8")
