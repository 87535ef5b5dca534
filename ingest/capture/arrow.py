"""Reads a capture by column with pyarrow, many times as fast as row by row.

It returns a reading only if the row reader would certainly return the same one. All other lines it reports as odd, for the row
reader to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from ingest.capture.header import CaptureHeader
from ingest.capture.rows import MAX_CACHED_GPUS, GpuDescription, RowReader
from ingest.samples import NamingLabels
from readings.checks import Refused
from readings.columns import Columns, Ints
from readings.labels import without_name
from readings.model import Gpu

_MAX_CODE = 1 << 62
_MAX_LABELS_HELD = 16 << 20  # bytes


class GpuEntries(NamedTuple):
    """The distinct descriptions of GPUs in a block.

    ``entry`` has the number of the description of each row. The other arrays have one value per description: the place of its
    GPU in ``gpus``, the place of its labels in ``naming``, and whether it is refused. ``remarks`` has those of each that has any.
    """

    entry: Ints
    gpus: list[Gpu]
    gpu: Ints
    naming: list[NamingLabels]
    kind: Ints
    refused: npt.NDArray[np.bool_]
    remarks: dict[int, frozenset[str]]


class _CodedColumn(NamedTuple):
    """A column of a block: the distinct ``texts``, the number that each has in all blocks, and the text of each row (None: one for all)."""

    rows: Ints | None
    numbers: Ints
    texts: pa.Array


class GpuTable:
    """Remembers the descriptions of GPUs, so that each is parsed once. Needs the columns in ``columns`` as text."""

    def __init__(self, header: CaptureHeader, rows: RowReader) -> None:
        self._rows = rows
        self._width = len(header.names)
        self._labels = header.column("labels")
        self._key = [*rows.key_columns, *([] if self._labels is None else [self._labels])]
        self.columns = [str(at) for at in self._key]
        self._texts: list[dict[str, int]] = [{} for _ in self._key]
        self._raw_labels: dict[str, int] = {}
        self._raw_size = 0
        self._descriptions: dict[tuple[int, ...], tuple[GpuDescription | None, int]] = {}
        self._naming: dict[NamingLabels, int] = {}

    def find(self, table: pa.Table) -> GpuEntries:
        """The descriptions in the rows of ``table``, which must have one chunk."""
        if len(self._descriptions) > MAX_CACHED_GPUS:
            self._forget()
        columns = [self._read(place, table.column(name).chunk(0)) for place, name in enumerate(self.columns)]
        entry, firsts = _entries(columns, table.num_rows)
        return self._describe(entry, firsts, columns)

    def _read(self, place: int, column: pa.Array) -> _CodedColumn:
        encoded = column.dictionary_encode()
        texts, rows = encoded.dictionary, encoded.indices.to_numpy()
        if self._key[place] != self._labels:
            numbers = self._number(place, texts.to_pylist())
        else:  # labels that differ only in __name__ are one description
            numbers, firsts, local = np.unique(
                self._number_labels(texts.to_pylist()), return_index=True, return_inverse=True
            )
            texts, rows = texts.take(pa.array(firsts)), local[rows]
        return _CodedColumn(None if len(numbers) == 1 else rows, numbers, texts)

    def _describe(self, entry: Ints, firsts: Ints, columns: list[_CodedColumn]) -> GpuEntries:
        """Parse each distinct description, from the first row that has it."""
        places = [np.zeros(len(firsts), np.int64) if each.rows is None else each.rows[firsts] for each in columns]
        keys = zip(*[each.numbers[place].tolist() for each, place in zip(columns, places, strict=True)], strict=True)
        numbers: dict[int, int] = {}
        gpus: list[Gpu] = []
        gpu = np.zeros(len(firsts), np.int64)
        kind = np.zeros(len(firsts), np.int64)
        refused = np.zeros(len(firsts), bool)
        remarks: dict[int, frozenset[str]] = {}
        for number, key in enumerate(keys):
            description = self._descriptions.get(key)
            if description is None:
                fields = [""] * self._width
                for at, each, place in zip(self._key, columns, places, strict=True):
                    fields[at] = each.texts[int(place[number])].as_py()
                description = self._descriptions[key] = self._describe_anew(fields)
            described, kind[number] = description
            if described is None:
                refused[number] = True
                continue
            if described.remarks:
                remarks[number] = described.remarks
            gpu[number] = numbers.setdefault(id(described.gpu), len(gpus))
            if gpu[number] == len(gpus):
                gpus.append(described.gpu)
        return GpuEntries(entry, gpus, gpu, list(self._naming), kind, refused, remarks)

    def _describe_anew(self, fields: list[str]) -> tuple[GpuDescription | None, int]:
        try:
            described = self._rows.describe(fields)
        except Refused:
            return None, self._naming.setdefault((), len(self._naming))
        return described, self._naming.setdefault(described.naming, len(self._naming))

    def _number(self, place: int, texts: list[str]) -> Ints:
        numbers = self._texts[place]
        return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)

    def _number_labels(self, texts: list[str]) -> Ints:
        raw, distinct = self._raw_labels, self._texts[-1]
        numbers = []
        for text in texts:
            number = raw.get(text)
            if number is None:
                number = distinct.setdefault(without_name(text), len(distinct))
                self._raw_size += len(text)
                if self._raw_size > _MAX_LABELS_HELD:
                    raw.clear()
                    self._raw_size = len(text)
                raw[text] = number
            numbers.append(number)
        return np.array(numbers, np.int64)

    def _forget(self) -> None:
        """Start over: labels that never repeat must not fill the memory."""
        for texts in self._texts:
            texts.clear()
        self._raw_labels.clear()
        self._raw_size = 0
        self._descriptions.clear()
        self._naming.clear()


def _entries(columns: list[_CodedColumn], count: int) -> tuple[Ints, Ints]:
    """The distinct combination that each row has, numbered in the order of their first rows; and these first rows."""
    code = np.zeros(count, np.int64)
    many = 1
    for column in columns:
        if column.rows is not None:
            size = len(column.numbers)
            if many > _MAX_CODE // size:  # renumber without gaps
                distinct, code = np.unique(code, return_inverse=True)
                many = len(distinct)
            code = code * size + column.rows
            many *= size
    encoded = pa.array(code).dictionary_encode()
    entry = encoded.indices.to_numpy().astype(np.int64)
    firsts = np.zeros(len(encoded.dictionary), np.int64)
    firsts[entry[::-1]] = np.arange(count - 1, -1, -1)
    return entry, firsts


# These pools reuse a block's memory for the next one. With fresh pages from the kernel, reading takes a third longer.
pa.set_memory_pool(
    pa.jemalloc_memory_pool() if "jemalloc" in pa.supported_memory_backends() else pa.system_memory_pool()
)

Mask = npt.NDArray[np.bool_]

_LEAST_BLANK = 2147483632.0  # below it no number is one of DCGM's blanks
_PLAIN_NUMBER = r"^-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"
# From so many distinct times in a block on, they are parsed all at once. The years are those that fit Arrow's nanoseconds.
_MANY_TIMES = 256
_PLAIN_TIME = r"^(19[7-9]|20[0-9])[0-9]-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$"
_NEWLINE, _QUOTE = b'\n"'


class OddLine(NamedTuple):
    """A line for the row reader: its number in the block from 0, and its bytes."""

    number: int
    start: int
    end: int


class Parsed(NamedTuple):
    """The readings of a block, the line of each, from 0, and their remarks. ``odd`` has the lines for the row reader."""

    columns: Columns
    lines: Ints
    odd: list[OddLine]
    remarks: Counter[str]
    line_count: int


class _Unsure(Exception):
    """The whole block is for the row reader."""


class ColumnReader:
    """Reads blocks of whole lines under one header. ``rows`` is the row reader, which parses each description of a GPU."""

    def __init__(self, header: CaptureHeader, rows: RowReader, parse_time: Callable[[str], int] | None) -> None:
        self._rows = rows
        self._parse_time = parse_time
        self._metric, self._value = str(header.columns["metric_name"][0]), str(header.columns["value"][0])
        self._time = str(header.columns["timestamp"][0]) if parse_time else None
        self._gpus = GpuTable(header, rows)
        self._names = [str(number) for number in range(len(header.names))]
        wanted = [self._metric, self._value, *([self._time] if self._time else []), *self._gpus.columns]
        self._convert = _as_text(wanted)
        self._convert_time = _as_text([self._time] if self._time else [])

    def read(self, block: bytes | memoryview) -> Parsed | None:
        """The readings of ``block``; None if it must be read row by row."""
        try:
            return self._read(block)
        except (_Unsure, pa.ArrowInvalid):
            return None

    def times(self, block: bytes | memoryview) -> Ints | None:
        """The times of its rows, as far as they can be parsed, in ns; None if it must be read row by row."""
        try:
            table = self._table(block, [], self._convert_time)
        except (_Unsure, pa.ArrowInvalid):
            return None
        bad = np.zeros(table.num_rows, bool)
        return self._times(table, bad)[~bad]

    def _read(self, block: bytes | memoryview) -> Parsed:
        data = np.frombuffer(block, np.uint8)
        if not data.min() or np.count_nonzero(data == _QUOTE) % 2:
            raise _Unsure
        line_count = int(np.count_nonzero(data == _NEWLINE)) + int(data[-1] != _NEWLINE)
        odd_lines: list[int] = []
        table = self._table(block, odd_lines, self._convert)
        if table.num_rows + len(odd_lines) != line_count or not table.num_rows:
            raise _Unsure  # line breaks within fields, or blank lines
        value, odd = _values(table.column(self._value))
        time_ns = self._times(table, odd)
        encoded = table.column(self._metric).chunk(0).dictionary_encode()
        metric, metric_names = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
        gpus = self._gpus.find(table)
        odd |= gpus.refused[gpus.entry]
        names, name = self._name(metric, metric_names, gpus.kind[gpus.entry], gpus.naming, value, odd)
        lines = np.arange(line_count)
        if odd_lines:
            lines = np.delete(lines, odd_lines)
        columns = Columns(gpus.gpus, names, gpus.gpu[gpus.entry], name, time_ns, value)
        entry = gpus.entry
        if odd.any():
            odd_lines = sorted([*odd_lines, *lines[odd].tolist()])
            columns, lines, entry = columns.where(~odd), lines[~odd], entry[~odd]
        return Parsed(columns, lines, _places(data, odd_lines), _counted(gpus.remarks, entry), line_count)

    def _table(self, block: bytes | memoryview, odd_lines: list[int], convert: Any) -> pa.Table:
        def note(row: Any) -> str:
            if row.number is None:
                raise _Unsure
            odd_lines.append(row.number - 1)
            return "skip"

        table = pa_csv.read_csv(
            pa.py_buffer(block),
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=self._names, encoding="utf8"
            ),
            parse_options=pa_csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=note
            ),
            convert_options=convert,
        )
        return table.combine_chunks()

    def _times(self, table: pa.Table, odd: Mask) -> Ints:
        if self._parse_time is None or self._time is None:
            return np.zeros(table.num_rows, np.int64)
        encoded = table.column(self._time).chunk(0).dictionary_encode()
        codes, texts = encoded.indices.to_numpy(), encoded.dictionary
        if len(texts) > _MANY_TIMES and pc.all(pc.match_substring_regex(texts, _PLAIN_TIME)).as_py():
            try:
                times: Ints = texts.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
            except pa.ArrowInvalid:
                pass  # no such day
            else:
                return cast(Ints, times[codes])
        times = np.zeros(len(texts), np.int64)
        bad = np.zeros(len(texts), bool)
        for number, text in enumerate(texts.to_pylist()):
            try:
                times[number] = self._parse_time(text)
            except ValueError:
                bad[number] = True
        if bad.any():
            odd |= bad[codes]
        return cast(Ints, times[codes])

    def _name(
        self,
        metric: Ints,
        metric_names: list[str],
        kind: Ints,
        naming: list[NamingLabels],
        value: npt.NDArray[np.float64],
        odd: Mask,
    ) -> tuple[list[str], Ints]:
        """The stored names, and the place of each row's name in them. Converts values to the stored unit, in place."""
        pair = metric * len(naming) + kind
        names: dict[str, int] = {}
        codes = np.zeros(len(metric_names) * len(naming), np.int64)
        for each in np.flatnonzero(np.bincount(pair)).tolist():
            try:
                name, convert = self._rows.stored_name(metric_names[each // len(naming)], naming[each % len(naming)])
            except Refused:
                odd |= pair == each
                continue
            codes[each] = names.setdefault(name, len(names))
            if convert is not None:
                rows = np.flatnonzero((pair == each) & ~odd)
                value[rows] = [convert(one) for one in value[rows].tolist()]
        return list(names), codes[pair]


def _counted(remarks: dict[int, frozenset[str]], entry: Ints) -> Counter[str]:
    """The number of rows by remark."""
    counts: Counter[str] = Counter()
    if remarks:
        rows = np.bincount(entry, minlength=max(remarks) + 1)
        for number, reasons in remarks.items():
            if rows[number]:
                counts.update(dict.fromkeys(reasons, int(rows[number])))
    return counts


def _as_text(columns: Iterable[str]) -> Any:
    names = list(dict.fromkeys(columns))
    return pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), include_columns=names, strings_can_be_null=False
    )


def _values(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.float64], Mask]:
    """The numbers, and which rows have none that is certain."""
    try:
        value = pc.cast(column, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        plain = pc.match_substring_regex(column, _PLAIN_NUMBER)
        value = pc.cast(pc.if_else(plain, column, "nan"), pa.float64()).to_numpy()
    value = np.array(value)
    return value, ~(np.abs(value) < _LEAST_BLANK)


def _places(data: npt.NDArray[np.uint8], numbers: list[int]) -> list[OddLine]:
    """The places of these lines in a block."""
    if not numbers:
        return []
    ends = np.flatnonzero(data == _NEWLINE) + 1
    if not len(ends) or ends[-1] < len(data):
        ends = np.append(ends, len(data))
    return [OddLine(number, int(ends[number - 1]) if number else 0, int(ends[number])) for number in numbers]
