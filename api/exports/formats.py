"""The file formats of exports. An encoder turns the parts of an answer into bytes, one part after the other."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from readings.times import format_time

# Rows in one row group of a Parquet file. The encoder holds that many in memory.
_ROW_GROUP = 100_000
# A spreadsheet takes a field that begins like this for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

BOM = "\ufeff".encode()


class Column(NamedTuple):
    """A column of a file. ``optional`` allows missing values."""

    name: str
    kind: Literal["time", "text", "integer", "number"]
    optional: bool = False


class ColumnValues(NamedTuple):
    """The values of a column in one part: one for each row or, with ``places``, each row's place among ``values``."""

    values: Sequence[Any]
    places: Sequence[int] | None = None


class Layout(Protocol):
    """How one kind of answer is laid out in rows. A part is some of these rows and has a len()."""

    @property
    def columns(self) -> Sequence[Column]: ...
    def csv_rows(self, part: Any, *, safe: bool) -> list[str]: ...
    def json_rows(self, part: Any) -> list[str]: ...
    def column_values(self, part: Any) -> Iterable[ColumnValues]: ...


class Encoder(Protocol):
    """Writes a file: ``begin``, then each part, then ``end``. A file that breaks off ends with ``broken`` instead."""

    def begin(self) -> bytes: ...
    def encode(self, part: Any) -> bytes: ...
    def end(self) -> bytes: ...
    def broken(self, reason: str) -> bytes: ...


def csv_line(fields: Sequence[object], *, safe: bool = False) -> str:
    """One line of CSV with its line end. None is an empty field.

    With ``safe``, a text that a spreadsheet would take for a formula gets a ' in front.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([_defused(each) for each in fields] if safe else fields)
    return text.getvalue()


def _defused(field: object) -> object:
    return f"'{field}" if isinstance(field, str) and field.startswith(_FORMULA) else field


def time_texts(times: Sequence[int]) -> list[str]:
    """The times in RFC 3339. Each distinct time is formatted once, because neighbouring rows often share it."""
    texts: dict[int, str] = {}
    return [texts.get(time_ns) or texts.setdefault(time_ns, format_time(time_ns)) for time_ns in times]


def number_texts(values: Sequence[float]) -> list[str]:
    """The shortest text of each (finite) number that reads back as the same number."""
    return msgspec.json.encode(values)[1:-1].decode().split(",") if values else []


class CsvEncoder:
    """RFC 4180 with a header. A file that breaks off ends with a line of one field, which cannot be a row."""

    def __init__(self, layout: Layout, *, safe: bool = False) -> None:
        self._layout = layout
        self._safe = safe

    def begin(self) -> bytes:
        """The header. For spreadsheets a mark before it says that the text is UTF-8."""
        return (BOM if self._safe else b"") + csv_line([column.name for column in self._layout.columns]).encode()

    def encode(self, part: Any) -> bytes:
        """A line for each row."""
        return "".join(self._layout.csv_rows(part, safe=self._safe)).encode()

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def broken(self, reason: str) -> bytes:
        """A line with the reason."""
        return csv_line([f"error: this export is not complete: {reason}"]).encode()


class NdjsonEncoder:
    """One JSON object per line. A file that breaks off ends with an object that has ``error``."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def begin(self) -> bytes:
        """Nothing."""
        return b""

    def encode(self, part: Any) -> bytes:
        """A line for each row."""
        return "\n".join([*self._layout.json_rows(part), ""]).encode()

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def broken(self, reason: str) -> bytes:
        """A line with the reason."""
        error = {"error": "unavailable", "message": f"this export is not complete: {reason}"}
        return msgspec.json.encode(error) + b"\n"


class ParquetEncoder:
    """Apache Parquet: times in ns UTC, numbers as doubles, texts as dictionaries. A file that breaks off cannot be read."""

    def __init__(self, layout: Layout) -> None:
        # Imported here because it takes 50 MB and most web processes never write Parquet.
        import pyarrow as pa
        from pyarrow import parquet

        # Arrow's own allocators keep freed memory; the system's returns it.
        pa.set_memory_pool(pa.system_memory_pool())
        self._pa = pa
        self._types = {
            "time": pa.timestamp("ns", "UTC"),
            "text": pa.string(),
            "integer": pa.int64(),
            "number": pa.float64(),
        }
        self._layout = layout
        words = pa.dictionary(pa.int32(), pa.string())
        self._schema = pa.schema(
            [
                pa.field(name, words if kind == "text" else self._types[kind], nullable=optional)
                for name, kind, optional in layout.columns
            ]
        )
        self._sink = _Sink()
        self._writer: Any = parquet.ParquetWriter(self._sink, self._schema, compression="zstd", version="2.6")
        self._waiting: list[Any] = []
        self._rows = 0

    def begin(self) -> bytes:
        """The file's first bytes."""
        return self._sink.take()

    def encode(self, part: Any) -> bytes:
        """A row group, once enough rows have come together."""
        self._waiting.append(part)
        self._rows += len(part)
        return self._write() if self._rows >= _ROW_GROUP else b""

    def end(self) -> bytes:
        """The remaining rows and the file's index."""
        rest = self._write()
        self._writer.close()
        return rest + self._sink.take()

    def broken(self, reason: str) -> bytes:
        """Nothing: without its index the file cannot be read."""
        return b""

    def _write(self) -> bytes:
        if self._waiting:
            batches = [self._batch(part) for part in self._waiting]
            table = self._pa.Table.from_batches(batches, self._schema).unify_dictionaries()
            self._writer.write_table(table, row_group_size=_ROW_GROUP)
            self._waiting, self._rows = [], 0
        return self._sink.take()

    def _batch(self, part: Any) -> Any:
        pa = self._pa
        arrays = []
        taken: Sequence[int] | None = None
        for column, (values, places) in zip(self._layout.columns, self._layout.column_values(part), strict=True):
            array = pa.array(values, self._types[column.kind])
            if column.kind == "text":
                array = array.dictionary_encode()
            if places is not None:
                if places is not taken:  # columns share them
                    taken, rows = places, pa.array(places, pa.int32())
                array = array.take(rows)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


class _Sink(io.RawIOBase):
    """A file in memory that keeps what was written until it is taken."""

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
