"""How many connections the process's limit of open files allows."""

from __future__ import annotations

import resource
from typing import NamedTuple

from broker.errors import ListenError

# For segments, side files, directories and connections that are being turned away.
RESERVED = 64
LEAST_PLACES = 16
HTTP_PLACES = 128


class Descriptors(NamedTuple):
    """The limit of open files, and the connections that fit: from clients and over HTTP."""

    limit: int
    clients: int
    http: int


def raise_limit() -> int:
    """Raises the soft limit of open files to the hard one; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # some systems refuse an unlimited one: the soft limit stays
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def share_out(limit: int, most_clients: int) -> Descriptors:
    """Divides the descriptors. Raises ListenError if there are too few to serve anybody."""
    places = limit - RESERVED
    if places < LEAST_PLACES:
        raise ListenError(
            f"at most {limit} files may be open, which leaves none for clients: "
            f"allow {RESERVED + LEAST_PLACES} or more (ulimit -n)"
        )
    http = min(HTTP_PLACES, places // 4)
    return Descriptors(limit, min(most_clients, places - http), http)
