"""Rows of a capture column by column, with pyarrow: many times as fast as one by one. Odd rows are told, for a careful look.

It gives a row only where it is sure that the careful reader would give the same; what it cannot be sure of it leaves to that one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from ingest.csv_header import Header
from ingest.csv_rows import Described, RowReader
from readings.checks import Refused
from readings.columns import Columns, Ints
from readings.model import Gpu

# Arrow's own allocators keep what they had once; memory is to stay flat.
pa.set_memory_pool(pa.system_memory_pool())

MAX_FIELD = 131_072  # as the csv module
_LEAST_BLANK = 2147483632.0  # below it no number is one of DCGM's blanks
_MANY_NAMES = 8
_PLAIN_NUMBER = r"^-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"
_MOST_COMBINATIONS = 1 << 40


class Parsed(NamedTuple):
    """The rows that are sure, and in which line each stands. ``odd`` are the lines of the others. Lines count from 0."""

    columns: Columns
    lines: Ints
    odd: list[int]
    conflicts: int


class _Unsure(Exception):
    """The block as a whole is to be read carefully."""


class ColumnReader:
    """Reads blocks of whole lines under one header; ``rows`` is the careful reader, which describes each GPU once."""

    def __init__(self, header: Header, rows: RowReader, parse_time: Callable[[str], int] | None) -> None:
        self._header = header
        self._rows = rows
        self._parse_time = parse_time
        self._names = [str(number) for number in range(len(header.names))]
        self._labels = header.column("labels")
        key = [at for field, numbers in header.columns.items() if field not in _NOT_IDENTITY for at in numbers]
        self._key = [str(at) for at in (*key, *[at for at, _ in header.extra])]

    def read(self, block: bytes) -> Parsed | None:
        """The rows of ``block``; None where it is to be read row by row."""
        try:
            return self._read(block)
        except (_Unsure, pa.ArrowInvalid):
            return None

    def _read(self, block: bytes) -> Parsed:
        if b"\0" in block or block.count(b'"') % 2:
            raise _Unsure
        odd_lines: list[int] = []
        table = self._table(block, odd_lines)
        rows = table.num_rows
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if rows + len(odd_lines) != lines or not rows:
            raise _Unsure  # lines within fields, or blank ones
        value, odd = _values(table.column(self._column("value")))
        time_ns = self._times(table, odd)
        metric, metric_names = _coded(table.column(self._column("metric_name")))
        entry, described = self._gpus(table, metric, metric_names, odd)
        gpus, gpu_of_entry = _numbered([each.gpu if each else None for each in described])
        names, name = self._name(metric, metric_names, entry, described, value, odd)
        sure = np.flatnonzero(~odd)
        conflict = np.array([each.conflict if each else False for each in described], bool)
        places = np.delete(np.arange(lines), odd_lines)
        odd_lines = sorted([*odd_lines, *places[odd].tolist()])
        columns = Columns(gpus, names, gpu_of_entry[entry][sure], name[sure], time_ns[sure], value[sure])
        return Parsed(columns, places[sure], odd_lines, int(conflict[entry][sure].sum()))

    def _column(self, field: str) -> str:
        return str(self._header.columns[field][0])

    def _table(self, block: bytes, odd_lines: list[int]) -> pa.Table:
        def note(row: Any) -> str:
            if row.number is None:
                raise _Unsure
            odd_lines.append(row.number - 1)
            return "skip"

        wanted = dict.fromkeys(
            [self._column("metric_name"), self._column("value"), *self._key]
            + ([self._column("timestamp")] if self._parse_time else [])
            + ([str(self._labels)] if self._labels is not None else [])
        )
        table = pa_csv.read_csv(
            pa.BufferReader(block),
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=self._names, encoding="utf8"
            ),
            parse_options=pa_csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=note
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=list(wanted),
                strings_can_be_null=False,
            ),
        )
        return table.combine_chunks()

    def _times(self, table: pa.Table, odd: npt.NDArray[np.bool_]) -> Ints:
        if self._parse_time is None:
            return np.zeros(table.num_rows, np.int64)
        codes, texts = _coded(table.column(self._column("timestamp")))
        times = np.zeros(len(texts), np.int64)
        bad = np.zeros(len(texts), bool)
        for number, text in enumerate(texts):
            try:
                times[number] = self._parse_time(text)
            except ValueError:
                bad[number] = True
        odd |= bad[codes]
        return times[codes]

    def _gpus(
        self, table: pa.Table, metric: Ints, metric_names: list[str], odd: npt.NDArray[np.bool_]
    ) -> tuple[Ints, list[Described | None]]:
        """For each row the number of what describes its GPU; None where that is refused."""
        code = np.zeros(table.num_rows, np.int64)
        many = 1
        columns = [(int(at), *_coded(table.column(at))) for at in self._key]
        if self._labels is not None:
            labels = table.column(str(self._labels))
            if pc.max(pc.binary_length(labels)).as_py() > MAX_FIELD:
                raise _Unsure
            columns.append((self._labels, *_coded(_without_names(labels, metric_names))))
        for _, codes, texts in columns:
            many *= len(texts)
            if many > _MOST_COMBINATIONS:
                raise _Unsure
            if len(texts) > 1:
                code = code * len(texts) + codes
        _, firsts, entry = np.unique(code, return_index=True, return_inverse=True)
        told = [(at, [texts[each] for each in codes[firsts].tolist()]) for at, codes, texts in columns]
        if self._labels is not None:  # described from the labels as they are
            told.append((self._labels, labels.take(firsts).to_pylist()))
            told.append(
                (self._header.columns["metric_name"][0], [metric_names[each] for each in metric[firsts].tolist()])
            )
        fields = [""] * len(self._header.names)
        described: list[Described | None] = []
        for number in range(len(firsts)):
            for at, texts in told:
                fields[at] = texts[number]
            try:
                described.append(self._rows.describe(fields))
            except Refused:
                described.append(None)
                odd |= entry == number
        return entry, described

    def _name(
        self,
        metric: Ints,
        metric_names: list[str],
        entry: Ints,
        described: list[Described | None],
        value: npt.NDArray[np.float64],
        odd: npt.NDArray[np.bool_],
    ) -> tuple[list[str], Ints]:
        """The stored names, and for each row which; brings values to the stored unit, in place."""
        told: dict[Any, int] = {}
        kind = np.array([told.setdefault(each.telling if each else (), len(told)) for each in described], np.int64)
        pairs, inverse = np.unique(metric * len(told) + kind[entry], return_inverse=True)
        names: dict[str, int] = {}
        codes = np.zeros(len(pairs), np.int64)
        tellings = list(told)
        for number, pair in enumerate(pairs.tolist()):
            try:
                name, convert = self._rows.namer.name(metric_names[pair // len(told)], tellings[pair % len(told)])
            except Refused:
                odd |= inverse == number
                continue
            codes[number] = names.setdefault(name, len(names))
            if convert is not None:
                rows = np.flatnonzero((inverse == number) & ~odd)
                value[rows] = [convert(each) for each in value[rows].tolist()]
        return list(names), codes[inverse]


_NOT_IDENTITY = {"timestamp", "metric_name", "value", "labels", "unit"}


def _coded(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    encoded = column.chunk(0).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _values(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The numbers, and which rows have none that is beyond doubt."""
    try:
        value = pc.cast(column, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        plain = pc.match_substring_regex(column, _PLAIN_NUMBER)
        value = pc.cast(pc.if_else(plain, column, "nan"), pa.float64()).to_numpy()
    value = np.array(value)
    return value, ~(np.abs(value) < _LEAST_BLANK)


def _without_names(labels: pa.ChunkedArray, metric_names: list[str]) -> pa.ChunkedArray:
    """Labels without the one in which the metrics of a GPU differ."""
    if len(metric_names) > _MANY_NAMES:
        return pc.replace_substring_regex(labels, r'__name__="[A-Za-z0-9_: ]*"', "", max_replacements=1)
    for name in metric_names:
        labels = pc.replace_substring(labels, f'__name__="{name}"', "", max_replacements=1)
    return labels


def _numbered(found: list[Gpu | None]) -> tuple[list[Gpu], Ints]:
    """The GPUs, each once, and for each entry which."""
    numbers: dict[int, int] = {}
    gpus: list[Gpu] = []
    codes = []
    for gpu in found:
        if gpu is None:
            codes.append(0)
            continue
        number = numbers.get(id(gpu))
        if number is None:
            number = numbers[id(gpu)] = len(gpus)
            gpus.append(gpu)
        codes.append(number)
    return gpus, np.array(codes, np.int64)
