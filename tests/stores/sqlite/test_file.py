from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from stores.base import StoreError
from stores.sqlite.file import SqliteFile
from stores.sqlite.schema import READINGS, Schema

OTHER = Schema(0x4F544852, 1, "CREATE TABLE number (value INTEGER)")


class Numbers:
    """Writes numbers, and knows how many it wrote."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.written = 0

    def write(self, value: object) -> None:
        self.written += 1
        self.connection.execute("INSERT INTO number VALUES (?)", (value,))


def numbers(file: SqliteFile[Numbers]) -> list[int]:
    with file.reading() as connection:
        return [value for (value,) in connection.execute("SELECT value FROM number ORDER BY value")]


def test_it_has_the_tables_and_the_writer_it_was_given(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "n.sqlite3", OTHER, Numbers)
    for value in (1, 2):
        with file.writing() as writer:
            writer.write(value)
    assert writer.written == 2
    assert numbers(file) == [1, 2]
    file.close()
    with pytest.raises(StoreError, match=r"n\.sqlite3: the store is closed"):
        numbers(file)


def test_a_writer_that_failed_is_not_used_again(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "n.sqlite3", OTHER, Numbers)
    with pytest.raises(StoreError, match=r"n\.sqlite3: failed"), file.writing() as writer:
        writer.write([])
    with file.writing() as other:
        other.write(1)
    assert other is not writer
    file.close()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    SqliteFile(tmp_path / "n.sqlite3", OTHER, Numbers).close()
    with pytest.raises(StoreError, match="is an SQLite file of something else"):
        SqliteFile(tmp_path / "n.sqlite3", READINGS, Numbers)


def test_what_was_known_of_a_replaced_file_is_forgotten(tmp_path: Path) -> None:
    forgotten: list[int] = []
    file = SqliteFile(tmp_path / "n.sqlite3", OTHER, Numbers, forget=lambda: forgotten.append(1))
    with file.writing() as writer:
        writer.write(1)
    for each in tmp_path.iterdir():
        each.unlink()
    assert numbers(file) == []
    assert len(forgotten) == 2
    file.close()
