"""Readings as they are answered: text made column by column, no object a row in between.

What a reading is of (everything but time and value) is worded once and kept: a GPU's readings differ in little else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from readings.catalogue import unit_of
from readings.times import format_time
from stores.base import RowBatch, SeriesLabels

_ORIGINS_KEPT = 65_536

CSV_COLUMNS: tuple[str, ...] = (
    "timestamp", "metric_name", "gpu_id", "device", "uuid", "mig_id", "model_name", "hostname", "container", "pod",
    "namespace", "value", "unit",
)  # fmt: skip
# What makes a spreadsheet take a field for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Readings:
    """How exports write readings (see api.exports.formats.Layout)."""

    columns = CSV_COLUMNS

    def csv_rows(self, part: RowBatch, *, safe: bool) -> list[str]:
        """Lines with these columns."""
        return csv_rows(part, safe=safe)

    def json_rows(self, part: RowBatch) -> list[str]:
        """Objects as in the answer."""
        return json_rows(part)

    def parquet_schema(self) -> Any:
        """The columns with their types."""
        from api.exports.formats import READINGS

        return READINGS

    def parquet_table(self, parts: Sequence[RowBatch]) -> Any:
        """All rows of some parts."""
        from api.exports.formats import readings_table

        return readings_table(parts)


class _Ends(NamedTuple):
    """What stands before, between and after the time and the value of a row."""

    between: str
    after: str


def json_rows(portion: RowBatch) -> list[str]:
    """Each row as a JSON object."""
    ends = [_json_ends(origin) for origin in portion.origins]
    return [
        f'{{"timestamp":"{time}{ends[place].between}{value}{ends[place].after}'
        for time, value, place in zip(
            time_texts(portion.times), number_texts(portion.values), portion.places, strict=True
        )
    ]


def json_list(portion: RowBatch) -> msgspec.Raw:
    """The rows as a JSON list, ready to stand in an answer."""
    return msgspec.Raw(f"[{','.join(json_rows(portion))}]".encode())


def csv_rows(portion: RowBatch, *, safe: bool = False) -> list[str]:
    """Each row as a line of CSV (RFC 4180) with the fields CSV_COLUMNS and its line end.

    ``safe``: a text that a spreadsheet would take for a formula gets a ' in front.
    """
    ends = [_csv_ends(origin, safe) for origin in portion.origins]
    return [
        f"{time}{ends[place].between}{value}{ends[place].after}"
        for time, value, place in zip(
            time_texts(portion.times), number_texts(portion.values), portion.places, strict=True
        )
    ]


def csv_line(fields: Sequence[object], *, safe: bool = False) -> str:
    """One line of CSV with its line end; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([defused(each) for each in fields] if safe else fields)
    return text.getvalue()


def defused(field: object) -> object:
    """A text that is no formula."""
    return f"'{field}" if isinstance(field, str) and field.startswith(_FORMULA) else field


def time_texts(times: Sequence[int]) -> list[str]:
    """The times in RFC 3339. Neighbours often share one."""
    known: dict[int, str] = {}
    return [known.get(time_ns) or known.setdefault(time_ns, format_time(time_ns)) for time_ns in times]


def number_texts(values: Sequence[float]) -> list[str]:
    """The shortest texts that are exactly these (finite) numbers."""
    return msgspec.json.encode(values)[1:-1].decode().split(",") if values else []


@lru_cache(maxsize=_ORIGINS_KEPT)
def _json_ends(origin: SeriesLabels) -> _Ends:
    told = {
        "metric_name": origin.metric_name,
        "gpu_id": origin.gpu_id,
        "device": origin.device,
        "uuid": origin.uuid,
        "model_name": origin.model_name,
        "hostname": origin.hostname,
        "container": origin.container,
        "pod": origin.pod,
        "namespace": origin.namespace,
    }
    last = {"unit": unit_of(origin.metric_name)} | ({"mig_id": origin.mig_id} if origin.mig_id else {})
    return _Ends(f'",{_json_fields(told)},"value":', f",{_json_fields(last)}}}")


def _json_fields(fields: Mapping[str, object]) -> str:
    return msgspec.json.encode(fields)[1:-1].decode()


@lru_cache(maxsize=_ORIGINS_KEPT)
def _csv_ends(origin: SeriesLabels, safe: bool) -> _Ends:
    fields = (
        origin.metric_name, origin.gpu_id, origin.device, origin.uuid, origin.mig_id, origin.model_name,
        origin.hostname, origin.container, origin.pod, origin.namespace,
    )  # fmt: skip
    return _Ends(
        f",{csv_line(fields, safe=safe)[:-2]},",
        f",{csv_line((unit_of(origin.metric_name),), safe=safe)[:-2] if unit_of(origin.metric_name) else ''}\r\n",
    )
