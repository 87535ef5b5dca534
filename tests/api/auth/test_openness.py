"""Reading is open where nobody but this machine can ask, and nowhere else, unless told so."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import RequestFactory
from pytest_django import Settings

from api.auth import openness
from tests.api.serving import ROOT, Answer, Service, environment, listening, manage, migrated, serving
from tests.ingest.processes import wait_until

GPUS = "/api/v1/gpus"


def listener(family: int, *where: Any) -> Any:
    return SimpleNamespace(family=family, getsockname=lambda: where)


V4 = listener(socket.AF_INET, "127.0.0.1", 80)
UNIX = SimpleNamespace(family=socket.AF_UNIX, getsockname=lambda: "/run/web.sock")


@pytest.mark.parametrize(
    ("listeners", "is_loopback"),
    [
        ([V4], True),
        ([listener(socket.AF_INET, "127.8.9.1", 80)], True),
        ([listener(socket.AF_INET6, "::1", 80, 0, 0)], True),
        ([listener(socket.AF_INET6, "::ffff:127.0.0.1", 80, 0, 0)], True),
        ([V4, listener(socket.AF_INET6, "::1", 80, 0, 0)], True),
        ([], False),
        ([listener(socket.AF_INET, "0.0.0.0", 80)], False),
        ([listener(socket.AF_INET6, "::", 80, 0, 0)], False),
        ([listener(socket.AF_INET6, "::ffff:0.0.0.0", 80, 0, 0)], False),
        ([listener(socket.AF_INET6, "::ffff:192.0.2.1", 80, 0, 0)], False),
        ([listener(socket.AF_INET6, "fe80::1%eth0", 80, 0, 2)], False),
        ([listener(socket.AF_INET, "192.0.2.1", 80)], False),
        ([V4, listener(socket.AF_INET, "192.0.2.1", 80)], False),
        ([UNIX], False),
        ([V4, UNIX], False),
    ],
)
def test_every_listener_must_be_on_the_loopback(listeners: list[Any], is_loopback: bool) -> None:
    assert openness.only_loopback(listeners) is is_loopback


@pytest.fixture
def on_loopback(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.API_AUTH_REQUIRED = None
    monkeypatch.setattr(openness.server, "is_on_loopback", True)


@pytest.mark.usefixtures("on_loopback")
@pytest.mark.parametrize(
    ("meta", "is_open"),
    [
        ({}, True),
        ({"HTTP_HOST": "localhost:8080"}, True),
        ({"HTTP_HOST": "LOCALHOST."}, True),
        ({"HTTP_HOST": "[::1]:8080", "REMOTE_ADDR": "::1"}, True),
        ({"HTTP_HOST": "[::ffff:127.0.0.1]", "REMOTE_ADDR": "::ffff:127.0.0.1"}, True),
        ({"HTTP_X_REQUEST_ID": "1", "HTTP_ORIGIN": "http://localhost:3000"}, True),
        # a name that somebody else had point here
        ({"HTTP_HOST": "evil.example.com"}, False),
        ({"HTTP_HOST": "localhost.evil.example.com"}, False),
        ({"HTTP_HOST": "127.0.0.1.evil.example.com"}, False),
        ({"HTTP_HOST": "192.0.2.1"}, False),
        ({"HTTP_HOST": ""}, False),
        ({"HTTP_HOST": "[::1"}, True),
        # proxies
        ({"HTTP_FORWARDED": "for=192.0.2.1"}, False),
        ({"HTTP_FORWARDED": ""}, False),
        ({"HTTP_X_FORWARDED_FOR": "127.0.0.1"}, False),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, False),
        ({"HTTP_X_FORWARDED_HOST": "localhost"}, False),
        ({"HTTP_X_FORWARDED_SOMETHING_NEW": "1"}, False),
        ({"HTTP_VIA": "1.1 proxy"}, False),
        ({"HTTP_X_REAL_IP": "127.0.0.1"}, False),
        # the system passed it on from elsewhere
        ({"REMOTE_ADDR": "192.0.2.1"}, False),
        ({"REMOTE_ADDR": ""}, False),
    ],
)
def test_a_request_must_be_of_this_machine(meta: dict[str, str], is_open: bool) -> None:
    request = RequestFactory().get(GPUS, **{"HTTP_HOST": "127.0.0.1:8080", **meta})  # type: ignore[arg-type]
    assert openness.is_open(request) is is_open


@pytest.mark.parametrize(
    ("required", "on_loopback", "is_open"),
    [(None, None, False), (None, False, False), (None, True, True), (True, True, False), (False, False, True)],
)
def test_a_server_that_says_nothing_is_closed(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    required: bool | None,
    on_loopback: bool | None,
    is_open: bool,
) -> None:
    settings.API_AUTH_REQUIRED = required
    monkeypatch.setattr(openness.server, "is_on_loopback", on_loopback)
    assert openness.is_open(RequestFactory(HTTP_HOST="localhost").get(GPUS)) is is_open


@pytest.mark.parametrize(
    ("required", "listeners", "says"),
    [
        (None, [V4], "everyone on this machine"),
        (None, [UNIX], ""),
        (True, [V4], ""),
        (False, [V4], "everyone on this machine"),
        (False, [V4, UNIX], "everyone who can reach this service"),
    ],
)
def test_openness_is_told(required: bool | None, listeners: list[Any], says: str) -> None:
    told = openness.warning(required, listeners)
    assert told.startswith(says)
    assert ("API_AUTH_REQUIRED=true" in told) == bool(says)


# --- the real service ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a migrated database."""
    return migrated(tmp_path_factory.mktemp("state"))


