"""The formats of an export: what turns parts of an answer into the bytes of a file, one part after the other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from api.rows import csv_line

# Rows of one row group of a Parquet file: so many are held in memory at once.
_ROW_GROUP = 100_000


class Layout(Protocol):
    """How the rows of one kind of answer are written. A part is some of them, with a len()."""

    columns: tuple[str, ...]

    def csv_rows(self, part: Any, *, safe: bool) -> list[str]: ...
    def json_rows(self, part: Any) -> list[str]: ...
    def parquet_schema(self) -> Any: ...
    def parquet_table(self, parts: Sequence[Any]) -> Any: ...


class Encoder(Protocol):
    """Makes a file: ``begin``, then each part, then ``end``. ``broken`` is what a file ends with that is not whole."""

    def begin(self) -> bytes: ...
    def encode(self, part: Any) -> bytes: ...
    def end(self) -> bytes: ...
    def broken(self, reason: str) -> bytes: ...


class CsvEncoder:
    """RFC 4180 with a header. A line of a single field, which is no row, ends a file that is not whole."""

    def __init__(self, layout: Layout, *, safe: bool = False) -> None:
        self._layout = layout
        self._safe = safe

    def begin(self) -> bytes:
        """The header."""
        return csv_line(self._layout.columns).encode()

    def encode(self, part: Any) -> bytes:
        """Some lines."""
        return "".join(self._layout.csv_rows(part, safe=self._safe)).encode()

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def broken(self, reason: str) -> bytes:
        """A line that says so."""
        return csv_line([f"error: this export is not complete: {reason}"]).encode()


class NdjsonEncoder:
    """One JSON object a line; an object with ``error`` ends a file that is not whole."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def begin(self) -> bytes:
        """Nothing."""
        return b""

    def encode(self, part: Any) -> bytes:
        """Some lines."""
        rows = self._layout.json_rows(part)
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

    def __init__(self, layout: Layout) -> None:
        # Some 50 MB of code that only this needs.
        from api.parquet import open_writer

        self._layout = layout
        self._sink = _Sink()
        self._writer: Any = open_writer(self._sink, layout.parquet_schema())
        self._waiting: list[Any] = []
        self._rows = 0

    def begin(self) -> bytes:
        """The file's first bytes."""
        return self._sink.take()

    def encode(self, part: Any) -> bytes:
        """A row group, once there are rows enough for one."""
        self._waiting.append(part)
        self._rows += len(part)
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
            self._writer.write_table(self._layout.parquet_table(self._waiting), row_group_size=_ROW_GROUP)
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
