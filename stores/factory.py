"""Opening the store that STORAGE_TYPE names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stores.base import Store, StoreError

if TYPE_CHECKING:
    from stores.influx_client import InfluxConfig


def open_store(storage_type: str, *, sqlite_path: Path, influx: InfluxConfig | None = None) -> Store:
    """A store of that type, open. Raises StoreError or StoreUnavailable with one line that says what is wrong."""
    # A process has one store, and InfluxDB's client alone is 50 MiB: each is imported when it is opened.
    if storage_type == "sqlite":
        from stores.sqlite import SqliteStore

        return SqliteStore(sqlite_path)
    if storage_type == "influxdb" and influx is not None:
        from stores.influx import InfluxStore

        return InfluxStore(influx)
    if storage_type == "memory":
        from stores.memory import MemoryStore

        return MemoryStore()
    raise StoreError(f"STORAGE_TYPE: {storage_type!r} is not a store: use sqlite, influxdb or memory")
