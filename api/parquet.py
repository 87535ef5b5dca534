"""Readings as Arrow tables and Parquet files. Imported only where one is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from readings.catalogue import unit_of
from stores.base import Portion

# Arrow's own allocators keep what they had once; memory is to stay flat.
pa.set_memory_pool(pa.system_memory_pool())

_WORDS = pa.dictionary(pa.int32(), pa.string())
_TEXTS = ("device", "uuid", "mig_id", "model_name", "hostname", "container", "pod", "namespace")
SCHEMA = pa.schema(
    [
        pa.field("timestamp", pa.timestamp("ns", "UTC"), nullable=False),
        pa.field("metric_name", _WORDS, nullable=False),
        pa.field("gpu_id", pa.int64()),
        *[pa.field(name, _WORDS, nullable=False) for name in _TEXTS],
        pa.field("value", pa.float64(), nullable=False),
        pa.field("unit", _WORDS, nullable=False),
    ]
)


def open_writer(sink: Any) -> parquet.ParquetWriter:
    """A writer of such tables; one row group for each."""
    return parquet.ParquetWriter(sink, SCHEMA, compression="zstd", version="2.6")


def table_of(portions: Sequence[Portion]) -> pa.Table:
    """All rows of some portions."""
    return pa.Table.from_batches([_batch(portion) for portion in portions], SCHEMA).unify_dictionaries()


def _batch(portion: Portion) -> pa.RecordBatch:
    places = np.array(portion.places, np.int64)
    origins = portion.origins

    def words(texts: list[str]) -> pa.DictionaryArray:
        known: dict[str, int] = {}
        codes = np.array([known.setdefault(text, len(known)) for text in texts], np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(codes[places]), pa.array(list(known), pa.string()))

    columns: dict[str, pa.Array] = {
        "timestamp": pa.array(np.array(portion.times, np.int64), pa.timestamp("ns", "UTC")),
        "metric_name": words([origin.metric_name for origin in origins]),
        "gpu_id": pa.array([origin.gpu_id for origin in origins], pa.int64()).take(pa.array(places)),
        "value": pa.array(np.array(portion.values, np.float64)),
        "unit": words([unit_of(origin.metric_name) for origin in origins]),
    }
    columns |= {name: words([getattr(origin, name) for origin in origins]) for name in _TEXTS}
    return pa.RecordBatch.from_arrays([columns[field.name] for field in SCHEMA], schema=SCHEMA)
