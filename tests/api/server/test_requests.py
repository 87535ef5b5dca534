"""What a connection sent, cut into requests: the same however it was split, and nothing that two servers could read in two ways."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from gunicorn.config import Config
from hypothesis import given
from hypothesis import strategies as st

from api.server import limits
from api.server.requests import RequestRefused, Requests

CFG = Config()
HOST = b"Host: localhost\r\n"
POST = b"POST /login HTTP/1.1\r\n" + HOST


def requests_of(pieces: list[bytes]) -> list[Any]:
    """All whole requests in these pieces."""
    reader = Requests(CFG, ("127.0.0.1", 1))
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (request := reader.take()) is not None:
            found.append(request)
    return found


def seen(requests: list[Any]) -> list[tuple[str, str, bytes]]:
    return [(request.method, request.uri, request.body.read()) for request in requests]


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    body = b"".join(b"%x;name=value\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailers + b"\r\n"


PIPELINE = (
    b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
    b"\r\n" + POST + b"Content-Length: 5\r\n\r\nGET /"
    b"HEAD /b HTTP/1.0\r\n\r\n"
    + chunked(b"one", b"\r\n0\r\n", b"x" * 300, trailers=b"X: y\r\n")
    + b"GET /c HTTP/1.1\r\n\r\n"
)
IN_PIPELINE = [
    ("GET", "/a", b""),
    ("POST", "/login", b"GET /"),
    ("HEAD", "/b", b""),
    ("POST", "/login", b"one\r\n0\r\n" + b"x" * 300),
    ("GET", "/c", b""),
]


@given(st.lists(st.integers(0, len(PIPELINE)), max_size=40))
def test_requests_are_the_same_however_they_come(cuts: list[int]) -> None:
    places = sorted({0, len(PIPELINE), *cuts})
    assert seen(requests_of([PIPELINE[a:b] for a, b in pairwise(places)])) == IN_PIPELINE


def test_requests_may_come_byte_by_byte() -> None:
    assert seen(requests_of([bytes([each]) for each in PIPELINE])) == IN_PIPELINE


def test_django_is_told_the_length_of_a_chunked_body() -> None:
    (request,) = requests_of([chunked(b"abc", b"de")])
    assert ("CONTENT-LENGTH", "5") in request.headers
    assert not any(name == "TRANSFER-ENCODING" for name, _ in request.headers)


def test_a_client_that_waits_for_a_100_is_known_before_its_body() -> None:
    reader = Requests(CFG, ("127.0.0.1", 1))
    reader.feed(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.take() is None
    assert reader.owes_continue
    reader.feed(b"ab")
    request = reader.take()
    assert request.body.read() == b"ab"
    # gunicorn must not send another one.
    assert not request._expected_100_continue
    assert not reader.owes_continue


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"\x00", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        (b"\r\n\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\na", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\na", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer_Encoding: chunked\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400),
        (POST + b"Expect: something\r\nContent-Length: 1\r\n\r\n", 417),
        (POST + b"Content-Length: %d\r\n\r\n" % (limits.MAX_BODY_BYTES + 1), 413),
        (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (limits.MAX_BODY_BYTES + 1), 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n 1\r\na\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;\x00\r\na\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 9000, 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 9000, 431),
        (b"GET /" + b"x" * 9000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 9000, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyy\r\n" * 9000, 431),
    ],
    ids=lambda value: repr(value[-40:]) if isinstance(value, bytes) else str(value),
)
def test_what_is_no_request_is_refused_at_once(sent: bytes, status: int) -> None:
    """None of these waits for more, and its answer ends the connection."""
    with pytest.raises(RequestRefused) as refused:
        requests_of([sent])
    assert refused.value.status == status
    with pytest.raises(RequestRefused) as slowly:
        requests_of([bytes([each]) for each in sent])
    assert slowly.value.status == status


def test_a_head_is_looked_at_once_however_slowly_it_comes() -> None:
    reader = Requests(CFG, ("127.0.0.1", 1))
    head = b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50
    for each in head:
        reader.feed(bytes([each]))
        assert reader.take() is None
        assert reader._scanned == reader.waiting


@pytest.mark.parametrize("part", [b"G", b"GET / HTTP/1.1\r\nX", POST + b"Content-Length: 5\r\n\r\n"])
def test_a_request_has_begun_when_a_part_of_it_is_there(part: bytes) -> None:
    reader = Requests(CFG, ("127.0.0.1", 1))
    assert not reader.begun
    reader.feed(part)
    assert reader.take() is None
    assert reader.begun
