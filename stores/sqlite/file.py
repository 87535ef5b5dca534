"""One SQLite file that threads and processes share: its connections, its one writer, and what happens when the file is replaced."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from stores.base import StoreError
from stores.sqlite.connections import ReaderPool, abandon, describe, open_file, open_reader
from stores.sqlite.schema import Schema

logger = logging.getLogger(__name__)

BUSY_TIMEOUT = 10.0  # seconds to wait for another process that writes


class _HasConnection(Protocol):
    @property
    def connection(self) -> sqlite3.Connection: ...


W = TypeVar("W", bound=_HasConnection)


class SqliteFile(Generic[W]):
    """The file ``path``, made with ``schema`` if missing. Safe for threads and processes at once, and in the child of a fork.

    ``make_writer`` makes what writes through a connection. ``forget`` is called when another file has taken the path's place.
    Raises StoreError or StoreUnavailable, each with one line that names the file.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        make_writer: Callable[[sqlite3.Connection], W],
        *,
        forget: Callable[[], None] = lambda: None,
        timeout: float = BUSY_TIMEOUT,
    ) -> None:
        self.path = path
        self.timeout = timeout
        self._schema = schema
        self._make_writer = make_writer
        self._forget = forget
        self._closed = False
        self._write_lock = threading.Lock()
        self._writer: W | None = None
        self._readers: ReaderPool
        self._open()
        _files.add(self)

    @contextmanager
    def writing(self) -> Iterator[W]:
        """The writer, for this thread alone. An error drops it, because its caches may be wrong."""
        with self._write_lock:
            self._check_open()
            self._follow()
            if self._writer is None:
                self._writer = self._make_writer(open_file(self.path, self._schema, timeout=self.timeout))
            try:
                yield self._writer
            except sqlite3.Error as error:
                self._drop_writer()
                raise describe(self.path, error) from error
            except BaseException:
                self._drop_writer()
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection in a read transaction: all that is asked inside sees the same state."""
        self._check_open()
        if _identity_of(self.path) != self._identity:
            with self._write_lock:
                self._follow()
        try:
            with self._readers.connection() as connection:
                yield connection
        except sqlite3.Error as error:
            raise describe(self.path, error) from error

    def bytes(self) -> int:
        """The size of the file and its write-ahead log."""
        return sum(
            each.stat().st_size for each in (self.path, self.path.with_name(self.path.name + "-wal")) if each.exists()
        )

    def close(self) -> None:
        """Close the file. A call in another thread ends first."""
        self._closed = True
        _files.discard(self)
        self._readers.close()
        with self._write_lock:
            self._drop_writer()

    def _open(self) -> None:
        connection = open_file(self.path, self._schema, timeout=self.timeout)
        self._identity = _identity_of(self.path)
        self._writer = self._make_writer(connection)
        self._readers = ReaderPool(lambda: open_reader(self.path, timeout=self.timeout))
        self._forget()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed")

    def _follow(self) -> None:
        """Reopen the path if somebody moved, deleted or replaced the file."""
        if _identity_of(self.path) == self._identity:
            return
        logger.warning("%s was moved, deleted or replaced: opening it anew", self.path)
        self._readers.close()
        self._drop_writer()
        self._open()

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.connection.close()
            self._writer = None

    def _after_fork(self) -> None:
        """In the child of a fork: replace the lock, and leave the parent's connections alone."""
        self._write_lock = threading.Lock()
        self._readers.abandon_all()
        if self._writer is not None:
            abandon(self._writer.connection)
            self._writer = None


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


_files: weakref.WeakSet[SqliteFile[Any]] = weakref.WeakSet()


def _leave_connections_to_parent() -> None:
    for file in list(_files):
        file._after_fork()


os.register_at_fork(after_in_child=_leave_connections_to_parent)
