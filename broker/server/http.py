"""The broker's HTTP side: /live, /health, /stats and /metrics. GET and HEAD, one answer per connection."""

from __future__ import annotations

import asyncio
import hmac
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from aiohttp import http_exceptions, web

from broker.server.acceptor import Acceptor
from broker.server.bursts import BurstLog
from broker.server.places import ConnectionPlaces, Guest

logger = logging.getLogger(__name__)

MAX_LINE = 8192
MAX_HEADERS = 32
HEAD_S = 5.0  # for a TLS handshake, and for the head of a request
LIFE_S = 15.0  # for a whole connection: one request, and until its answer is taken
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a path. A closed route requires the token, if one is set."""

    answer: Callable[[], Awaitable[web.Response]]
    closed: bool


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns ``value`` as a JSON response."""
    return web.Response(
        body=msgspec.json.encode(value) + b"\n", status=status, headers={"Content-Type": JSON, **(headers or {})}
    )


class HttpServer:
    """Answers the given routes."""

    def __init__(
        self, routes: Mapping[str, Route], token: str = "", most: int = 128, lines: BurstLog | None = None
    ) -> None:
        self.routes = routes
        self._token = token
        self._places = ConnectionPlaces(most, most)
        self._lines = lines or BurstLog(logger)
        self._listener: Acceptor | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen; returns the port. Raises OSError."""
        self._server = web.Server(self._respond)
        self._listener = Acceptor(self._accept, self._places, self._lines, tls, HEAD_S)
        return await self._listener.listen(host, port)

    async def stop(self) -> None:
        """Stop listening and drop the open connections."""
        if self._listener is None:
            return
        self._listener.close()
        await self._server.shutdown(0)

    def _accept(self, guest: Guest | None) -> asyncio.BaseProtocol:
        return _TurnedAway(self._listener) if guest is None else _Connection(self._server, self._places, guest)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, _Connection):
            request.protocol.prove()
        response = await self._answer(request)
        response.headers["Cache-Control"] = "no-store"
        response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        route = self.routes.get(request.path)
        if route is None:
            text = f"{request.path} does not exist: ask for {', '.join(self.routes)}"
            return json_answer({"error": "not_found", "message": text}, 404)
        if request.method not in {"GET", "HEAD"}:
            text = f"{request.method} is not allowed: use GET"
            return json_answer({"error": "method_not_allowed", "message": text}, 405, {"Allow": "GET, HEAD"})
        if route.closed and self._token and not self._is_authorized(request):
            text = "send Authorization: Bearer with the token"
            return json_answer({"error": "unauthorized", "message": text}, 401, {"WWW-Authenticate": "Bearer"})
        try:
            return await route.answer()
        except Exception:
            logger.exception("answering %s failed", request.path)
            return json_answer({"error": "internal", "message": "the broker failed to answer; its log says why"}, 500)

    def _is_authorized(self, request: web.BaseRequest) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode("utf-8", "replace"), self._token.encode()
        )


class _Connection(web.RequestHandler):
    """One HTTP connection."""

    __slots__ = ("_end", "_guest", "_places")

    def __init__(self, server: web.Server, places: ConnectionPlaces, guest: Guest) -> None:
        self._places = places
        self._guest = guest
        self._end: asyncio.TimerHandle | None = None
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to turn it off
            keepalive_timeout=HEAD_S,  # aiohttp also drops a connection that sends no whole request in this time
            lingering_time=0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection: it has LIFE_S, and asks within it."""
        super().connection_made(transport)
        self._guest.leave = cast(asyncio.Transport, transport).abort
        self._end = asyncio.get_running_loop().call_later(LIFE_S, self._guest.leave)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._places.free(self._guest)
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def prove(self) -> None:
        """The request is complete: the connection keeps its place until it is answered."""
        self._places.prove(self._guest)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answers bytes that are not a request. aiohttp would log each with a traceback."""
        text = "this is not an HTTP/1.1 request"
        if isinstance(exc, http_exceptions.LineTooLong):
            status, text = 431, f"a line of the head has more than {MAX_LINE} bytes"
        response = json_answer({"error": "bad_request", "message": text}, status)
        response.force_close()
        return response


class _TurnedAway(asyncio.Protocol):
    """A connection that got no place."""

    def __init__(self, listener: Acceptor | None) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        body = b'{"error":"overloaded","message":"too many connections"}\n'
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n"
        cast(asyncio.Transport, transport).write(head.encode() + b"Connection: close\r\n\r\n" + body)
        transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._listener is not None:
            self._listener.refused -= 1
