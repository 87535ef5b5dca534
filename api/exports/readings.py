"""Readings as rows of JSON, CSV and Parquet. Text is made column by column, without an object for each row.

Everything in a row but its time and value is formatted once for each SeriesLabels and cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from api.exports.formats import Column, ColumnValues, csv_line, number_texts, time_texts
from api.schema.answers import ReadingAnswer
from readings.catalogue import unit_of
from stores.base import RowBatch, SeriesLabels

_LABELS_CACHED = 65_536

COLUMNS = (
    Column("timestamp", "time"),
    Column("metric_name", "text"),
    Column("gpu_id", "integer", optional=True),
    *(
        Column(name, "text")
        for name in ("device", "uuid", "mig_id", "model_name", "hostname", "container", "pod", "namespace")
    ),
    Column("value", "number"),
    Column("unit", "text"),
)


class ReadingLayout:
    """Lays out readings as rows of a file (see api.exports.formats.Layout)."""

    columns = COLUMNS

    def csv_rows(self, part: RowBatch, *, safe: bool) -> list[str]:
        """A line of CSV (RFC 4180) for each row, with its line end (see csv_line for ``safe``)."""
        return _rows(part, [_csv_ends(labels, safe) for labels in part.origins])

    def json_rows(self, part: RowBatch) -> list[str]:
        """A JSON object for each row."""
        return json_rows(part)

    def column_values(self, part: RowBatch) -> Iterator[ColumnValues]:
        """The values of each column."""
        for column in COLUMNS:
            match column.name:
                case "timestamp":
                    yield ColumnValues(part.times)
                case "value":
                    yield ColumnValues(part.values)
                case "unit":
                    yield ColumnValues([unit_of(labels.metric_name) for labels in part.origins], part.places)
                case name:
                    yield ColumnValues([getattr(labels, name) for labels in part.origins], part.places)


def json_rows(batch: RowBatch) -> list[str]:
    """Each row as a JSON object, a ReadingAnswer."""
    return _rows(batch, [_json_ends(labels) for labels in batch.origins])


def json_list(batch: RowBatch) -> Any:
    """A list of ReadingAnswer, already encoded as JSON."""
    return msgspec.Raw(f"[{','.join(json_rows(batch))}]".encode())


class _Ends(NamedTuple):
    """The text of a row before its time, between its time and value, and after its value."""

    before: str
    between: str
    after: str


def _rows(batch: RowBatch, ends: list[_Ends]) -> list[str]:
    return [
        f"{ends[place].before}{time}{ends[place].between}{value}{ends[place].after}"
        for time, value, place in zip(time_texts(batch.times), number_texts(batch.values), batch.places, strict=True)
    ]


@lru_cache(maxsize=_LABELS_CACHED)
def _json_ends(labels: SeriesLabels) -> _Ends:
    reading = ReadingAnswer(
        timestamp="",
        value=0.0,
        unit=unit_of(labels.metric_name),
        **(labels._asdict() | {"mig_id": labels.mig_id or UNSET}),
    )
    # No text can hold this mark: JSON escapes the quotes inside texts.
    between, after = msgspec.json.encode(reading).decode().split(',"value":0.0')
    before = '{"timestamp":"'
    return _Ends(before, f'{between.removeprefix(before)},"value":', after)


@lru_cache(maxsize=_LABELS_CACHED)
def _csv_ends(labels: SeriesLabels, safe: bool) -> _Ends:
    names = [column.name for column in COLUMNS[1:-2]]
    unit = unit_of(labels.metric_name)
    return _Ends(
        "",
        f",{csv_line([getattr(labels, name) for name in names], safe=safe)[:-2]},",
        f",{csv_line([unit], safe=safe)[:-2] if unit else ''}\r\n",
    )
