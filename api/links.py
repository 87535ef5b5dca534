"""Links that answers and pages contain."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from rest_framework.request import Request

SAFE = "~:@"  # in a segment of a path


def absolute(request: HttpRequest | Request, path: str) -> str:
    """The absolute URL of a path: below PUBLIC_URL if that is set, else where the client asked.

    The path begins with the prefix that PUBLIC_URL may have, as all paths of Django do.
    """
    if not settings.PUBLIC_URL:
        return str(request.build_absolute_uri(path))
    scheme, netloc, *_ = urlsplit(settings.PUBLIC_URL)
    return f"{scheme}://{netloc}{path}"


def list_url(name: str, request: HttpRequest | Request) -> str:
    """The absolute URL of a view. Call it once per answer."""
    return absolute(request, reverse(name))


def item_url(base: str, key: str) -> str:
    """The URL of one item of a list."""
    return f"{base}/{quote(key, safe=SAFE)}"
