"""Authentication, scopes and throttling. They run before every view, so no view can forget them.

Unless reading is open (openness.py), every request needs a token or a login, except for the probes, the login page, static files and
the admin, which has its own login. A request with neither token nor cookie costs no look-up in database or session.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from rest_framework.exceptions import NotAuthenticated, PermissionDenied

from api.auth.openness import is_open
from api.auth.throttling import Throttle, client_address, network_of
from api.auth.tokens import TokenRefused, find_token
from api.errors import database_away, error_response
from api.models import TokenScope
from telemetry_site.env import RequestRate

_OPEN_FOLDERS = ("/static/", "/admin/")
_OPEN_PATHS = frozenset({"/login", "/logout", "/favicon.ico", "/admin"})
_LOGIN_PATHS = frozenset({"/login", "/admin/login/"})
WHO_ASKS = "a token (Authorization: Bearer …) or a login is required"
REALM = 'Bearer realm="GPU telemetry"'

throttle = Throttle(settings.STATE_DIR / "rates.sqlite3")


class Access(NamedTuple):
    """The client: a unique name for the token or the person, the scope it has, and what people call it.

    ``user`` is None for a token. Django REST framework puts an anonymous one in its place on the request itself.
    """

    name: str
    scope: str
    label: str
    user: AbstractBaseUser | None = None


def access_of(request: HttpRequest) -> Access | None:
    """The client as the middleware identified it. None if it is anonymous."""
    access: Access | None = getattr(request, "access", None)
    return access


def check_scope(request: HttpRequest, scope: str) -> None:
    """Require a scope. Raises NotAuthenticated for anonymous clients and PermissionDenied for another scope."""
    access = access_of(request)
    if access is None:
        raise NotAuthenticated(WHO_ASKS)
    if access.scope != scope:
        raise PermissionDenied(f"the scope {scope} is required; yours is {access.scope}")


class AccessMiddleware:
    """Answers 401 to unknown clients where access is restricted, and 429 to those that ask too often.

    Must come after the session middleware.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._refusal(request) or self.get_response(request)

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:
        path = request.path_info
        if path in _LOGIN_PATHS and request.method == "POST":
            return _limited(f"login {network_of(client_address(request))}", settings.LOGIN_RATE)
        if path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS):
            return None
        refused = ""
        try:
            access = _identify(request)
        except TokenRefused as error:
            access, refused = None, str(error)
        except DatabaseError as error:
            return database_away(error)
        if access is not None:
            request.access = access  # type: ignore[attr-defined]
            return _limited(access.name, settings.API_RATE_PER_TOKEN)
        if settings.API_RATE_PER_ADDRESS is not None:
            limited = _limited(f"address {network_of(client_address(request))}", settings.API_RATE_PER_ADDRESS)
            if limited is not None:
                return limited
        if refused:
            return unauthorized(refused, bad_token=True)
        if is_open(request):
            return None
        # Programs accept anything, or JSON.
        is_person = request.headers.get("Accept", "").startswith("text/html") and "format" not in request.GET
        if request.method in {"GET", "HEAD"} and is_person:
            return HttpResponseRedirect(f"{reverse('login')}?{urlencode({'next': request.get_full_path()})}")
        return unauthorized(WHO_ASKS)


def unauthorized(message: str, *, bad_token: bool = False) -> HttpResponse:
    """The 401 that says how to authenticate (RFC 6750)."""
    response = error_response(401, message)
    response["WWW-Authenticate"] = f'{REALM}, error="invalid_token"' if bad_token else REALM
    return response


def _identify(request: HttpRequest) -> Access | None:
    """The client. Raises TokenRefused for a bad token even where none is needed, so that its owner notices."""
    scheme, _, secret = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        token = find_token(secret.strip())
        return Access(f"token {token.id}", token.scope, f"token {token.name}")
    if settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return None
    user: AbstractBaseUser | AnonymousUser = request.user
    if not user.is_authenticated:
        return None
    is_admin = getattr(user, "is_superuser", False)
    scope = TokenScope.ADMIN if is_admin else TokenScope.READ
    return Access(f"user {user.pk}", scope, user.get_username(), user)


def _limited(name: str, rate: RequestRate | None) -> HttpResponse | None:
    if rate is None:
        return None
    wait = throttle.take(name, rate.count, rate.seconds)
    if not wait:
        return None
    seconds = math.ceil(wait)
    response = error_response(429, f"too many requests: ask again in {seconds} s")
    response["Retry-After"] = str(seconds)
    return response
