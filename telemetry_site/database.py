"""Django's database from DATABASE_URL: SQLite for one machine, PostgreSQL where several pods share the inventory."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import dj_database_url

FORMS = "use postgres://user:password@host:5432/name or sqlite:///path"
ESCAPES = "percent-encode / ? # @ : % in user and password"
# How long anything waits for the database, in seconds. A service has ten seconds to stop.
SQLITE_WAIT = 5
POSTGRES_WAIT = 3


def database_config(url: str, state_dir: Path) -> dict[str, Any]:
    """Returns the entry of DATABASES for ``url``, or SQLite under ``state_dir`` for an empty one.

    Raises ValueError, without the password in its text.
    """
    scheme = url.partition(":")[0].lower()
    if not url:
        return _sqlite({"ENGINE": "django.db.backends.sqlite3", "NAME": state_dir / "inventory.sqlite3"})
    if scheme == "sqlite":
        return _sqlite(_parsed(url))
    if scheme in {"postgres", "postgresql"}:
        return _postgres(url)
    # Without a scheme, the text before the colon may be the secret itself, so the error does not repeat it.
    raise ValueError(f"names an unknown kind of database: {FORMS}")


def _sqlite(config: dict[str, Any]) -> dict[str, Any]:
    config["CONN_MAX_AGE"] = 60
    config["OPTIONS"] = {
        # IMMEDIATE takes the write lock when a transaction begins, so that two writers wait for each other instead of
        # failing half-way. See also inventory.apps.write_ahead.
        "init_command": "PRAGMA synchronous=NORMAL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": SQLITE_WAIT,
    }
    return config


def _postgres(url: str) -> dict[str, Any]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    config = _parsed(url)
    if not config["NAME"]:
        raise ValueError(f"names no database: {FORMS}")
    options = {
        "application_name": "gpu-telemetry",
        "connect_timeout": POSTGRES_WAIT,
        # A server that vanishes without closing its connections is noticed within half a minute, not after hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    } | config.get("OPTIONS", {})
    try:
        make_conninfo(**options)
    except ProgrammingError:
        unknown = ", ".join(sorted(config.get("OPTIONS", {})))
        raise ValueError(f"has parameters that PostgreSQL does not know, among {unknown}") from None
    config["OPTIONS"] = options | {
        # One pool a process. Web workers have four threads; a command has one or two.
        "pool": {
            "min_size": 0,
            "max_size": 8,
            "num_workers": 1,
            "timeout": POSTGRES_WAIT,
            # The pool gives up early and tries again for the next caller, so it notices at once that a server is back.
            "reconnect_timeout": POSTGRES_WAIT,
        }
    }
    config["CONN_MAX_AGE"] = 0  # the pool keeps them
    config["CONN_HEALTH_CHECKS"] = True
    return config


def _parsed(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        _check(parts)
        return dict(dj_database_url.parse(url))
    except (ValueError, KeyError, UnicodeError):
        # The original reason may hold a piece of the password.
        raise ValueError(f"cannot be read as an address: {FORMS}; {ESCAPES}") from None


def _check(parts: SplitResult) -> None:
    """Raises ValueError for port 0, and for a ``#``, which would silently cut the address short."""
    if parts.port == 0 or parts.fragment:
        raise ValueError
