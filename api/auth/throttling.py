"""How often somebody may ask, counted over all web processes of this machine.

Each name has one number: when its allowance will be whole again (the "generic cell rate algorithm"). A request moves it
on by period / count and is refused where that would put it more than a period ahead: so ``count`` requests may come at once,
and then one each period / count. The numbers are in a small SQLite file, which is what the processes share.
"""

from __future__ import annotations

import ipaddress
import logging
import sqlite3
import threading
import time
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """The client's address, as text; what cannot be read is "unknown".

    Every proxy adds the address it was asked from to the end of X-Forwarded-For; what stands before that is what the
    client said. So with ``TRUSTED_PROXIES`` proxies of ours the client's is that many places from the end, and
    without any the header is not read at all.
    """
    address = str(request.META.get("REMOTE_ADDR", ""))
    if settings.TRUSTED_PROXIES:
        forwarded = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if part.strip()]
        if len(forwarded) >= settings.TRUSTED_PROXIES:
            address = forwarded[-settings.TRUSTED_PROXIES]
    return address if _parsed(address) else "unknown"


def network_of(address: str) -> str:
    """Whom to count as one: an IPv4 address; of IPv6 the /64, since one customer has all of it."""
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

# A number that is past counts as now. One that is more than a period ahead is from before the clock was set back.
_TAKE = """
INSERT INTO allowance VALUES (:name, :now + :step)
ON CONFLICT (name) DO UPDATE
SET whole_at = (CASE WHEN whole_at BETWEEN :now AND :now + :period THEN whole_at ELSE :now END) + :step
WHERE (CASE WHEN whole_at BETWEEN :now AND :now + :period THEN whole_at ELSE :now END) + :step <= :now + :period
RETURNING whole_at
"""


class Throttle:
    """Counts by name in one file. Every method may be called from any thread and any process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._clean_at = 0.0

    def take(self, name: str, count: int, seconds: float) -> float:
        """Take one request of ``name``'s allowance of ``count`` in ``seconds``: 0, or the seconds until there is one again.

        Where the file cannot be used it allows: an answer too many is better than none.
        """
        with self._lock:
            try:
                return self._take(name, count, seconds)
            except (sqlite3.Error, OSError) as error:
                logger.warning("requests are not counted: %s: %s", self._path, error)
                self._close()
                return 0.0

    def close(self) -> None:
        """Close the file; the next call opens it again."""
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
    # Nothing here outlives its period: a crash may take it.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("CREATE TABLE IF NOT EXISTS allowance (name TEXT PRIMARY KEY, whole_at INTEGER) WITHOUT ROWID")
    return connection
