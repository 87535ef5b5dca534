"""Rows as Arrow tables and Parquet files. Imported only where one is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from readings.catalogue import unit_of
from stores.base import Portion

if TYPE_CHECKING:
    from api.window_rows import Part

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


def readings_table(portions: Sequence[Portion]) -> pa.Table:
    """All rows of some portions."""
    return pa.Table.from_batches([_readings(portion) for portion in portions], READINGS).unify_dictionaries()


def _readings(portion: Portion) -> pa.RecordBatch:
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
