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

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 128
MAX_LINE = 8192
MAX_HEADERS = 32
HEAD_S = 5.0  # for a TLS handshake, and for the head of a request
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

    def __init__(self, routes: Mapping[str, Route], token: str = "") -> None:
        self.routes = routes
        self._token = token
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen; returns the port. Raises OSError."""
        self._server = web.Server(self._respond)
        self._listener = await asyncio.get_running_loop().create_server(
            self._accept, host, port, ssl=tls, ssl_handshake_timeout=HEAD_S if tls else None
        )
        return cast(int, self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and drop the open connections."""
        if self._listener is None:
            return
        self._listener.close()
        await self._server.shutdown(0)
        await self._listener.wait_closed()

    def _accept(self) -> asyncio.Protocol:
        return _Connection(self._server) if len(self._server.connections) < MAX_CONNECTIONS else _TurnedAway()

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
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

    def __init__(self, server: web.Server) -> None:
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
    """A connection over MAX_CONNECTIONS."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        body = b'{"error":"overloaded","message":"too many connections"}\n'
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n"
        cast(asyncio.Transport, transport).write(head.encode() + b"Connection: close\r\n\r\n" + body)
        transport.close()
