"""Probes are answered for any host name and scheme. Every answer has the security headers."""

from __future__ import annotations

import pytest
from django.test import Client
from pytest_django import Settings

from stores.base import Store
from tests.api.auth.test_middleware import finished
from tests.api.conftest import Api


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_any_host_name_and_scheme_will_do(api: Api, fleet: Store, settings: Settings, path: str) -> None:
    settings.SECURE_SSL_REDIRECT = True
    response = api.ask(path, host="10.42.0.7:8080")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert int(response["Content-Length"]) == len(response.content)


def test_a_host_name_that_is_none_will_do(api: Api) -> None:
    assert api.ask("/health", host="not a host!").json() == {"status": "healthy"}


def test_everything_else_keeps_its_rules(api: Api, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert api.ask("/api/v1").status_code == 301
    assert api.ask("/api/v1", host="10.42.0.7").status_code == 400


def test_a_probe_is_no_page_and_takes_no_parameters(api: Api, fleet: Store) -> None:
    assert api.ask("/health", accept="text/html,*/*;q=0.1")["Content-Type"] == "application/json"
    assert "'deep'" in api.refused("/ready?deep=1", 400)


@pytest.mark.parametrize(
    "path", ["/api/v1/gpus", "/api/v1/nothing", "/login", "/admin/login/", "/redoc", "/swagger/index.html", "/metrics"]
)
def test_every_answer_has_them(api: Api, fleet: Store, path: str) -> None:
    response = api.ask(path)
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'self';" in policy
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"
    assert response["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "no-store" in response["Cache-Control"]


def test_styles_inline_are_for_the_two_tools_that_need_them(api: Api, fleet: Store) -> None:
    assert "unsafe-inline" not in api.ask("/api/v1/gpus", accept="text/html")["Content-Security-Policy"]
    assert "unsafe-inline" not in api.ask("/admin/login/")["Content-Security-Policy"]
    assert "style-src 'self' 'unsafe-inline'" in api.ask("/redoc")["Content-Security-Policy"]


def test_files_may_be_kept(db: None) -> None:
    answer = Client().get("/static/api/site.css")
    assert finished(answer) == 200
    assert "no-store" not in answer["Cache-Control"]


def test_no_origin_is_let_in_unless_it_is_listed(api: Api, fleet: Store, settings: Settings) -> None:
    response = api.ask("/api/v1/gpus", origin="https://grafana.example.com")
    assert not [name for name in response.headers if name.lower().startswith("access-control-")]
    settings.MIDDLEWARE = ["corsheaders.middleware.CorsMiddleware", *settings.MIDDLEWARE]
    settings.CORS_ALLOWED_ORIGINS = ["https://grafana.example.com"]
    settings.API_AUTH_REQUIRED = True
    headers = {"origin": "https://grafana.example.com", "access-control-request-method": "GET"}
    preflight = Client().options("/api/v1/gpus", headers={**headers, "access-control-request-headers": "authorization"})
    assert preflight.status_code == 200
    assert preflight["Access-Control-Allow-Origin"] == "https://grafana.example.com"
    assert "authorization" in preflight["Access-Control-Allow-Headers"]
    assert not preflight.has_header("Access-Control-Allow-Credentials")
    refused = Client().get("/api/v1/gpus", headers=headers)  # readable by the page that asked
    assert (refused.status_code, refused["Access-Control-Allow-Origin"]) == (401, "https://grafana.example.com")
    other = Client().get("/api/v1/gpus", headers={"origin": "https://evil.example"})
    assert not other.has_header("Access-Control-Allow-Origin")


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "DELETE", "BREW"])
def test_a_static_file_is_only_read(method: str) -> None:
    response = Client(raise_request_exception=False).generic(method, "/static/api/site.css")
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")
    assert response.json()["error"] == "method_not_allowed"
