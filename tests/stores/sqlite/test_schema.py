from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from stores.base import StoreError
from stores.sqlite import SqliteStore
from stores.sqlite.schema import READINGS, create_or_check
from stores.sqlite.writer import _FIND_IDENTITY


def test_the_file_says_whose_it_is_and_its_version(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "r.sqlite3").close()
    header = (tmp_path / "r.sqlite3").read_bytes()[:100]
    assert header[:16] == b"SQLite format 3\0"
    assert header[68:72] == b"GPUT" == READINGS.application_id.to_bytes(4)
    assert int.from_bytes(header[60:64]) == READINGS.version


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite3").write_bytes(b"")
    store = SqliteStore(tmp_path / "r.sqlite3")
    assert store.stats().readings == 0
    store.close()


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE theirs (a)", "PRAGMA user_version = 5", "PRAGMA application_id = 9"]
)
def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "theirs.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(statement)
        connection.commit()
    with pytest.raises(StoreError, match=r"theirs\.sqlite3: is an SQLite file of something else"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'block'").fetchone() == (0,)


@pytest.mark.parametrize(("version", "word"), [(READINGS.version + 1, "newer"), (READINGS.version - 1, "older")])
def test_another_version_is_told_from_another_file(tmp_path: Path, version: int, word: str) -> None:
    path = tmp_path / "r.sqlite3"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(StoreError, match=rf"r\.sqlite3: has schema version {version}, made by an? {word} release"):
        SqliteStore(path)


def test_a_file_of_the_old_layout_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE reading (minute INTEGER, series INTEGER, time INTEGER, value REAL)")
        connection.execute(f"PRAGMA application_id = {READINGS.application_id}")
        connection.execute("PRAGMA user_version = 1")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"move the file away, or name another \(SQLITE_PATH\)") as caught:
        SqliteStore(path)
    assert "\n" not in str(caught.value)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("reading",)]
    assert len(path.read_bytes()) == len(before)


def test_creating_twice_is_harmless() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create_or_check(connection, READINGS)
        create_or_check(connection, READINGS)
        assert connection.execute("SELECT generation FROM state").fetchall() == [(1,)]


def test_a_failed_creation_leaves_nothing(tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA max_page_count = 5")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            create_or_check(connection, READINGS)
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_gpus_description_is_found_by_the_gpu_and_not_by_what_all_have(tmp_path: Path) -> None:
    """Nearly all GPUs may have no pod, so any other index would read all of them for each new one."""
    with closing(sqlite3.connect(tmp_path / "a.sqlite3", isolation_level=None)) as connection:
        create_or_check(connection, READINGS)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {_FIND_IDENTITY}", [""] * 10).fetchall()
    [(*_, step)] = plan
    assert "USING INDEX identity_by_source (source=? AND pod=? AND namespace=? AND container=? AND hostname=?" in step