def is_told(service: Service) -> bool:
    return any("WARNING" in line and "can read all telemetry" in line for line in service.lines)


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({}, 200),
        ({"PUBLIC_URL": "http://gpus.example.com"}, 401),
        ({"TRUSTED_PROXIES": "1"}, 401),
        ({"HOST": "0.0.0.0"}, 401),
        ({"HOST": "0.0.0.0", "API_AUTH_REQUIRED": "false"}, 200),
        ({"API_AUTH_REQUIRED": "true"}, 401),
    ],
)
def test_the_service_is_open_or_closed_as_its_settings_say(
    state_dir: Path, environ: dict[str, str], status: int
) -> None:
    with serving(state_dir, **environ) as service:  # type: ignore[arg-type]
        service.address = service.address.replace("0.0.0.0", "127.0.0.1")
        assert service.get(GPUS).status == status
        assert service.get(GPUS, **{"X-Forwarded-For": "127.0.0.1"}).status == (
            200 if environ.get("API_AUTH_REQUIRED") == "false" else 401
        )
        assert service.get("/health").status == 200
    assert is_told(service) == (status == 200)


@contextmanager
def gunicorn(state_dir: Path, *flags: str, pass_fds: tuple[int, ...] = (), **environ: str) -> Iterator[Service]:
    command = [sys.executable, "-m", "gunicorn", "telemetry_site.wsgi", "--workers", "1", *flags]
    with listening(command, environment(state_dir, **environ), pass_fds=pass_fds) as service:
        service.address = re.sub(r"0\.0\.0\.0|\[::\]", "127.0.0.1", service.address)
        yield service


@pytest.mark.parametrize(
    ("binds", "status"),
    [
        (["127.0.0.1:0"], 200),
        (["localhost:0"], 200),
        (["127.0.0.1:0", "127.0.0.2:0"], 200),
        (["0.0.0.0:0"], 401),
        (["127.0.0.1:0", "0.0.0.0:0"], 401),
        (["127.0.0.1:0", "unix:{}/web.sock"], 401),
    ],
)
def test_gunicorn_s_own_sockets_count_and_not_the_settings(
    state_dir: Path, tmp_path: Path, binds: list[str], status: int
) -> None:
    flags = [flag for bind in binds for flag in ("--bind", bind.format(tmp_path))]
    with gunicorn(state_dir, *flags) as service:
        assert service.get(GPUS).status == status
    assert is_told(service) == (status == 200)


@pytest.mark.parametrize("name", ["HOST=0.0.0.0", "PUBLIC_URL=http://gpus.example.com", "TRUSTED_PROXIES=1"])
def test_a_setting_that_expects_others_closes_it_on_the_loopback_too(state_dir: Path, name: str) -> None:
    with gunicorn(state_dir, "--bind", "127.0.0.1:0", **dict([name.split("=")])) as service:  # type: ignore[arg-type]
        assert service.get(GPUS).status == 401
    assert not is_told(service)


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("0.0.0.0", 401)])
def test_an_inherited_socket_counts_too(state_dir: Path, host: str, status: int) -> None:
    with ExitStack() as held:
        sock = held.enter_context(socket.create_server((host, 0)))
        service = held.enter_context(gunicorn(state_dir, "--bind", f"fd://{sock.fileno()}", pass_fds=(sock.fileno(),)))
        assert service.get(GPUS).status == status


def booted(service: Service) -> list[int]:
    """The process ids of all workers so far."""
    return [int(found[1]) for line in service.lines if (found := re.search(r"Booting worker with pid: (\d+)", line))]


def test_a_worker_that_starts_later_knows_it_too(state_dir: Path) -> None:
    with gunicorn(state_dir, "--bind", "127.0.0.1:0") as service:
        assert service.get(GPUS).status == 200
        wait_until(lambda: len(booted(service)) == 1, "the first worker")
        os.kill(booted(service)[0], signal.SIGKILL)
        wait_until(lambda: len(booted(service)) == 2, "another worker")
        assert service.get(GPUS).status == 200


@pytest.mark.parametrize("name", ["evil.example.com", "localhost"])
def test_another_name_for_this_machine_does_not_open_it(state_dir: Path, name: str) -> None:
    """Also where ALLOWED_HOSTS has it."""
    with serving(state_dir, ALLOWED_HOSTS=f"127.0.0.1,{name}") as service:
        assert service.get(GPUS, Host=name).status == (200 if name == "localhost" else 401)


def test_a_server_of_django_s_own_is_closed(state_dir: Path) -> None:
    process = subprocess.Popen(
        manage("runserver", "--noreload", "127.0.0.1:0"),
        env=environment(state_dir, PYTHONUNBUFFERED="1"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process, ExitStack() as cleanup:
        cleanup.callback(process.kill)
        assert process.stdout is not None
        address = next(
            found[1] for line in process.stdout if (found := re.search(r"server at (http://\S+?)/?$", line.strip()))
        )
        answer = asked(address + GPUS)
        assert (answer.status, json.loads(answer.body)["error"]) == (401, "unauthorized")
        assert asked(f"{address}/health").status == 200


def asked(url: str) -> Answer:
    holder: Any = SimpleNamespace(address="")
    return Service.get(holder, url)
