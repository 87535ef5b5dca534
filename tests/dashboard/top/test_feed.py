from __future__ import annotations

import gzip
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.db import connection
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from api.auth.tokens import make_token
from api.models import TokenScope
from dashboard.top.feed import ApiFeed, FeedError, LocalFeed
from stores.open import reset_store
from tests.broker.certificates import Authority
from tests.health.building import NOON, make_event
from tests.inventory.building import fleet, save
from tests.ports import free_port


@pytest.fixture
def no_broker(settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()


@contextmanager
def answering(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A web server of somebody else, which gives one answer to everything. Yields its URL, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Authorization', '')}".strip())
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.django_db
@pytest.mark.usefixtures("no_broker")
def test_the_local_feed_reads_the_database_and_says_that_the_broker_is_away() -> None:
    save(fleet(16))
    found = LocalFeed().read()
    assert [host.name for host in found.fleet.hosts] == ["host-000", "host-001"]
    assert found.fleet.counts.reporting == 16
    assert found.fleet.gpus.utilisation == list(range(16))
    assert found.pipeline is not None
    assert not found.pipeline.broker.available
    assert (found.pipeline.store.newest_age_seconds or 0) > 86_400


@pytest.mark.django_db
@pytest.mark.usefixtures("no_broker")
def test_an_empty_inventory_is_an_empty_fleet() -> None:
    found = LocalFeed().read()
    assert (found.fleet.counts.expected, found.fleet.newest, found.fleet.hosts) == (0, None, [])


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("no_broker")
def test_over_the_api_it_is_the_same_fleet(live_server: LiveServer) -> None:
    save(fleet(300))
    make_event("ecc_dbe", severity="critical", opened=NOON)
    make_event(severity="warning", opened=NOON - timedelta(hours=1))
    make_event("idle_held", severity="info")
    make_event("clock_low", severity="critical", quiet=True)
    local, remote = LocalFeed().read(), ApiFeed(live_server.url).read()
    assert remote.fleet == local.fleet
    assert remote.events == local.events
    assert [(each.rule, each.title, each.opened) for each in local.events] == [
        ("ecc_dbe", "Double-bit memory error", "2026-03-01T12:00:00Z"),
        ("temp_high", "Hot core", "2026-03-01T11:00:00Z"),
    ]
    assert remote.pipeline is not None
    assert not remote.pipeline.broker.available


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("no_broker")
def test_a_service_that_asks_for_a_token_gets_it(live_server: LiveServer, settings: Settings) -> None:
    settings.API_AUTH_REQUIRED = True
    save(fleet(8))
    with pytest.raises(FeedError, match="asks for a valid token: set API_TOKEN, or API_TOKEN_FILE"):
        ApiFeed(live_server.url).read()
    with pytest.raises(FeedError, match="asks for a valid token"):
        ApiFeed(live_server.url, "nonsense").read()
    _, secret = make_token("top", TokenScope.READ, None)
    assert ApiFeed(live_server.url, secret).read().fleet.counts.reporting == 8


@pytest.mark.django_db(transaction=True)
def test_what_is_not_there_is_said_in_the_services_words(live_server: LiveServer) -> None:
    with pytest.raises(FeedError, match=r"answers with status 404: there is nothing at /below/api/v1/fleet"):
        ApiFeed(f"{live_server.url}/below").read()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("no_broker")
def test_a_store_that_is_away_hides_no_fleet(live_server: LiveServer, settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_TYPE, settings.SQLITE_PATH = "sqlite", tmp_path  # a folder
    save(fleet(8))
    reset_store()
    try:
        found = ApiFeed(live_server.url).read()
    finally:
        reset_store()
    assert found.fleet.counts.reporting == 8
    assert found.pipeline is None
    assert "answers with status 503" in found.pipeline_error


def test_a_token_follows_no_redirect() -> None:
    with answering(200) as (elsewhere, asked), answering(302, headers={"Location": f"{elsewhere}/x"}) as (url, _):
        with pytest.raises(FeedError, match=f"leads to {elsewhere}/x: use that address"):
            ApiFeed(url, "secret").read()
        assert asked == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data":[]}', b"\xff\xfe"])
@pytest.mark.parametrize("encoding", ["", "gzip", "gzip that is none"])
def test_another_server_is_told_from_ours(body: bytes, encoding: str) -> None:
    headers = {"Content-Encoding": "gzip"} if encoding else {}
    sent = gzip.compress(body) if encoding == "gzip" else body
    with answering(200, sent, headers) as (url, _):
        with pytest.raises(FeedError, match="is not the web service of this pipeline") as caught:
            ApiFeed(url).read()
        assert "\n" not in str(caught.value)


def test_what_a_server_says_cannot_move_the_cursor() -> None:
    body = json.dumps({"message": "no\x1b[2J\nmore"}).encode()
    with answering(418, body) as (url, _), pytest.raises(FeedError) as caught:
        ApiFeed(url).read()
    assert str(caught.value) == rf"{url} answers with status 418: no\x1b[2J more"


def test_nobody_there() -> None:
    with pytest.raises(FeedError, match=r"does not answer: .*refused"):
        ApiFeed(f"http://127.0.0.1:{free_port()}").read()


def test_a_certificate_of_our_own_ca_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("service"))
    with answering(404, tls=context) as (url, asked):
        with pytest.raises(FeedError, match=r"does not answer: .*certificate"):
            ApiFeed(url).read()
        assert asked == []
        with pytest.raises(FeedError, match="answers with status 404: no web service of this pipeline is there"):
            ApiFeed(url, ca=str(authority.ca)).read()
        assert asked == ["/api/v1/fleet"]


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_ca_that_is_none_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(FeedError, match=r"API_TLS_CA \(--tls-ca\): .*ca\.pem' is not a file of certificates"):
        ApiFeed("https://localhost", ca=str(path))


@pytest.mark.django_db(transaction=True)
def test_a_database_without_tables_is_one_line() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE inventory_host RENAME TO hidden")
    try:
        with pytest.raises(FeedError, match=r"there is no inventory to read here \(.*\): start the pipeline") as caught:
            LocalFeed().read()
        assert "\n" not in str(caught.value)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE hidden RENAME TO inventory_host")
