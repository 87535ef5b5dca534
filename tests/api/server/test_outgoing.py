"""What is on its way to a client: kept while the client takes nothing, and never waited for beyond a deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from api.server import limits
from api.server.outgoing import ClientGone, Outgoing, Stop

MUCH = b"x" * 8_000_000


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Outgoing]]:
    """A client that takes only what it reads, and what is on its way to it."""
    client, server = socket.socketpair()
    server.setblocking(False)
    with client, server:
        yield client, Outgoing(server)


def read(client: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += client.recv(1 << 16)
    return found


def test_nothing_is_sent_before_the_flush(pair: tuple[socket.socket, Outgoing]) -> None:
    client, out = pair
    out.sendall(b"head")
    out.sendall(b"body")
    assert out.unsent == 8
    assert out.flush()
    assert out.unsent == 0
    assert client.recv(100) == b"headbody"


def test_what_the_client_does_not_take_is_kept(pair: tuple[socket.socket, Outgoing]) -> None:
    client, out = pair
    out.sendall(MUCH)
    assert not out.flush()
    assert 0 < out.unsent < len(MUCH)
    out.sendall(b"end")
    taken = b""
    while not out.flush():
        taken += client.recv(1 << 20)
    taken += read(client, len(MUCH) + 3 - len(taken))
    assert taken == MUCH + b"end"


def test_a_client_that_is_away_is_gone(pair: tuple[socket.socket, Outgoing]) -> None:
    client, out = pair
    client.close()
    out.sendall(MUCH)
    with pytest.raises(ClientGone):
        out.flush()


def test_a_delivery_waits_for_its_client(pair: tuple[socket.socket, Outgoing]) -> None:
    client, out = pair
    reader = threading.Thread(target=read, args=(client, len(MUCH)))
    reader.start()
    out.sendall(MUCH)
    out.deliver(lambda: None)
    assert out.unsent == 0
    reader.join()


def test_a_delivery_ends_at_its_deadline(pair: tuple[socket.socket, Outgoing], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.1)
    monkeypatch.setattr(limits, "MIN_BYTES_PER_SECOND", 1e12)
    _, out = pair
    out.sendall(MUCH)
    with pytest.raises(ClientGone):
        out.deliver(lambda: None)


def test_a_delivery_ends_when_the_worker_does(pair: tuple[socket.socket, Outgoing]) -> None:
    _, out = pair
    out.sendall(MUCH)
    with pytest.raises(ClientGone):
        out.deliver(lambda: Stop(time.monotonic(), time.monotonic()))


def test_the_last_line_has_room_though_the_client_reads_nothing() -> None:
    """Over TCP, where a full connection's buffer can grow at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            server.setblocking(False)
            out = Outgoing(server)
            out.use_small_buffer()
            sent = 0
            while out.flush():
                out.sendall(b"x" * limits.STREAM_WAITING_BYTES)
                sent += limits.STREAM_WAITING_BYTES
            out.sendall(b"the last line")
            assert not out.flush()
            out.make_room()
            assert out.flush()
            server.close()
            assert read(client, sent + 13).endswith(b"xthe last line")


def test_what_is_dropped_is_not_sent(pair: tuple[socket.socket, Outgoing]) -> None:
    client, out = pair
    out.sendall(b"lost")
    out.drop()
    out.sendall(b"kept")
    assert out.flush()
    assert client.recv(100) == b"kept"
