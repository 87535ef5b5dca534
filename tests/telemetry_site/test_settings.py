"""What follows from the settings about the web service's surroundings."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.api.serving import START_SECONDS, environment, manage
from tests.ingest.processes import Fleet, Service

PRODUCTION = {"PUBLIC_URL": "https://gpus.example.com", "TRUSTED_PROXIES": "1"}


def run(state_dir: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        manage(*arguments), env=environment(state_dir, **environ), capture_output=True, text=True, timeout=START_SECONDS
    )


def shown(state_dir: Path, names: str, **environ: str) -> list[str]:
    program = (
        f"from django.conf import settings as s; print(*(getattr(s, n, None) for n in {names.split()!r}), sep='|')"
    )
    answer = run(state_dir, "shell", "--no-imports", "-c", program, **environ)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip().split("|")


def test_the_production_settings_leave_the_deployment_check_nothing_to_say(tmp_path: Path) -> None:
    answer = run(tmp_path, "check", "--deploy", "--fail-level", "DEBUG", **PRODUCTION)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "no issues" in answer.stdout


def test_an_https_address_hardens_and_plain_http_on_a_laptop_works(tmp_path: Path) -> None:
    names = "SECURE_SSL_REDIRECT SESSION_COOKIE_SECURE CSRF_COOKIE_SECURE SECURE_HSTS_SECONDS SECURE_PROXY_SSL_HEADER ALLOWED_HOSTS"
    assert shown(tmp_path, names) == ["False", "False", "False", "0", "None", "['localhost', '127.0.0.1', '[::1]']"]
    hardened = shown(tmp_path, names, **PRODUCTION)
    assert hardened[:3] == ["True"] * 3
    assert int(hardened[3]) > 0
    assert hardened[4] == "('HTTP_X_FORWARDED_PROTO', 'https')"
    assert "'gpus.example.com'" in hardened[5]


def test_prometheus_may_ask_past_the_proxy(tmp_path: Path) -> None:
    program = "from django.test import Client; c = Client(headers={'host': 'gpus.example.com'}); print(*(c.get(p).status_code for p in ('/metrics', '/api/v1/gpus')))"
    answer = run(tmp_path, "shell", "--no-imports", "-c", program, **PRODUCTION, API_AUTH_REQUIRED="true")
    assert answer.stdout.split() == ["401", "301"], answer.stderr


BELOW = {"PUBLIC_URL": "https://example.com/gpu", "TRUSTED_PROXIES": "1"}


def test_below_a_path_cookies_files_and_redirects_have_it(tmp_path: Path) -> None:
    names = "FORCE_SCRIPT_NAME STATIC_URL SESSION_COOKIE_PATH CSRF_COOKIE_PATH CSRF_TRUSTED_ORIGINS SECURE_SSL_HOST SECURE_REDIRECT_EXEMPT"
    assert shown(tmp_path, names, **BELOW) == [
        "/gpu", "/gpu/static/", "/gpu/", "/gpu/", "['https://example.com']", "example.com", "['^gpu/metrics$']",
    ]  # fmt: skip
    assert shown(tmp_path, names, **PRODUCTION)[:4] == ["None", "/static/", "/", "/"]


def test_a_path_that_the_service_begins_paths_with_is_refused(tmp_path: Path) -> None:
    from django.conf import settings

    from api import urls as api_urls
    from dashboard import urls as pages
    from telemetry_site import urls

    every: list[Any] = [*urls.urlpatterns, *api_urls.urlpatterns, *pages.urlpatterns]
    patterns = [str(each.pattern).lstrip("^") for each in every]
    first = {found[0] for pattern in patterns if (found := re.match(r"[a-z]+(?=/|$)", pattern))}
    assert first | {"static"} <= settings.OWN_PATHS
    answer = run(tmp_path, "check", PUBLIC_URL="http://example.com/api/x", TRUSTED_PROXIES="1")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert "PUBLIC_URL" in answer.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INFLUXDB_URL", "http://influxdb:port"),
        ("INFLUXDB_URL", "http://influxdb:808600"),
        ("INFLUXDB_URL", "http://[::1:8086"),
        ("INFLUXDB_URL", "influxdb:8086"),
        ("PUBLIC_URL", "https://example.com:0"),
        ("PUBLIC_URL", "https://*.example.com"),
        ("CORS_ALLOWED_ORIGINS", "https://example.com:99999"),
        ("MQ_HOST", "[::1]:9000"),
        ("HOST", "http://localhost"),
        ("TCP_ADDR", "localhost:99999"),
        ("DATABASE_URL", "postgres://u:p@db:port/x"),
        ("DATABASE_URL", "postgres://u:p@db:99999/x"),
        ("DATABASE_URL", "postgres://u:p@[::1/x"),
    ],
)
def test_an_address_that_cannot_be_one_is_one_line(tmp_path: Path, name: str, value: str) -> None:
    answer = run(tmp_path, "check", **{name: value})
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1), answer.stderr
    assert answer.stderr.startswith(f"error: {name} (--") or name in answer.stderr
    assert "Traceback" not in answer.stderr


def test_https_without_a_proxy_is_refused_in_one_line(tmp_path: Path) -> None:
    answer = run(tmp_path, "check", PUBLIC_URL="https://gpus.example.com")
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert "PUBLIC_URL" in answer.stderr
    assert "TRUSTED_PROXIES" in answer.stderr


@pytest.mark.parametrize(
    ("environ", "required"),
    [
        ({}, "None"),
        ({"HOST": "::1"}, "None"),
        ({"HOST": "localhost", "API_AUTH_REQUIRED": "auto"}, "None"),
        ({"HOST": "0.0.0.0"}, "True"),
        ({"HOST": "::", "API_AUTH_REQUIRED": "auto"}, "True"),
        ({"HOST": "gpu-host.example.com"}, "True"),
        ({"PUBLIC_URL": "http://gpus.example.com"}, "True"),
        ({"TRUSTED_PROXIES": "1"}, "True"),
        (PRODUCTION, "True"),
        ({"HOST": "0.0.0.0", "API_AUTH_REQUIRED": "false"}, "False"),
        ({"TRUSTED_PROXIES": "1", "API_AUTH_REQUIRED": "false"}, "False"),
        ({"API_AUTH_REQUIRED": "true"}, "True"),
    ],
)
def test_reading_can_be_open_on_the_loopback_alone_unless_told(
    tmp_path: Path, environ: dict[str, str], required: str
) -> None:
    assert shown(tmp_path, "API_AUTH_REQUIRED", **environ) == [required]


@pytest.mark.parametrize("environ", [{}, {"API_AUTH_REQUIRED": "auto"}, {"API_AUTH_REQUIRED": "false"}])
def test_the_deployment_check_tells_where_reading_is_open(tmp_path: Path, environ: dict[str, str]) -> None:
    told = run(tmp_path, "check", "--deploy", **environ).stderr
    assert "api.W001" in told
    assert "API_AUTH_REQUIRED=true" in told
    assert "api.W001" not in run(tmp_path, "check", "--deploy", API_AUTH_REQUIRED="true").stderr


@pytest.mark.parametrize(
    ("environ", "store"),
    [
        ({}, "sqlite"),
        ({"INFLUXDB_TOKEN": "x"}, "influxdb"),
        ({"INFLUXDB_TOKEN": "x", "STORAGE_TYPE": "sqlite"}, "sqlite"),
        ({"STORAGE_TYPE": "memory"}, "memory"),
    ],
)
def test_a_token_for_influxdb_chooses_influxdb_unless_another_store_is_named(
    environ: dict[str, str], store: str, tmp_path: Path
) -> None:
    assert shown(tmp_path, "STORAGE_TYPE", **environ) == [store]


@pytest.mark.acceptance
def test_the_services_first_lines_name_their_store(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, PORT="0")
    web = Service("web", fleet, "serve")
    try:
        for service in (fleet.collector, web):
            service.start()
        fleet.collector.wait_for(f"storing to sqlite, {tmp_path}/readings.sqlite3")
        web.wait_for(f"answering from sqlite, {tmp_path}/readings.sqlite3")
    finally:
        web.kill()
        fleet.kill_all()
