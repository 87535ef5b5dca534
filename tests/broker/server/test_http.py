from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from broker.server import http as http_module
from broker.server.http import HttpServer, Route, json_answer


async def fetch(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, read to the end: status, headers, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in headers), body


async def hello() -> web.Response:
    return json_answer({"hello": "world"})


async def broken() -> web.Response:
    raise RuntimeError("broken")


slow_asked = asyncio.Event()


async def slow() -> web.Response:
    slow_asked.set()
    await asyncio.sleep(0.5)
    return json_answer({})


@asynccontextmanager
async def serving(token: str = "", most: int = 128) -> AsyncIterator[int]:
    server = HttpServer(
        {
            "/open": Route(hello, False),
            "/closed": Route(hello, True),
            "/broken": Route(broken, False),
            "/slow": Route(slow, False),
        },
        token,
        most,
    )
    port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.stop()
        await asyncio.sleep(0)  # dropped connections are told on the loop's next turn


async def test_it_answers_a_path() -> None:
    async with serving() as port:
        status, headers, body = await fetch(port, b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, json.loads(body)) == (200, {"hello": "world"})
        assert headers["Content-Type"] == "application/json"
        assert headers["Content-Length"] == str(len(body))


async def test_a_head_has_no_body() -> None:
    async with serving() as port:
        status, headers, body = await fetch(port, b"HEAD /open HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, headers["Content-Length"], body) == (200, "18", b"")


async def test_a_request_may_come_byte_by_byte() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404, "/open, /closed"),
        (b"POST /open HTTP/1.1\r\nHost: x\r\n\r\n", 405, "use GET"),
        (b"nonsense\r\n\r\n", 400, "not an HTTP"),
        (b"GET /open HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000, 431, "8192"),
        (b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", 500, "failed"),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong(request_: bytes, status: int, words: str) -> None:
    async with serving() as port:
        got, _, body = await fetch(port, request_)
        assert got == status
        assert words in json.loads(body)["message"]


async def test_a_closed_path_asks_for_the_token() -> None:
    async with serving("sesame") as port:
        assert (await fetch(port, b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
        for said in (b"", b"Authorization: Bearer wrong\r\n", b"Authorization: Basic sesame\r\n"):
            assert (await fetch(port, b"GET /closed HTTP/1.1\r\nHost: x\r\n" + said + b"\r\n"))[0] == 401
        assert (await fetch(port, b"GET /closed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n\r\n"))[0] == 200


async def test_who_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "HEAD_S", 0.05)
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /open")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_too_many_at_once_are_turned_away() -> None:
    slow_asked.clear()
    async with serving(most=1) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await slow_asked.wait()
        assert (await fetch(port, b""))[0] == 503
        writer.close()
        await writer.wait_closed()


async def test_half_sent_requests_make_room_for_probes() -> None:
    async with serving(most=8) as port:
        half = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in half:
            writer.write(b"GET /open HTTP/1.1\r\nHost:")
        for _ in range(20):
            assert (await fetch(port, b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
        for _, writer in half:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_an_answer_that_nobody_takes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "LIFE_S", 0.1)
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
