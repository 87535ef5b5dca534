"""Middleware that answers probes and sets headers, and the errors that gunicorn answers before Django runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import msgspec
from django.http import HttpRequest, HttpResponse
from rest_framework.response import Response

from api.errors import RETRY_AFTER_SECONDS, error_body, method_not_allowed
from api.views.probes import HealthView, ReadyView

# Pages load only what this service serves, send forms only to it, and may not be framed.
POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class HeadersMiddleware:
    """Adds the policy unless the view set its own, keeps answers out of caches, and gives Django's 405 a body."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code == 405 and (response.streaming or not response.content):
            response = method_not_allowed(request, response)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        if not request.path_info.startswith("/static/"):
            response.headers.setdefault("Cache-Control", "no-store")
        return response


class Writable(Protocol):
    """A socket, or what takes bytes as a socket does."""

    def sendall(self, data: bytes, /) -> object: ...


def write_error(sock: Writable, status_int: int, reason: str, mesg: str) -> None:
    """Replaces gunicorn's ``util.write_error``, which answers with an HTML page."""
    body = msgspec.json.encode(error_body(status_int, " ".join((mesg or reason).split())))
    retry_after = f"Retry-After: {RETRY_AFTER_SECONDS}\r\n" if status_int == 503 else ""
    head = (
        f"HTTP/1.1 {status_int} {reason}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/json\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{retry_after}Content-Length: {len(body)}\r\n\r\n"
    )
    sock.sendall(head.encode("latin-1") + body)


class ProbeMiddleware:
    """Answers /health and /ready itself.

    Probes come by address and without TLS, so this must run before every middleware that checks host or scheme.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.probes: dict[str, Callable[..., HttpResponse]] = {
            "/health": HealthView.as_view(),
            "/ready": ReadyView.as_view(),
        }

    def __call__(self, request: HttpRequest) -> HttpResponse:
        probe = self.probes.get(request.path_info)
        if probe is None:
            return self.get_response(request)
        response = cast(Response, probe(request))
        response.render()
        # CommonMiddleware sets this for other answers, but it also checks the host name.
        response.headers.setdefault("Content-Length", str(len(response.content)))
        return response
