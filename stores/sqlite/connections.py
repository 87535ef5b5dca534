"""Connections to an SQLite file of ours, and the translation of its errors."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stores.base import StoreError, StoreUnavailable
from stores.sqlite.schema import Schema, create_or_check

# Temporary: the same call may succeed later.
_RETRIABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_CANTOPEN,
}
_MEANING = {
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_LOCKED: "is locked by another connection",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_READONLY: "cannot be written: the file or its folder is read-only",
    sqlite3.SQLITE_PERM: "cannot be opened: permission denied",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a copy, or move it away to start anew",
    sqlite3.SQLITE_NOTADB: "is not an SQLite file: name another file, or move it away",
}

_WAL_PAGES_BEFORE_CHECKPOINT = 4096  # 16 MiB
_WAL_BYTES_KEPT = 64 << 20
_PATIENCE_MS = 100

# Connections that a fork copied from the parent: using or closing them in the child could undo the parent's locks.
_abandoned: list[sqlite3.Connection] = []


def describe(path: Path, error: sqlite3.Error) -> StoreError:
    """The store's error for SQLite's: one line that names the file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind = StoreUnavailable if code in _RETRIABLE else StoreError
    return kind(f"{path}: {_MEANING.get(code, 'failed')} ({error})")


def open_file(path: Path, schema: Schema, *, timeout: float) -> sqlite3.Connection:
    """Open or create a file of this schema, for writing. Raises StoreError or StoreUnavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot make its folder {path.parent}: {error.strerror}") from error
    try:
        connection = _connect(path, "rwc", timeout)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be opened or created ({error}): {_why_not(path)}") from error
    try:
        _use_wal(connection, timeout)
        create_or_check(connection, schema)
        # FULL: a commit returns when the write-ahead log is on the disk itself. A killed process would lose nothing
        # with NORMAL either (what it wrote is with the kernel). But after a power loss NORMAL may have lost the last
        # commits, while the broker remembers that they were stored and never sends them again.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -32768")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES_BEFORE_CHECKPOINT}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
        # Some builds overwrite deleted data with zeroes, which would double the writes of retention.
        connection.execute("PRAGMA secure_delete = OFF")
    except sqlite3.Error as error:
        connection.close()
        raise describe(path, error) from error
    except StoreError as error:
        connection.close()
        raise type(error)(f"{path}: {error}") from error
    return connection


def shorten_log(connection: sqlite3.Connection, path: Path, *, timeout: float) -> None:
    """Empty a write-ahead log that has grown too long, waiting a moment for its readers.

    SQLite starts the log again from its beginning only when nobody reads it; readers that always overlap would let it
    grow for ever. If they do not let go in time, the next call tries again.
    """
    try:
        size = path.with_name(path.name + "-wal").stat().st_size
    except OSError:
        return
    if size > _WAL_BYTES_KEPT:
        connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")


def open_reader(path: Path, *, timeout: float) -> sqlite3.Connection:
    """Open the file, which must be there, for reading only. Raises sqlite3.Error."""
    connection = _connect(path, "rw", timeout)
    # Not mode=ro: a reader must be able to make the shared-memory file that WAL needs.
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA cache_size = -8192")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def abandon(connection: sqlite3.Connection) -> None:
    """Never use or close a connection that belongs to the parent process."""
    _abandoned.append(connection)


class ReaderPool:
    """Connections for reading. Each is used by one thread at a time, and goes back when the work is done.

    ``open_one`` makes a connection. After a fork, the child calls ``abandon_all`` before anything else.
    """

    def __init__(self, open_one: Callable[[], sqlite3.Connection]) -> None:
        self._open_one = open_one
        self._idle: list[sqlite3.Connection] = []
        self._busy: set[sqlite3.Connection] = set()
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One read transaction: all that is asked inside sees the same state. A connection that failed is not kept."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open_one()
        self._busy.add(connection)
        failed = True
        try:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
            failed = False
        finally:
            self._busy.discard(connection)
            if failed or self._closed:
                connection.close()
            else:
                self._idle.append(connection)

    def close(self) -> None:
        """Close the idle connections now, and those in use when they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def abandon_all(self) -> None:
        """In the child of a fork: leave the parent's connections alone."""
        for connection in [*self._idle, *self._busy]:
            abandon(connection)
        self._idle, self._busy = [], set()


def _connect(path: Path, mode: str, timeout: float) -> sqlite3.Connection:
    # Each connection is used by one thread at a time, but not always by the same one.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )


def _use_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Readers go on while somebody writes. The mode is kept in the file; only the first opener changes it."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # This one statement does not wait for a lock by itself: two processes may open a new file at once.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            if mode != "wal":
                raise StoreError("cannot use a write-ahead log there: use a folder on a local disk")
            return


def _why_not(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    if path.exists():
        return "the file must be readable and writable" if not os.access(path, os.R_OK | os.W_OK) else "see the reason"
    return "its folder must be writable"
