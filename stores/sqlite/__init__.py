"""The embedded store: one SQLite file that one or more collectors write while web workers read."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from readings.model import PointBlock
from stores.aggregate.arrays import ReadingArrays
from stores.base import (
    GroupSeries,
    HostLookup,
    ReadingsQuery,
    RowBatch,
    SeriesQuery,
    StoreError,
    StoreStats,
    StoreUnavailable,
    WriteResult,
)
from stores.paging import bounded
from stores.sqlite.arrays import readings
from stores.sqlite.connections import shorten_log
from stores.sqlite.file import BUSY_TIMEOUT, SqliteFile
from stores.sqlite.reader import Names, Reader, stream
from stores.sqlite.schema import READINGS
from stores.sqlite.series import SeriesReader
from stores.sqlite.writer import Unstorable, Writer
from stores.validate import split_storable

_LONGEST_PAUSE = 0.1


class SqliteStore:
    """Readings in the SQLite file ``path``, made if missing. See stores.base.Store for the methods.

    Safe for threads and for several processes at once, and in the child of a fork. ``timeout`` is how many seconds a
    call waits for another process's lock. Raises StoreError or StoreUnavailable, each with one line that names the file.
    """

    expires_by_itself = False

    def __init__(self, path: Path | str, *, timeout: float = BUSY_TIMEOUT) -> None:
        self.path = Path(path)
        self.file = SqliteFile(self.path, READINGS, Writer, forget=self._forget, timeout=timeout)

    def write(self, blocks: Sequence[PointBlock]) -> WriteResult:
        """Store all blocks in one transaction, which is on the disk when this returns."""
        try:
            return WriteResult(self._write(blocks))
        except Unstorable:
            storable, refused = split_storable(blocks)
            return WriteResult(self._write(storable), tuple(refused))

    def page(self, query: ReadingsQuery) -> RowBatch:
        """The rows that match, as columns."""
        with self.file.reading() as connection:
            return Reader(connection, self._names).page(query)

    def stream(self, query: ReadingsQuery) -> Iterator[RowBatch]:
        """The rows that match, a bounded number at a time."""
        return bounded(stream(self.file.reading, self._names, query), replace(query, after=None))

    def series(self, query: SeriesQuery) -> list[GroupSeries]:
        """The groups that have readings in the range."""
        with self.file.reading() as connection:
            return SeriesReader(connection, self._names, query).answer()

    def readings(
        self,
        metric_name: str,
        start_ns: int,
        end_ns: int,
        *,
        gpus: Collection[str] = (),
        hosts: HostLookup | None = None,
    ) -> Iterator[ReadingArrays]:
        """All readings of one metric in [start, end), in parts."""
        return readings(self.file.reading, self._names, metric_name, start_ns, end_ns, gpus)

    def metric_names(self, gpu: str | None = None) -> list[str]:
        """Names of the metrics that have readings."""
        with self.file.reading() as connection:
            return Reader(connection, self._names).metric_names(gpu)

    def stats(self) -> StoreStats:
        """The store's counters. ``bytes`` counts the file and its write-ahead log."""
        with self.file.reading() as connection:
            return Reader(connection, self._names).stats(self.file.bytes())

    def apply_retention(self, oldest_ns: int) -> int:
        """Drop older blocks one at a time. The pause after each is as long as the drop took, so writers get their turn."""
        with self.file.writing() as writer:
            blocks = writer.blocks_before(oldest_ns)
        dropped = 0
        for block in blocks:
            began = time.monotonic()
            with self.file.writing() as writer:
                dropped += writer.drop_block(block)
            time.sleep(min(time.monotonic() - began, _LONGEST_PAUSE))
        with self.file.writing() as writer:
            return dropped + writer.drop_rest(oldest_ns)

    def ping(self) -> None:
        """Raise StoreUnavailable unless it can answer queries now."""
        try:
            with self.file.reading() as connection:
                connection.execute("SELECT generation FROM state").fetchone()
        except StoreUnavailable:
            raise
        except StoreError as error:
            raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        """Close the file. A call in another thread ends first."""
        self.file.close()

    def _write(self, blocks: Sequence[PointBlock]) -> int:
        with self.file.writing() as writer:
            written = writer.write(blocks)
            shorten_log(writer.connection, self.path, timeout=self.file.timeout)
            return written

    def _forget(self) -> None:
        self._names = Names()
