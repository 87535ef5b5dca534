"""Opens the store that the settings name, once in a process."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings

from readings.text import hide_passwords
from stores.base import Store, StoreError
from stores.rollups.open import reset_rollups

if TYPE_CHECKING:
    from stores.influxdb.client import InfluxConfig


def open_store(storage_type: str, *, sqlite_path: Path, influx: InfluxConfig | None = None) -> Store:
    """Open a store of that type. Raises StoreError or StoreUnavailable with a one-line message."""
    # A process uses one store, so the others are not imported.
    if storage_type == "sqlite":
        from stores.sqlite import SqliteStore

        return SqliteStore(sqlite_path)
    if storage_type == "influxdb" and influx is not None:
        from stores.influxdb import InfluxStore

        return InfluxStore(influx)
    if storage_type == "memory":
        from stores.memory import MemoryStore

        return MemoryStore()
    raise StoreError(f"STORAGE_TYPE: {storage_type!r} is not a store: use sqlite, influxdb or memory")


_lock = threading.Lock()
_store: Store | None = None


def get_store() -> Store:
    """The process's store, opened by the first call. If that raises StoreError or StoreUnavailable, the next call tries again."""
    global _store
    with _lock:
        if _store is None:
            influx = None
            if settings.STORAGE_TYPE == "influxdb":
                from stores.influxdb.settings import influx_config

                influx = influx_config()
            _store = open_store(settings.STORAGE_TYPE, sqlite_path=settings.SQLITE_PATH, influx=influx)
        return _store


def describe_store() -> str:
    """The store that the settings name, in a few words, for a service's first lines."""
    match settings.STORAGE_TYPE:
        case "sqlite":
            return f"sqlite, {settings.SQLITE_PATH}"
        case "influxdb":
            return f"influxdb, bucket {settings.INFLUXDB_BUCKET} at {hide_passwords(settings.INFLUXDB_URL)}"
        case other:
            return f"{other}, in the web process"


def store_key() -> str:
    """What tells the store that the settings name from others: equal for two processes that share it."""
    match settings.STORAGE_TYPE:
        case "sqlite":
            try:
                # The same file may have another path in another container.
                return f"sqlite {settings.SQLITE_PATH.stat().st_ino}"
            except OSError:
                return f"sqlite {settings.SQLITE_PATH}"
        case "influxdb":
            return describe_store()
        case other:
            return f"{other} {socket.gethostname()} {os.getpid()}"


def reset_store() -> None:
    """Close the store and its roll-ups. The next call opens them again. For tests and for the end of a service."""
    global _store
    reset_rollups()
    with _lock:
        if _store is not None:
            _store.close()
            _store = None


def _new_lock() -> None:
    global _lock
    # A thread of the parent may have held the lock at the fork. The store itself survives a fork.
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)
