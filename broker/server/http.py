"""The broker's HTTP side: /live, /health, /stats and /metrics for probes, people and Prometheus. GET and HEAD, one answer a connection."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

logger = logging.getLogger(__name__)

MAX_HEAD = 8192
MAX_CONNECTIONS = 128
HEAD_S = 5.0
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (\S{1,2048}) HTTP/1\.[01]")
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A status, a body and what the body is."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    def serialize(self, *, with_body: bool = True) -> bytes:
        """The bytes of the whole answer."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (self.body if with_body else b"")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What the server needs of a request."""

    method: str
    path: str
    authorization: str


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a path. A closed route asks for the token, where one is set."""

    answer: Callable[[], Awaitable[HttpAnswer]]
    closed: bool


def json_answer(value: Any, status: int = 200) -> HttpAnswer:
    """``value`` as JSON."""
    return HttpAnswer(status, msgspec.json.encode(value) + b"\n")


def parse_head(head: bytes) -> HttpRequest | None:
    """The request in the bytes before the empty line; None where they are no HTTP/1 request."""
    line, _, rest = head.partition(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        return None
    authorization = ""
    for header in rest.split(b"\r\n"):
        name, colon, value = header.partition(b":")
        if colon and name.strip().lower() == b"authorization":
            authorization = value.strip().decode("latin-1")
    try:
        path = urlsplit(match[2].decode("latin-1")).path
    except ValueError:
        return None
    return HttpRequest(match[1].decode(), path, authorization)


class HttpServer:
    """Answers the routes it is given."""

    def __init__(self, routes: Mapping[str, Route], token: str = "") -> None:
        self.routes = routes
        self.connections: set[HttpProtocol] = set()
        self._token = token
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen; returns the port. Raises OSError."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: HttpProtocol(self), host, port, ssl=tls, ssl_handshake_timeout=HEAD_S if tls else None
        )
        return cast(int, self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and drop what is open."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self.connections):
            connection.abort()
        await self._server.wait_closed()

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        """The answer to a request. Raises nothing."""
        route = self.routes.get(request.path)
        if route is None:
            text = f"{request.path} is not here: ask for {', '.join(self.routes)}"
            return json_answer({"error": "not_found", "message": text}, 404)
        if request.method not in {"GET", "HEAD"}:
            text = f"{request.method} is not answered: use GET"
            answer = json_answer({"error": "method_not_allowed", "message": text}, 405)
            return HttpAnswer(405, answer.body, headers=(("Allow", "GET, HEAD"),))
        if route.closed and self._token and not self._may(request):
            answer = json_answer({"error": "unauthorized", "message": "send Authorization: Bearer with the token"}, 401)
            return HttpAnswer(401, answer.body, headers=(("WWW-Authenticate", "Bearer"),))
        try:
            return await route.answer()
        except Exception:
            logger.exception("answering %s failed", request.path)
            return json_answer({"error": "internal", "message": "the broker failed to answer; its log says why"}, 500)

    def _may(self, request: HttpRequest) -> bool:
        scheme, _, said = request.authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(said.strip().encode(), self._token.encode())


class HttpProtocol(asyncio.Protocol):
    """One HTTP connection: one request, one answer."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._head = bytearray()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HEAD_S, self.abort)
        if len(self._server.connections) >= MAX_CONNECTIONS:
            self._finish(json_answer({"error": "overloaded", "message": "too many connections"}, 503))
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Part of the head came; a body is not read."""
        if self._task is not None or self._transport.is_closing():
            return
        self._head += data
        head, end, _ = bytes(self._head).partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD:
            text = f"at most {MAX_HEAD} bytes are taken"
            self._finish(json_answer({"error": "bad_request", "message": text}, 431))
        elif end:
            request = parse_head(head)
            if request is None:
                self._finish(json_answer({"error": "bad_request", "message": "this is not an HTTP/1.1 request"}, 400))
                return
            self._deadline.cancel()
            self._task = asyncio.get_running_loop().create_task(self._serve(request))

    def eof_received(self) -> bool:
        """The client sends no more; it may still wait for its answer."""
        return self._task is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()
        self._server.connections.discard(self)

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    async def _serve(self, request: HttpRequest) -> None:
        self._finish(await self._server.answer(request), with_body=request.method != "HEAD")

    def _finish(self, answer: HttpAnswer, *, with_body: bool = True) -> None:
        self._transport.write(answer.serialize(with_body=with_body))
        self._transport.close()
