"""Gives every request an id: the caller's X-Request-ID where it is valid, else a new one. Answer and log lines carry it."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable

from django.core.signals import request_finished
from django.http import HttpRequest, HttpResponse

from telemetry_site.logs import request_id

logger = logging.getLogger(__name__)

HEADER = "X-Request-ID"
# The id goes into headers and logs, so it must not break a line or grow without limit.
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}", re.ASCII)


def _forget(**_: object) -> None:
    request_id.set("")


class RequestIdMiddleware:
    """Must be the first middleware: every line logged during a request carries its id, also while an answer streams."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        request_finished.connect(_forget)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER, "")
        current = given if _SANE.fullmatch(given) else secrets.token_hex(16)
        request_id.set(current)
        began = time.monotonic()
        response = self.get_response(request)
        response.headers[HEADER] = current
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "%(method)s %(path)s: %(status)d in %(seconds).3f s",
                {
                    "method": request.method,
                    "path": request.path,
                    "status": response.status_code,
                    "seconds": round(time.monotonic() - began, 6),
                },
            )
        return response
