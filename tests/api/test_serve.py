"""``manage.py serve`` runs gunicorn in its own place: one process to signal, one line when it cannot listen."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.management.base import CommandError

from api.management.commands.serve import listen
from readings.batch import encode_block
from telemetry_site.env import Address
from tests.api.broker_thread import broker_in_thread
from tests.api.conftest import A0, T0, block_of
from tests.api.serving import START_SECONDS, Service, environment, manage, migrated, serving


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a migrated database."""
    return migrated(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def service(state_dir: Path) -> Iterator[Service]:
    """One service for all tests that only ask."""
    with serving(state_dir) as running:
        yield running


def assets_of(page: str) -> list[str]:
    return re.findall(r"<(?:script|link|img)[^>]*?\b(?:src|href)=\"([^\"]+)\"", page)


@pytest.mark.parametrize("path", ["/swagger/index.html", "/redoc", "/admin/login/"])
def test_a_page_and_every_asset_it_names_come_from_here(service: Service, path: str) -> None:
    page = service.get(path)
    assert page.status == 200
    assets = assets_of(page.body.decode())
    assert assets
    for asset in assets:
        assert asset.startswith("/"), asset
        answer = service.get(asset.replace("&amp;", "&"))
        assert answer.status == 200, asset
        assert answer.body, asset


def test_browsable_pages_have_their_assets(service: Service) -> None:
    page = service.get("/api/v1/gpus", Accept="text/html")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assets = assets_of(page.body.decode())
    assert "/static/api/browse.js" in assets
    for asset in assets:
        assert service.get(asset).status == 200, asset


def test_a_long_question_is_answered(service: Service) -> None:
    pods = "&".join(f"pod=training-job-{number:040}" for number in range(100))
    assert service.get(f"/api/v1/telemetry?{pods}").status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_status_0(state_dir: Path, number: int, tmp_path: Path) -> None:
    with serving(state_dir, cwd=tmp_path) as running:  # started from another folder
        assert running.get("/health").status == 200
        assert running.stop(number) == 0
    assert not any("Traceback" in line for line in running.lines)


def test_with_memory_storage_one_worker_collects_for_itself(state_dir: Path, tmp_path: Path) -> None:
    batch = encode_block(
        block_of([A0], [(0, T0, [1.0, 2.0, 3.0])]), batch_id="b1", source="test", collected_at="2025-07-18T20:42:35Z"
    )
    with broker_in_thread(tmp_path / "log", payloads=[batch], fsync="never") as port:
        flags = ("--storage-type", "memory", "--web-concurrency", "4", "--flush-interval", "50ms")
        with serving(state_dir, *flags, "--retention-period", "0", MQ_HOST="127.0.0.1", MQ_PORT=str(port)) as running:
            deadline = time.monotonic() + START_SECONDS
            # The store has the readings a moment before the inventory knows of the GPU.
            while json.loads(running.get("/api/v1/gpus").body)["data"] != ["GPU-a0"]:
                assert time.monotonic() < deadline, running.lines
                assert running.process.poll() is None
            assert json.loads(running.get("/api/v1/telemetry").body)["count"] == 3
            assert running.stop(signal.SIGTERM) == 0
    assert sum("Booting worker" in line for line in running.lines) == 1
    assert not any("Traceback" in line for line in running.lines)


def test_a_port_in_use_is_one_line(state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            manage("serve", "--port", str(port)),
            env=environment(state_dir),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "in use" in ended.stderr


def test_a_bad_flag_is_one_line(state_dir: Path) -> None:
    ended = subprocess.run(
        manage("serve", "--web-concurrency", "many"),
        env=environment(state_dir),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "WEB_CONCURRENCY" in ended.stderr


def test_a_token_made_while_it_runs_opens_and_one_revoked_closes(state_dir: Path) -> None:
    def apitoken(*arguments: str) -> str:
        command = manage("apitoken", *arguments)
        return subprocess.run(
            command, env=environment(state_dir), check=True, capture_output=True, text=True, timeout=START_SECONDS
        ).stdout.strip()

    with serving(state_dir, "--api-auth-required", "true", "--api-rate-per-token", "1000/h") as running:
        headers = {"Authorization": f"Bearer {apitoken('create', 'grafana')}"}
        assert running.get("/api/v1/gpus", **headers).status == 200
        assert running.get("/api/v1/gpus").status == 401
        apitoken("revoke", "grafana")
        deadline = time.monotonic() + START_SECONDS
        while running.get("/api/v1/gpus", **headers).status != 401:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_two_workers_share_one_allowance(state_dir: Path) -> None:
    # Each connection is a new one, so both workers are asked.
    with serving(state_dir, "--web-concurrency", "2", "--api-rate-per-address", "20/d") as running:
        statuses = [running.get("/api/v1").status for _ in range(30)]
    assert sum("Booting worker" in line for line in running.lines) == 2
    assert (statuses.count(200), statuses.count(429)) == (20, 10)


def test_forwarded_headers_are_believed_of_nobody_unless_told(state_dir: Path) -> None:
    claims = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7", "Script-Name": "/evil"}
    with serving(state_dir, API_AUTH_REQUIRED="false") as running:
        assert b'"http://127.0.0.1' in running.get("/api/v1", **claims).body
        assert b"/evil" not in running.get("/api/v1", **claims).body
    with serving(
        state_dir, "--trusted-proxies", "1", "--public-url", "https://gpus.example.com", API_AUTH_REQUIRED="false"
    ) as running:
        answer = running.get("/api/v1", Host="gpus.example.com", **claims)
        assert b'"https://gpus.example.com/api/v1/gpus"' in answer.body
        assert "max-age" in answer.headers["Strict-Transport-Security"]
        # Past the proxy: probes and Prometheus are answered, others are led to where people go.
        assert [running.get(path).status for path in ("/health", "/ready", "/metrics")] == [200, 200, 200]
        where = urlsplit(running.address)
        plain = http.client.HTTPConnection(str(where.hostname), where.port, timeout=START_SECONDS)
        plain.request("GET", "/api/v1/gpus?page=2")
        redirect = plain.getresponse()
        plain.close()
        assert (redirect.status, redirect.headers["Location"]) == (301, "https://gpus.example.com/api/v1/gpus?page=2")


def test_listen_knows_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with listen(Address("::1", 0)) as listener:
        assert listener.family == socket.AF_INET6


def test_an_address_that_is_not_ours_is_refused_by_name() -> None:
    with pytest.raises(CommandError, match=r"no-such-host\.invalid"):
        listen(Address("no-such-host.invalid", 0))
    with pytest.raises(CommandError, match=r"192\.0\.2\.1"):
        listen(Address("192.0.2.1", 0))
