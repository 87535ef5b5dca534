"""A connection never blocks, and knows when its client is away."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from gunicorn.config import Config

from api.server import limits
from api.server.connection import ClientConnection, State


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, ClientConnection]]:
    """A client and its connection, accepted at 100 s."""
    client, server = socket.socketpair()
    connection = ClientConnection(server, ("192.0.2.1", 1), ("127.0.0.1", 80), Config(), 100.0)
    with client:
        yield client, connection
    connection.close()


def test_the_first_request_is_waited_for_from_the_start(pair: tuple[socket.socket, ClientConnection]) -> None:
    _, connection = pair
    assert connection.state is State.READING
    assert connection.deadline == 100.0 + limits.REQUEST_SECONDS
    connection.wait(State.IDLE, 200.0, 5.0)
    assert (connection.state, connection.since, connection.deadline) == (State.IDLE, 200.0, 205.0)


def test_receiving_takes_what_is_there_and_no_more(pair: tuple[socket.socket, ClientConnection]) -> None:
    client, connection = pair
    assert connection.receive()
    assert not connection.requests.begun
    client.sendall(b"GET /health HTTP/1.1\r\n\r\n")
    assert connection.receive()
    assert connection.requests.take().path == "/health"
    client.close()
    assert not connection.receive()


def test_what_is_discarded_is_no_request(pair: tuple[socket.socket, ClientConnection]) -> None:
    client, connection = pair
    assert connection.discard()
    client.sendall(b"GET")
    assert connection.discard()
    assert not connection.requests.begun
    client.close()
    assert not connection.discard()


def test_the_log_names_the_client(pair: tuple[socket.socket, ClientConnection]) -> None:
    _, connection = pair
    assert connection.name() == "192.0.2.1"
    connection.client = ""
    assert connection.name() == "a Unix socket"


def test_closing_twice_is_fine(pair: tuple[socket.socket, ClientConnection]) -> None:
    _, connection = pair
    connection.close(abort=True)
    connection.close(abort=True)
