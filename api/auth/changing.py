"""Who may change something: tokens of the scope admin, and people of the staff who have the permission."""

from __future__ import annotations

from typing import NamedTuple

from django.contrib.auth.models import PermissionsMixin
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.exceptions import NotAuthenticated, PermissionDenied

from api.auth.middleware import WHO_ASKS, access_of, check_scope
from api.models import TokenScope

_MOST_NAME = 150  # what the tables take
_CSRF_HEADER = "X-CSRFToken"


class Changer(NamedTuple):
    """Who changes something, as it is kept with the change. ``user_id`` is None for a token."""

    name: str
    user_id: int | None


class _CsrfCheck(CsrfViewMiddleware):
    """Says why a request is refused, where its base class answers with a page."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        raise PermissionDenied(
            f"a login may change something only with the token of a page of this service, in the header {_CSRF_HEADER}: {reason}"
        )


def check_changer(request: HttpRequest, permission: str) -> Changer:
    """The client, if it may change something. A login needs the token against forged requests too.

    Raises NotAuthenticated for anonymous clients, also where reading is open, and PermissionDenied for others.
    """
    access = access_of(request)
    if access is None:
        raise NotAuthenticated(WHO_ASKS)
    name, user = access.label[:_MOST_NAME], access.user
    if user is None:
        check_scope(request, TokenScope.ADMIN)
        return Changer(name, None)
    if not (isinstance(user, PermissionsMixin) and getattr(user, "is_staff", False) and user.has_perm(permission)):
        raise PermissionDenied(f"this takes a user of the staff with the permission {permission}")
    _check_csrf(request)
    return Changer(name, user.pk)


def _check_csrf(request: HttpRequest) -> None:
    """Views of the API are exempt from Django's own check, which knows no tokens. Raises PermissionDenied."""
    check = _CsrfCheck(lambda _: HttpResponse())
    check.process_request(request)
    check.process_view(request, lambda *_: HttpResponse(), (), {})
