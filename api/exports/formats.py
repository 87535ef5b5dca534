"""The formats of an export: what turns parts of an answer into the bytes of a file, one part after the other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from api.exports.readings import csv_line
from readings.catalogue import unit_of
from stores.base import RowBatch

if TYPE_CHECKING:
    from api.exports.windows import Part


# Arrow's own allocators keep what they had once; memory is to stay flat.
pa.set_memory_pool(pa.system_memory_pool())

_WORDS = pa.dictionary(pa.int32(), pa.string())
_TIME = pa.timestamp("ns", "UTC")
_TEXTS = ("device", "uuid", "mig_id", "model_name", "hostname", "container", "pod", "namespace")
READINGS = pa.schema(
    [
        pa.field("timestamp", _TIME, nullable=False),
        pa.field("metric_name", _WORDS, nullable=False),
        pa.field("gpu_id", pa.int64()),
        *[pa.field(name, _WORDS, nullable=False) for name in _TEXTS],
        pa.field("value", pa.float64(), nullable=False),
        pa.field("unit", _WORDS, nullable=False),
    ]
)


def open_writer(sink: Any, schema: pa.Schema) -> parquet.ParquetWriter:
    """A writer of such tables; one row group for each."""
    return parquet.ParquetWriter(sink, schema, compression="zstd", version="2.6")


def readings_table(portions: Sequence[RowBatch]) -> pa.Table:
    """All rows of some portions."""
    return pa.Table.from_batches([_readings(portion) for portion in portions], READINGS).unify_dictionaries()


def _readings(portion: RowBatch) -> pa.RecordBatch:
    places = np.array(portion.places, np.int64)
    origins = portion.origins

    def words(texts: list[str]) -> pa.DictionaryArray:
        known: dict[str, int] = {}
        codes = np.array([known.setdefault(text, len(known)) for text in texts], np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(codes[places]), pa.array(list(known), pa.string()))

    columns: dict[str, pa.Array] = {
        "timestamp": _times(portion.times),
        "metric_name": words([origin.metric_name for origin in origins]),
        "gpu_id": pa.array([origin.gpu_id for origin in origins], pa.int64()).take(pa.array(places)),
        "value": pa.array(np.array(portion.values, np.float64)),
        "unit": words([unit_of(origin.metric_name) for origin in origins]),
    }
    columns |= {name: words([getattr(origin, name) for origin in origins]) for name in _TEXTS}
    return pa.RecordBatch.from_arrays([columns[field.name] for field in READINGS], schema=READINGS)


def windows_schema(texts: Sequence[str]) -> pa.Schema:
    """A time, texts of these names, and a value that may be missing."""
    words = [pa.field(name, _WORDS, nullable=False) for name in texts]
    return pa.schema([pa.field("timestamp", _TIME, nullable=False), *words, pa.field("value", pa.float64())])


def windows_table(parts: Sequence[Part], schema: pa.Schema) -> pa.Table:
    """All windows of some groups."""
    batches = []
    for part in parts:
        codes = pa.array(np.zeros(len(part), np.int32))
        texts = [pa.DictionaryArray.from_arrays(codes, pa.array([text], pa.string())) for text in part.texts]
        columns = [_times(part.times), *texts, pa.array(part.values, pa.float64())]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    return pa.Table.from_batches(batches, schema).unify_dictionaries()


def _times(times: Sequence[int]) -> pa.Array:
    return pa.array(np.array(times, np.int64), _TIME)


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
        pass

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
