"""Exports by the real web service: what clients on a socket see when something goes wrong."""

from __future__ import annotations

import http.client
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.exports.stream import AT_ONCE
from readings.model import Gpu, Point, PointBlock
from stores.sqlite import SqliteStore
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
