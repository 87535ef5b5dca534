"""Exports by the real web service: what clients on a socket see when something goes wrong."""

from __future__ import annotations

import http.client
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.exports.stream import AT_ONCE
from readings.model import Gpu, Point, PointBlock
from stores.sqlite import SqliteStore
from tests.api.server.test_worker import gunicorn, until_cut
from tests.api.serving import START_SECONDS, Service, migrated, serving

ROWS = 240_000
EXPORT = "/api/v1/telemetry?format=csv"


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with more readings than sockets and pipes hold."""
    folder = migrated(tmp_path_factory.mktemp("state"))
    store = SqliteStore(folder / "readings.sqlite3")
    metrics = [f"M{number}" for number in range(20)]
    points: list[Point] = [(0, 1_752_871_354_000_000_000 + row * 1_000_000, [0.1] * 20) for row in range(ROWS // 20)]
    store.write([PointBlock([Gpu(uuid="GPU-1", hostname="h")], metrics, points)])
    store.close()
    return folder


@pytest.fixture
def service(state_dir: Path) -> Iterator[Service]:
    """One worker, so that all requests of a test share it."""
    with serving(state_dir) as running:
        yield running


class Download:
    """An export of which a client has read the beginning."""

    def __init__(self, service: Service, path: str = EXPORT) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(service.address).netloc, timeout=START_SECONDS)
        self._connection.request("GET", path)
        self.response = self._connection.getresponse()
        self.head = self.response.read(1000)

    def rest(self) -> bytes:
        """All that follows; raises IncompleteRead when the service broke it off."""
        return self.response.read()

    def close(self) -> None:
        """Go away without reading on."""
        self.response.close()
        self._connection.close()


def until_exporting(service: Service) -> None:
    """Wait until the service takes another export."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        download = Download(service, f"{EXPORT}&limit=1")
        download.close()
        if download.response.status == 200:
            return
        assert time.monotonic() < deadline, "the service still holds on to exports that nobody reads"
        time.sleep(0.05)


def test_a_download_is_whole(service: Service) -> None:
    download = Download(service)
    assert download.response.getheader("Transfer-Encoding") == "chunked"
    lines = (download.head + download.rest()).decode().splitlines()
    download.close()
    assert len(lines) == ROWS + 1
    assert len(set(lines)) == ROWS + 1


def test_the_service_answers_while_clients_hold_all_exports(service: Service) -> None:
    held = [Download(service) for _ in range(AT_ONCE)]
    try:
        for path in ("/health", "/ready", "/api/v1/gpus", "/api/v1/telemetry?page_size=1"):
            assert service.get(path).status == 200
        refused = service.get(EXPORT)
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) > 0
    finally:
        for each in held:
            each.close()
    # Those clients are gone: their exports end, and others take their places.
    until_exporting(service)


def test_told_to_stop_it_breaks_off_so_that_clients_know(service: Service) -> None:
    download = Download(service)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(START_SECONDS) == 0
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        download.rest()
    download.close()


def exporting(service: Service, request: bytes, held: ExitStack) -> socket.socket:
    """A client that has asked for an export, and takes little."""
    where = urlsplit(service.address)
    sock = held.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(START_SECONDS)
    sock.connect((str(where.hostname), where.port or 0))
    sock.sendall(request + b"Host: localhost\r\n\r\n")
    assert b" 200 OK\r\n" in sock.recv(100, socket.MSG_PEEK)
    return sock


def read_all(sock: socket.socket) -> bytes:
    found = b""
    while data := sock.recv(1 << 16):
        found += data
    return found


def test_told_to_stop_it_ends_every_export_with_a_last_line(service: Service) -> None:
    """Over HTTP/1.0 nothing else tells, so there the line comes even where the client reads nothing before the service is gone."""
    with ExitStack() as held:
        unread = exporting(service, f"GET {EXPORT} HTTP/1.0\r\n".encode(), held)
        slow = exporting(service, f"GET {EXPORT.replace('csv', 'ndjson')} HTTP/1.0\r\n".encode(), held)
        service.process.send_signal(signal.SIGTERM)
        taken = b""
        while service.process.poll() is None:
            taken += slow.recv(500)
            time.sleep(0.01)
        assert service.process.returncode == 0
        taken += read_all(slow)
        assert taken.endswith(
            b'{"error":"unavailable","message":"this export is not complete: the service is stopping"}\n'
        )
        everything = read_all(unread)
        assert b"\r\nConnection: close\r\n" in everything.partition(b"\r\n\r\n")[0]
        assert everything.endswith(b"\nerror: this export is not complete: the service is stopping\r\n")
    assert not any("Traceback" in line for line in service.lines)


def test_over_http_1_1_the_last_line_comes_in_the_last_chunk(service: Service) -> None:
    with ExitStack() as held:
        slow = exporting(service, f"GET {EXPORT} HTTP/1.1\r\n".encode(), held)
        service.process.send_signal(signal.SIGTERM)
        taken = b""
        while service.process.poll() is None:
            taken += slow.recv(40_000)
            time.sleep(0.01)
        assert service.process.returncode == 0
        taken += read_all(slow)
        assert taken.endswith(b"\r\nerror: this export is not complete: the service is stopping\r\n\r\n")


def test_an_export_that_is_cut_off_for_its_slowness_does_not_look_whole(state_dir: Path) -> None:
    """Also over HTTP/1.0: the connection is reset, not ended."""
    short = {"SEND_SECONDS": 0.5, "MIN_BYTES_PER_SECOND": 1e12}
    with gunicorn(state_dir, **short) as service, ExitStack() as held:  # type: ignore[arg-type]
        unread = exporting(service, f"GET {EXPORT} HTTP/1.0\r\n".encode(), held)
        until_cut(unread)
        with pytest.raises(ConnectionError):
            read_all(unread)
        until_exporting(service)


def test_a_store_that_fails_in_the_middle_breaks_it_off(state_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.sqlite3"
    path.write_bytes((state_dir / "readings.sqlite3").read_bytes())
    with serving(state_dir, "--sqlite-path", str(path)) as service:
        plain = socket.create_connection(urlsplit(service.address).netloc.split(":"), START_SECONDS)  # type: ignore[arg-type]
        download = Download(service)
        plain.sendall(f"GET {EXPORT} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        plain.recv(1000)
        # Another file, since what the store has read of this one it may keep in memory.
        path.unlink()
        path.write_bytes(b"\0" * 100_000)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)) as broken:
            download.rest()
        download.close()
        if isinstance(broken.value, http.client.IncompleteRead):
            assert broken.value.partial.splitlines()[-1].startswith(b"error: this export is not complete")
        # HTTP/1.0 has no chunks: there the last line tells.
        received = b""
        while data := plain.recv(1 << 16):
            received += data
        plain.close()
        assert b"not complete" in received.splitlines()[-1]
        assert service.get("/health").status == 200
