"""Every error of the API has one shape: ``{"error": code, "message": text}``."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import APIException
from rest_framework.response import Response

from api.schema.answers import ErrorAnswer
from readings.text import printable
from stores.base import StoreError, TooBusy, TooMuch

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    409: "conflict",
    413: "content_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    417: "expectation_failed",
    429: "too_many_requests",
    431: "headers_too_large",
    500: "server_error",
    501: "not_implemented",
    503: "unavailable",
}

STORE_AWAY = "the store of readings does not answer"
_DATABASE_AWAY = "the inventory database does not answer"
_DATABASE_FAILED = "the inventory database does not answer, or cannot be written: the web service's log says why"


class BadRequest(APIException):
    """A parameter cannot be used. The text names it and says what is allowed."""

    status_code = 400


class NotFound(APIException):
    """Nothing was found. The text says what was asked for."""

    status_code = 404


class Conflict(APIException):
    """What was asked for does not go with the state that something is in. The text says which."""

    status_code = 409


class Unavailable(APIException):
    """Something that the answer needs cannot be used now. The text says what."""

    status_code = 503


def no_such(what: str, name: str) -> NotFound:
    """The error for a name that nothing has. A path with a slash at its end asks for a name with one."""
    hint = ": paths have no trailing slash" if name.endswith("/") else ""
    return NotFound(f"there is no {what} {name[:255]!r}{hint}")


def error_body(status: int, message: str) -> ErrorAnswer:
    """The body of an error answer."""
    return ErrorAnswer(_CODES.get(status, "error"), message)


def error_response(status: int, message: str) -> HttpResponse:
    """An error answer for code that runs before the views."""
    return HttpResponse(msgspec.json.encode(error_body(status, message)), "application/json", status)


def database_away(error: DatabaseError) -> HttpResponse:
    """The 503 for a database that does not answer, for code that runs before the views."""
    logger.warning("the database does not answer: %s", error)
    response = error_response(503, _DATABASE_AWAY)
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook: the answer for an exception that a view raised, or None for a bug of ours (a 500)."""
    headers: dict[str, str] = {}
    match error:
        case APIException():
            status, message = error.status_code, _text(error.detail)
            if wait := getattr(error, "wait", None):
                headers["Retry-After"] = str(int(wait))
            if auth_header := getattr(error, "auth_header", None):
                headers["WWW-Authenticate"] = auth_header
        case Http404():
            status, message = 404, "there is nothing here"
        case PermissionDenied():
            status, message = 403, "this is not allowed"
        case SuspiciousOperation():
            status, message = 400, str(error)
        case TooMuch():
            status, message = 400, str(error)
        case TooBusy():
            status, message = 503, str(error)
        case StoreError():
            # The reason goes to the log only, because it names files of this machine.
            logger.warning("the store does not answer: %s", error)
            status, message = 503, STORE_AWAY
        case OperationalError() | InterfaceError() | InternalError():
            logger.warning("the database does not answer: %s", error)
            status, message = 503, _DATABASE_AWAY
        case _:
            return None
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Response(msgspec.to_builtins(error_body(status, message)), status=status, headers=headers)


def _text(detail: object) -> str:
    """One line from DRF's detail, which is a text, a list or a dict of lists."""
    if isinstance(detail, dict):
        return "; ".join(f"{name}: {_text(value)}" for name, value in detail.items())
    if isinstance(detail, (list, tuple)):
        return "; ".join(_text(value) for value in detail)
    return str(detail)


def _wants_page(request: HttpRequest) -> bool:
    """Whether the answer is for a person. Under /api everybody gets JSON."""
    if request.path_info == "/api" or request.path_info.startswith("/api/"):
        return False
    return "text/html" in request.META.get("HTTP_ACCEPT", "")


# Errors that Django answers itself (an unknown path or host, a broken request, a bug of ours) have the API's shape, too.
# Outside /api, people get Django's plain page instead.


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400."""
    if _wants_page(request):
        return defaults.bad_request(request, exception)
    return error_response(400, str(exception) or "the request is broken")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler403."""
    if _wants_page(request):
        return defaults.permission_denied(request, exception)
    return error_response(403, "this is not allowed")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    if _wants_page(request):
        return defaults.page_not_found(request, exception)
    return _nothing_at(request)


@csrf_exempt
def unknown_path(request: HttpRequest, rest: str = "") -> HttpResponse:
    """Answers every other path under /api with a 404, whatever the method, also with DEBUG on."""
    return _nothing_at(request)


def _nothing_at(request: HttpRequest) -> HttpResponse:
    path = request.path_info
    hint = ": paths have no trailing slash" if path.endswith("/") else ", see /api/v1 for what there is"
    return error_response(404, f"there is nothing at {printable(path[:200])}{hint}")


def method_not_allowed(request: HttpRequest, refusal: HttpResponse) -> HttpResponse:
    """Django's 405, which has no body, in the API's shape."""
    response = error_response(405, f"method {str(request.method)[:20]!r} is not allowed: use {refusal['Allow']}")
    response["Allow"] = refusal["Allow"]
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500, called while the error is handled. A database that is away, full or read-only is no bug."""
    if isinstance(sys.exception(), (OperationalError, InterfaceError, InternalError)):
        if _wants_page(request):
            # Plain text, because the frame of a page needs the database.
            response = HttpResponse(f"503: {_DATABASE_FAILED}\n", "text/plain; charset=utf-8", 503)
        else:
            response = error_response(503, _DATABASE_FAILED)
        response["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response
    if _wants_page(request):
        return defaults.server_error(request)
    return error_response(
        500, "internal error: the web service's log has the details, under this answer's X-Request-ID"
    )
