"""An InfluxDB behind TLS, whose certificate is of a CA that no system knows."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from stores.base import StoreUnavailable
from stores.influxdb import InfluxStore
from stores.influxdb.client import InfluxConfig
from tests.broker.certificates import Authority
from tests.influxd import Influxd
from tests.stores.making import START, ask, gpu, one


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def behind_tls(authority: Authority, influxd: Influxd) -> Iterator[str]:
    """The URL of a server that takes TLS off and passes everything on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("influxdb"))

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as client,
                socket.create_connection(("127.0.0.1", influxd.port)) as server,
            ):
                answers = threading.Thread(target=copy, args=(server, client))
                answers.start()
                copy(client, server)
                answers.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as door:
        door.daemon_threads = True
        thread = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"https://localhost:{door.server_address[1]}"
        door.shutdown()
        thread.join()


def test_readings_go_over_tls_with_a_ca_of_ones_own(
    influx_config: InfluxConfig, authority: Authority, behind_tls: str
) -> None:
    store = InfluxStore(replace(influx_config, url=behind_tls, tls_ca=str(authority.ca)))
    store.write([one(gpu(), START, U=1.0)])
    assert [row.value for row in ask(store)] == [1.0]
    store.close()


def test_a_certificate_of_another_ca_is_named(influx_config: InfluxConfig, behind_tls: str) -> None:
    store = InfluxStore(replace(influx_config, url=behind_tls))
    with pytest.raises(StoreUnavailable, match=r"certificate.*INFLUXDB_TLS_CA"):
        store.ping()
    store.close()
