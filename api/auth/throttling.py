"""Rate limits, counted over all web processes of this machine.

The throttle stores one number for each name: the time at which its allowance is whole again (the "generic cell rate
algorithm"). A request moves that time on by period / count, and is refused if that would put it more than a period ahead.
So ``count`` requests may come at once, and then one every period / count. The processes share a small SQLite file.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import sqlite3
import threading
import time
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """The client's address as text, or "unknown" if it cannot be parsed.

    Every proxy appends the address of its peer to X-Forwarded-For. Anything before that was sent by the client and is
    not trusted. So with ``TRUSTED_PROXIES`` proxies, the client's address is that many places from the end. Without
    proxies, the header is ignored.
    """
    address = str(request.META.get("REMOTE_ADDR", ""))
    if settings.TRUSTED_PROXIES:
        forwarded = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if part.strip()]
        if len(forwarded) >= settings.TRUSTED_PROXIES:
            address = _without_port(forwarded[-settings.TRUSTED_PROXIES])
    return address if _parsed(address) else "unknown"


# What proxies write: an address, with a port or not. An IPv6 address has brackets if it has a port.
_WITH_PORT = re.compile(r"\[(?P<six>[^\]]+)\](?::\d{1,5})?|(?P<four>[0-9.]+):\d{1,5}", re.ASCII)


def _without_port(text: str) -> str:
    text = text.strip('"')
    match = _WITH_PORT.fullmatch(text)
    return (match["six"] or match["four"]) if match else text


def network_of(address: str) -> str:
    """The unit of counting: an IPv4 address, or an IPv6 /64, because one customer has all of it."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


logger = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_CLEAN_SECONDS = 60.0

# A past time counts as now. One more than a period ahead was stored before the clock was set back, and counts as now, too.
_TAKE = """
INSERT INTO allowance VALUES (:name, :now + :step)
ON CONFLICT (name) DO UPDATE
SET whole_at = (CASE WHEN whole_at BETWEEN :now AND :now + :period THEN whole_at ELSE :now END) + :step
WHERE (CASE WHEN whole_at BETWEEN :now AND :now + :period THEN whole_at ELSE :now END) + :step <= :now + :period
RETURNING whole_at
"""


# Names counted in memory while the file cannot be used.
_MOST_IN_MEMORY = 100_000


class Throttle:
    """Counts requests by name in one file. Every method may be called from any thread and any process.

    While the file cannot be used (a full disk, say), each process counts for itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._clean_at = 0.0
        self._whole_at: dict[str, int] = {}
        self._failed = False

    def take(self, name: str, count: int, seconds: float) -> float:
        """Count one request of ``name``, which may make ``count`` in ``seconds``. Returns 0, or the seconds to wait."""
        with self._lock:
            try:
                wait = self._take(name, count, seconds)
            except (sqlite3.Error, OSError) as error:
                if not self._failed:
                    logger.warning("each process counts requests for itself now: %s: %s", self._path, error)
                self._failed = True
                self._close()
                return self._take_in_memory(name, count, seconds)
            if self._failed:
                self._failed = False
                self._whole_at.clear()
                logger.info("requests are counted in %s again", self._path)
            return wait

    def _take_in_memory(self, name: str, count: int, seconds: float) -> float:
        now, period = time.time_ns(), int(seconds * _SECOND)
        step = period // count
        if len(self._whole_at) >= _MOST_IN_MEMORY:
            self._whole_at = {each: at for each, at in self._whole_at.items() if at > now}
        whole_at = self._whole_at.get(name, now)
        whole_at = (whole_at if now <= whole_at <= now + period else now) + step
        # Of more names than memory should hold, none is let through.
        if whole_at > now + period or len(self._whole_at) >= _MOST_IN_MEMORY:
            return max(1, whole_at - period - now) / _SECOND
        self._whole_at[name] = whole_at
        return 0.0

    def close(self) -> None:
        """Close the file. The next call opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _take(self, name: str, count: int, seconds: float) -> float:
        if self._connection is None:
            self._connection = _open(self._path)
        now = time.time_ns()
        period = int(seconds * _SECOND)
        step = period // count
        values = {"name": name, "now": now, "period": period, "step": step}
        if self._connection.execute(_TAKE, values).fetchone() is None:
            (whole_at,) = self._connection.execute(
                "SELECT whole_at FROM allowance WHERE name = ?", (name,)
            ).fetchone() or (now,)
            return max(1, whole_at + step - period - now) / _SECOND
        if time.monotonic() >= self._clean_at:
            self._clean_at = time.monotonic() + _CLEAN_SECONDS
            self._connection.execute("DELETE FROM allowance WHERE whole_at < ?", (now,))
        return 0.0


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    # Nothing here outlives its period, so losing it in a crash is fine.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("CREATE TABLE IF NOT EXISTS allowance (name TEXT PRIMARY KEY, whole_at INTEGER) WITHOUT ROWID")
    return connection
