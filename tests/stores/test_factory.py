from __future__ import annotations

from pathlib import Path

import pytest

from stores.base import StoreError
from stores.memory import MemoryStore
from stores.open import open_store
from stores.sqlite import SqliteStore


def test_each_type_opens_its_store(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite3"
    memory, sqlite = open_store("memory", sqlite_path=path), open_store("sqlite", sqlite_path=path)
    assert isinstance(memory, MemoryStore)
    assert isinstance(sqlite, SqliteStore)
    assert sqlite.path == path
    memory.close()
    sqlite.close()


def test_memory_makes_no_file(tmp_path: Path) -> None:
    open_store("memory", sqlite_path=tmp_path / "r.sqlite3").close()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_type_names_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="STORAGE_TYPE: 'redis' is not a store: use sqlite, influxdb or memory"):
        open_store("redis", sqlite_path=tmp_path / "r.sqlite3")
