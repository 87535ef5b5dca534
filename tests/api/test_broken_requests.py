"""What is no request that Django could answer: an error in the API's shape, and the connection is closed."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from api.middleware import write_error
from tests.api.serving import START_SECONDS, Service, migrated, serving


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(migrated(tmp_path_factory.mktemp("state"))) as running:
        yield running


def read(sock: socket.socket, method: str = "GET") -> tuple[int, dict[str, str]]:
    """Status and body of the one answer; the other side has closed after it."""
    answer = http.client.HTTPResponse(sock, method=method)
    answer.begin()
    body = answer.read()
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status, json.loads(body)


def say(service: Service, request: bytes) -> tuple[int, dict[str, str]]:
    where = urlsplit(service.address)
    with socket.create_connection((str(where.hostname), where.port or 0), START_SECONDS) as sock:
        sock.sendall(request)
        return read(sock)


HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"GET /api/v1?x=" + b"y" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "uri_too_long"),
        (b"rubbish\r\n\r\n", 400, "bad_request"),
        (b"GET /api/v1 HTTP/9.9\r\n" + HOST + b"\r\n", 400, "bad_request"),
        (b"G\x00T /api/v1 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
        (b"GET /api/v1 HTTP/1.1\r\nX: a\x00b\r\n\r\n", 400, "bad_request"),
        (b"GET /api/v1 HTTP/1.1\r\nHost localhost\r\n\r\n", 400, "bad_request"),
        (b"GET /api/v1 HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /api/v1 HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_request"),
        (b"GET /api/v1/gpus/%ff%00%zz HTTP/1.1\r\n" + HOST + b"\r\n", 404, "not_found"),
        (b"GET /api/v1/gpus?%ff=%zz HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
        (b"GET /api/v1/gpus?search=%ff%fe HTTP/1.1\r\n" + HOST + b"\r\n", 200, ""),
        (b"GET /api/v1/../../etc HTTP/1.1\r\n" + HOST + b"\r\n", 404, "not_found"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_a_broken_request_is_answered_in_the_api_s_shape(
    service: Service, request_: bytes, status: int, code: str
) -> None:
    answer, body = say(service, request_)
    assert (answer, body.get("error", "")) == (status, code)
    if code:
        assert set(body) == {"error", "message"}
        assert "\n" not in body["message"]


def test_a_message_is_one_line_and_never_markup() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        write_error(theirs, 400, "Bad Request", 'a\n"<b>\u00e9')
        theirs.close()
        assert read(ours) == (400, {"error": "bad_request", "message": 'a "<b>\u00e9'})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        write_error(theirs, 500, "Internal Server Error", "")
        theirs.close()
        assert read(ours) == (500, {"error": "server_error", "message": "Internal Server Error"})
