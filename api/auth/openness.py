"""Whether a client may read without a token or a login.

With ``API_AUTH_REQUIRED=auto`` it may where nobody but this machine can ask: the server says that it listens on the loopback
alone, no proxy is configured, and the request shows none and names this machine.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.http import HttpRequest

# What proxies add. A client that adds one itself only closes the service to itself.
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP")


class _Server:
    """What the web server says of itself. Nothing, unless it is gunicorn with the project's configuration."""

    def __init__(self) -> None:
        self.is_on_loopback: bool | None = None


server = _Server()


def only_loopback(listeners: Iterable[Any]) -> bool:
    """Whether each of these sockets is TCP on the loopback. Behind a Unix socket there is a proxy."""
    listeners = list(listeners)
    return bool(listeners) and all(
        each.family in (socket.AF_INET, socket.AF_INET6) and _is_loopback(each.getsockname()[0]) for each in listeners
    )


def is_open(request: HttpRequest) -> bool:
    """Whether the request needs neither token nor login to read."""
    if settings.API_AUTH_REQUIRED is not None:
        return not settings.API_AUTH_REQUIRED
    return (
        server.is_on_loopback is True
        and not any(name.startswith(_FORWARDED) for name in request.META)
        and _is_loopback(str(request.META.get("REMOTE_ADDR", "")))
        # Another name would be a page's that has its name point here, to read with a browser of this machine.
        and _is_loopback(_host_of(str(request.META.get("HTTP_HOST", "localhost"))))
    )


def may_be_open() -> bool:
    """Whether some clients need neither, as far as is known."""
    if settings.API_AUTH_REQUIRED is not None:
        return not settings.API_AUTH_REQUIRED
    return server.is_on_loopback is not False


def warning(required: bool | None, listeners: Iterable[Any]) -> str:
    """What to say at the start where reading is open; empty where it is not."""
    listeners = list(listeners)
    if required or (required is None and not only_loopback(listeners)):
        return ""
    if only_loopback(listeners):
        who, why = "everyone on this machine", "it listens on the loopback alone"
        if required is not None:
            why = "API_AUTH_REQUIRED=false"
    else:
        who, why = "everyone who can reach this service", "API_AUTH_REQUIRED=false"
    return f"{who} can read all telemetry, because {why}: to close it set API_AUTH_REQUIRED=true, and create tokens with manage.py apitoken"


def _host_of(header: str) -> str:
    """The name or address in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
