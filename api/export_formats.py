"""The formats of an export: what turns portions of readings into the bytes of a file, one portion after the other."""

from __future__ import annotations

import io
from typing import Any, Protocol

import msgspec

from api.rows import CSV_COLUMNS, csv_line, csv_rows, json_rows
from stores.base import Portion

# Rows of one row group of a Parquet file: so many are held in memory at once.
_ROW_GROUP = 100_000


class Encoder(Protocol):
    """Makes a file: ``begin``, then each portion, then ``end``. ``broken`` is what a file ends with that is not whole."""

    def begin(self) -> bytes: ...
    def encode(self, portion: Portion) -> bytes: ...
    def end(self) -> bytes: ...
    def broken(self, reason: str) -> bytes: ...


class CsvEncoder:
    """RFC 4180 with a header. A line of a single field, which is no row, ends a file that is not whole."""

    def __init__(self, *, safe: bool = False) -> None:
        self._safe = safe

    def begin(self) -> bytes:
        """The header."""
        return csv_line(CSV_COLUMNS).encode()

    def encode(self, portion: Portion) -> bytes:
        """Some lines."""
        return "".join(csv_rows(portion, safe=self._safe)).encode()

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def broken(self, reason: str) -> bytes:
        """A line that says so."""
        return csv_line([f"error: this export is not complete: {reason}"]).encode()


class NdjsonEncoder:
    """One JSON object a line; an object with ``error`` ends a file that is not whole."""

    def begin(self) -> bytes:
        """Nothing."""
        return b""

    def encode(self, portion: Portion) -> bytes:
        """Some lines."""
        rows = json_rows(portion)
        rows.append("")
        return "\n".join(rows).encode()

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def broken(self, reason: str) -> bytes:
        """A line that says so."""
        error = {"error": "unavailable", "message": f"this export is not complete: {reason}"}
        return msgspec.json.encode(error) + b"\n"


class ParquetEncoder:
    """Apache Parquet: times in ns UTC, values as doubles, texts as dictionaries. Without its end the file cannot be read."""

    def __init__(self) -> None:
        # Some 50 MB of code that only this needs.
        from api import parquet

        self._sink = _Sink()
        self._writer: Any = parquet.open_writer(self._sink)
        self._table_of = parquet.table_of
        self._waiting: list[Portion] = []
        self._rows = 0

    def begin(self) -> bytes:
        """The file's first bytes."""
        return self._sink.take()

    def encode(self, portion: Portion) -> bytes:
        """A row group, once there are rows enough for one."""
        self._waiting.append(portion)
        self._rows += len(portion)
        return self._write() if self._rows >= _ROW_GROUP else b""

    def end(self) -> bytes:
        """The rest, and the index of the file."""
        rest = self._write()
        self._writer.close()
        return rest + self._sink.take()

    def broken(self, reason: str) -> bytes:
        """Nothing: it is the end that makes it a file."""
        return b""

    def _write(self) -> bytes:
        if self._waiting:
            self._writer.write_table(self._table_of(self._waiting), row_group_size=_ROW_GROUP)
            self._waiting, self._rows = [], 0
        return self._sink.take()


class _Sink(io.RawIOBase):
    """A file that keeps what was written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken
