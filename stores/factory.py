"""Opening the store that STORAGE_TYPE names."""

from __future__ import annotations

from pathlib import Path

from stores.base import Store, StoreError
from stores.influx import InfluxStore
from stores.influx_client import InfluxConfig
from stores.memory import MemoryStore
from stores.sqlite import SqliteStore


def open_store(storage_type: str, *, sqlite_path: Path, influx: InfluxConfig | None = None) -> Store:
    """A store of that type, open. Raises StoreError or StoreUnavailable with one line that says what is wrong."""
    if storage_type == "sqlite":
        return SqliteStore(sqlite_path)
    if storage_type == "influxdb" and influx is not None:
        return InfluxStore(influx)
    if storage_type == "memory":
        return MemoryStore()
    raise StoreError(f"STORAGE_TYPE: {storage_type!r} is not a store: use sqlite, influxdb or memory")
