"""The embedded store: one SQLite file that one or more collectors write while web workers read."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from readings.model import PointBlock
from stores.base import (
    GroupSeries,
    ReadingsQuery,
    RowBatch,
    SeriesQuery,
    StoreError,
    StoreStats,
    StoreUnavailable,
    WriteResult,
)
from stores.paging import bounded
from stores.sqlite.connections import ReaderPool, abandon, describe, open_file, open_reader, shorten_log
from stores.sqlite.reader import Names, Reader, stream
from stores.sqlite.series import SeriesReader
from stores.sqlite.writer import Unstorable, Writer
from stores.validate import split_storable

logger = logging.getLogger(__name__)

_BUSY_TIMEOUT = 10.0  # seconds to wait for another process that writes
_LONGEST_PAUSE = 0.1


class SqliteStore:
    """Readings in the SQLite file ``path``, made if missing. See stores.base.Store for the methods.

    Safe for threads and for several processes at once, and in the child of a fork. ``timeout`` is how many seconds a
    call waits for another process's lock. Raises StoreError or StoreUnavailable, each with one line that names the file.
    """

    expires_by_itself = False

    def __init__(self, path: Path | str, *, timeout: float = _BUSY_TIMEOUT) -> None:
        self.path = Path(path)
        self._timeout = timeout
        self._closed = False
        self._write_lock = threading.Lock()
        self._open()
        _stores.add(self)

    def write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        """Store all blocks in one transaction, which is on the disk when this returns."""
        try:
            return WriteResult(self._write(blocks))
        except Unstorable:
            storable, refused = split_storable(blocks)
            return WriteResult(self._write(storable), tuple(refused))

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, as columns."""
        with self._reading() as connection:
            return Reader(connection, self._names).page(query)

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """The rows that match, a bounded number at a time."""
        return bounded(stream(self._reading, self._names, query), replace(query, after=None))

    def series(self, query: SeriesQuery) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        with self._reading() as connection:
            return SeriesReader(connection, self._names, query).answer()

    def metric_names(self, gpu: str | None = None) -> list[str]:
        """Names of the metrics that have readings."""
        with self._reading() as connection:
            return Reader(connection, self._names).metric_names(gpu)

    def stats(self) -> StoreStats:
        """The store's counters. ``bytes`` counts the file and its write-ahead log."""
        with self._reading() as connection:
            return Reader(connection, self._names).stats(self._bytes())

    def apply_retention(self, oldest_ns: int) -> int:
        """Drop older blocks one at a time. The pause after each is as long as the drop took, so writers get their turn."""
        with self._writing() as writer:
            blocks = writer.blocks_before(oldest_ns)
        dropped = 0
        for block in blocks:
            began = time.monotonic()
            with self._writing() as writer:
                dropped += writer.drop_block(block)
            time.sleep(min(time.monotonic() - began, _LONGEST_PAUSE))
        with self._writing() as writer:
            return dropped + writer.drop_rest(oldest_ns)

    def ping(self) -> None:
        """Raise StoreUnavailable unless it can answer queries now."""
        try:
            with self._reading() as connection:
                connection.execute("SELECT generation FROM state").fetchone()
        except StoreUnavailable:
            raise
        except StoreError as error:
            raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        """Close the file. A call in another thread ends first."""
        self._closed = True
        _stores.discard(self)
        self._readers.close()
        with self._write_lock:
            self._drop_writer()

    def _write(self, blocks: Sequence[PointBlock]) -> int:
        with self._writing() as writer:
            written = writer.write(blocks)
            shorten_log(writer.connection, self.path, timeout=self._timeout)
            return written

    def _open(self) -> None:
        """Open the file, with empty caches."""
        connection = open_file(self.path, timeout=self._timeout)
        self._file = _identity_of(self.path)
        self._writer: Writer | None = Writer(connection)
        self._readers = ReaderPool(lambda: open_reader(self.path, timeout=self._timeout))
        self._names = Names()

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        """The writer, for this thread alone. An error drops it, because its caches may be wrong."""
        with self._write_lock:
            self._check_open()
            self._follow_file()
            if self._writer is None:
                self._writer = Writer(open_file(self.path, timeout=self._timeout))
            try:
                yield self._writer
            except sqlite3.Error as error:
                self._drop_writer()
                raise describe(self.path, error) from error
            except BaseException:
                self._drop_writer()
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._check_open()
        if _identity_of(self.path) != self._file:
            with self._write_lock:
                self._follow_file()
        try:
            with self._readers.connection() as connection:
                yield connection
        except sqlite3.Error as error:
            raise describe(self.path, error) from error

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed")

    def _follow_file(self) -> None:
        """Reopen the path if somebody moved, deleted or replaced the file."""
        if _identity_of(self.path) == self._file:
            return
        logger.warning("%s was moved, deleted or replaced: opening it anew", self.path)
        self._readers.close()
        self._drop_writer()
        self._open()

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.connection.close()
            self._writer = None

    def _bytes(self) -> int:
        return sum(
            each.stat().st_size for each in (self.path, self.path.with_name(self.path.name + "-wal")) if each.exists()
        )

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


_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


def _leave_connections_to_parent() -> None:
    for store in list(_stores):
        store._after_fork()


os.register_at_fork(after_in_child=_leave_connections_to_parent)
