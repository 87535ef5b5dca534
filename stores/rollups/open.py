"""Opens the roll-ups that the settings name, once in a process."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from django.conf import settings

from stores.base import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from stores.rollups.windows import RollupStore, Tier

logger = logging.getLogger(__name__)

# Somebody may make the buckets, or give the token the right to: so it is tried again after so many seconds.
_TRY_AGAIN = 60.0


class _Off(NamedTuple):
    why: str
    until: float


_lock = threading.Lock()
_rollups: RollupStore | None = None
_off: _Off | None = None


def get_rollups() -> RollupStore | None:
    """The process's roll-ups, opened by the first call; None where they are off (see ``why_no_rollups``).

    Raises StoreUnavailable while the store does not answer that call; the next one tries again.
    """
    if _switched_off():
        return None
    with _lock:
        if _rollups is not None or (_off is not None and time.monotonic() < _off.until):
            return _rollups
    # Not under the lock: a server that is away would make all threads wait for each other.
    opened: RollupStore | None = None
    try:
        opened = _open()
        opened.ping()
    except StoreError as error:
        if opened is not None:
            opened.close()
        if isinstance(error, StoreUnavailable):
            raise
        _note_off(str(error))
        return None
    return _keep(opened)


def why_no_rollups() -> str:
    """Why get_rollups() found none, on one line; empty where it found some, or was not called yet."""
    if reason := _switched_off():
        return reason
    with _lock:
        return "" if _off is None else _off.why


def retention_of(tier: Tier) -> float:
    """How many seconds the settings keep a tier; 0 for ever."""
    return {"1m": settings.RETENTION_1M, "1h": settings.RETENTION_1H}[tier]


def reset_rollups() -> None:
    """Close the roll-ups. The next get_rollups() opens them again. For tests and for the end of a service."""
    global _rollups, _off
    with _lock:
        if _rollups is not None:
            _rollups.close()
        _rollups = _off = None


def _switched_off() -> str:
    if not settings.ROLLUPS:
        return "ROLLUPS=false"
    return "STORAGE_TYPE=memory keeps none" if settings.STORAGE_TYPE == "memory" else ""


def _note_off(why: str) -> None:
    global _off
    with _lock:
        if _off is None or _off.why != why:
            logger.warning("roll-ups are off, readings are kept all the same: %s", why)
        _off = _Off(why, time.monotonic() + _TRY_AGAIN)


def _keep(opened: RollupStore) -> RollupStore:
    """The process's roll-ups: these, unless another thread was faster."""
    global _rollups, _off
    with _lock:
        if _rollups is not None:
            opened.close()
            return _rollups
        _rollups, _off = opened, None
        return opened


def _open() -> RollupStore:
    # A process uses one store, so the other is not imported.
    retention: dict[Tier, float] = {"1m": retention_of("1m"), "1h": retention_of("1h")}
    if settings.STORAGE_TYPE == "sqlite":
        from stores.rollups.sqlite import SqliteRollups

        return SqliteRollups(settings.SQLITE_PATH, retention=retention)
    if settings.STORAGE_TYPE == "influxdb":
        from stores.influxdb.settings import influx_config
        from stores.rollups.influxdb import InfluxRollups

        is_given: dict[Tier, bool] = {"1m": settings.RETENTION_1M_IS_GIVEN, "1h": settings.RETENTION_1H_IS_GIVEN}
        return InfluxRollups(influx_config(), retention=retention, given=[tier for tier in is_given if is_given[tier]])
    raise StoreError(f"STORAGE_TYPE: {settings.STORAGE_TYPE!r} keeps no roll-ups")


def _new_lock() -> None:
    global _lock
    # A thread of the parent may have held the lock at the fork. The roll-ups themselves survive a fork.
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)
