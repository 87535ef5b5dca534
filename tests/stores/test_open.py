from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from stores import open
from stores.base import Store, StoreError
from stores.memory import MemoryStore
from stores.open import get_store, open_store, reset_store, store_key
from stores.sqlite import SqliteStore
from tests.stores.making import START, ask, fleet, gpu


@pytest.fixture(autouse=True)
def _settings(settings: Settings, tmp_path: Path) -> Iterator[None]:
    reset_store()
    settings.STORAGE_TYPE = "sqlite"
    settings.SQLITE_PATH = tmp_path / "r.sqlite3"
    yield
    reset_store()


def test_a_process_has_one_store() -> None:
    found: list[Store] = []
    threads = [threading.Thread(target=lambda: found.append(get_store())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(store) for store in found}) == 1
    assert isinstance(found[0], SqliteStore)


def test_the_settings_name_it(settings: Settings) -> None:
    settings.STORAGE_TYPE = "memory"
    assert isinstance(get_store(), MemoryStore)


def test_reset_closes_it_and_the_next_is_new() -> None:
    first = get_store()
    first.write([fleet([gpu(1)], START)])
    reset_store()
    with pytest.raises(StoreError, match="closed"):
        first.ping()
    assert get_store() is not first
    assert len(ask(get_store())) == 2


def test_a_failed_opening_is_tried_again(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings.SQLITE_PATH = tmp_path / "file" / "r.sqlite3"
    with pytest.raises(StoreError, match="File exists"):
        get_store()
    (tmp_path / "file").unlink()
    get_store().ping()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # newer Pythons warn of any fork with threads
def test_a_child_is_not_held_up_by_a_lock_of_its_parent() -> None:
    get_store().write([fleet([gpu(1)], START)])
    with open._lock:
        child = os.fork()
        if child == 0:
            os._exit(len(ask(get_store())))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 2


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


def test_two_processes_that_share_a_store_have_the_same_key(settings: Settings, tmp_path: Path) -> None:
    keys = {store_key()}
    get_store()
    link = tmp_path / "same.sqlite3"
    link.hardlink_to(settings.SQLITE_PATH)
    keys.add(store_key())
    settings.SQLITE_PATH = link
    keys.add(store_key())
    assert len(keys) == 2  # before and after the file was made
    settings.SQLITE_PATH = tmp_path / "other.sqlite3"
    keys.add(store_key())
    for storage_type in ("influxdb", "memory"):
        settings.STORAGE_TYPE = storage_type
        keys.add(store_key())
    settings.STORAGE_TYPE, settings.INFLUXDB_BUCKET = "influxdb", "another"
    keys.add(store_key())
    assert len(keys) == 6
