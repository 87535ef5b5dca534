from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from stores.base import StoreError, StoreUnavailable
from stores.sqlite.connections import ReaderPool, describe, open_file, open_reader
from stores.sqlite.schema import READINGS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A new file of readings, under a name that a URI must quote."""
    path = tmp_path / "odd ?#%41 ü" / "r&mode=ro.sqlite3"
    open_file(path, READINGS, timeout=1.0).close()
    return path


def test_odd_paths_are_taken_as_they_are(path: Path) -> None:
    assert path.is_file()


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        open_reader(tmp_path / "none.sqlite3", timeout=0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_cannot_write(path: Path) -> None:
    with (
        closing(open_reader(path, timeout=0.1)) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        connection.execute("DELETE FROM block")


def test_connections_are_used_again_but_never_by_two_at_once(path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def open_one() -> sqlite3.Connection:
        opened.append(open_reader(path, timeout=0.1))
        return opened[-1]

    pool = ReaderPool(open_one)
    with pool.connection() as first, pool.connection() as second:
        assert first is not second
    with pool.connection() as again:
        assert again in (first, second)
    assert len(opened) == 2
    pool.close()
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_a_connection_that_failed_is_not_kept(path: Path) -> None:
    pool = ReaderPool(lambda: open_reader(path, timeout=0.1))
    with pytest.raises(sqlite3.OperationalError), pool.connection() as connection:
        connection.execute("SELECT * FROM nothing_of_that_name")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
    pool.close()


def test_what_is_in_use_is_closed_when_it_comes_back(path: Path) -> None:
    pool = ReaderPool(lambda: open_reader(path, timeout=0.1))
    with pool.connection() as connection:
        pool.close()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_one_transaction_sees_one_state(path: Path) -> None:
    pool = ReaderPool(lambda: open_reader(path, timeout=0.1))
    writer = open_file(path, READINGS, timeout=0.1)
    with pool.connection() as connection:
        assert connection.execute("SELECT generation FROM state").fetchone() == (1,)
        writer.execute("UPDATE state SET generation = 2")
        assert connection.execute("SELECT generation FROM state").fetchone() == (1,)
    with pool.connection() as connection:
        assert connection.execute("SELECT generation FROM state").fetchone() == (2,)
    writer.close()
    pool.close()


def test_openers_at_once_all_succeed(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    errors: list[BaseException] = []

    def work() -> None:
        barrier.wait()
        try:
            open_file(tmp_path / "r.sqlite3", READINGS, timeout=20.0).close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_file_that_stays_locked_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match=r"r\.sqlite3: is locked by another process"):
            open_file(path, READINGS, timeout=0.05)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable, "is locked by another process"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreUnavailable, "is locked by another process"),
        (sqlite3.SQLITE_LOCKED, StoreUnavailable, "is locked by another connection"),
        (sqlite3.SQLITE_FULL, StoreUnavailable, "the disk is full"),
        (sqlite3.SQLITE_IOERR_WRITE, StoreUnavailable, "cannot be read or written"),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable, "cannot be opened"),
        (sqlite3.SQLITE_CORRUPT, StoreError, "is damaged"),
        (sqlite3.SQLITE_NOTADB, StoreError, "is not an SQLite file"),
        (sqlite3.SQLITE_READONLY, StoreError, "read-only"),
        (sqlite3.SQLITE_ERROR, StoreError, "failed"),
    ],
)
def test_errors_say_whether_to_ask_again(code: int, kind: type[StoreError], words: str) -> None:
    error = sqlite3.OperationalError("reason")
    error.sqlite_errorcode = code
    described = describe(Path("/somewhere/r.sqlite3"), error)
    assert type(described) is kind
    assert str(described).startswith("/somewhere/r.sqlite3: ")
    assert words in str(described)
    assert str(described).endswith("(reason)")


def test_an_error_without_a_code_is_described() -> None:
    assert str(describe(Path("r"), sqlite3.InterfaceError("odd"))) == "r: failed (odd)"
