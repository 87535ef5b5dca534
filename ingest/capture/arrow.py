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

from ingest.capture.gpus import GpuEntries, GpuTable
from ingest.capture.header import CaptureHeader
from ingest.capture.rows import RowReader
from ingest.capture.twins import LabelledRow
from ingest.samples import NamingLabels
from readings.checks import Refused
from readings.columns import Columns, Ints

# These pools reuse a block's memory for the next one. With fresh pages from the kernel, reading takes a third longer.
pa.set_memory_pool(
    pa.jemalloc_memory_pool() if "jemalloc" in pa.supported_memory_backends() else pa.system_memory_pool()
)

Mask = npt.NDArray[np.bool_]

_LEAST_BLANK = 2147483632.0  # below it no number is one of DCGM's blanks
_PLAIN_NUMBER = r"^-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"
# From so many distinct times in a block on, they are parsed all at once. The years are those that fit Arrow's nanoseconds.
_MANY_TIMES = 256
_PLAIN_TIME = (
    r"^((?:19[7-9]|20[0-9])[0-9])(?:-([0-9]{2})-|/([0-9]{2})/)([0-9]{2})[T ]"
    r"([0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,]([0-9]{1,9}))?"
)
_IN_UTC, _IN_ANY_ZONE = _PLAIN_TIME + " ?(?:Z|UTC)$", _PLAIN_TIME + " ?(?:Z|UTC)?$"
_NEWLINE, _QUOTE = b'\n"'
_LEAST_BEYOND_ASCII = 0x80


class OddLine(NamedTuple):
    """A line for the row reader: its number in the block from 0, and its bytes."""

    number: int
    start: int
    end: int


class Parsed(NamedTuple):
    """The readings of a block, the line of each, from 0, and their remarks. ``odd`` has the lines for the row reader.

    ``seconds`` has the rows that only a label which is no part tells from an earlier one: they are refused.
    """

    columns: Columns
    lines: Ints
    odd: list[OddLine]
    remarks: Counter[str]
    seconds: list[OddLine]
    line_count: int


class _Unsure(Exception):
    """The whole block is for the row reader."""


class ColumnReader:
    """Reads blocks of whole lines under one header. ``rows`` is the row reader, which parses each description of a GPU."""

    def __init__(
        self,
        header: CaptureHeader,
        rows: RowReader,
        parse_time: Callable[[str], int] | None,
        *,
        zone_is_utc: bool = False,
    ) -> None:
        self._rows = rows
        self._dialect = header.dialect
        self._plain_time = _IN_ANY_ZONE if zone_is_utc else _IN_UTC
        self._parse_time = parse_time
        self._metric, self._value = str(header.columns["metric_name"][0]), str(header.columns["value"][0])
        self._time = str(header.columns["timestamp"][0]) if parse_time else None
        self._gpus = GpuTable(header, rows)
        self._names = [str(number) for number in range(len(header.names))]
        wanted = [self._metric, self._value, *([self._time] if self._time else []), *self._gpus.columns]
        self._convert, self._convert_ascii = _as_text(wanted), _as_text(wanted, check_utf8=False)
        self.saw_several = False  # descriptions of one GPU, at any time
        self._convert_time = _as_text([self._time] if self._time else [])

    def read(self, block: bytes | memoryview) -> Parsed | None:
        """The readings of ``block``; None if it must be read row by row."""
        parts = self._rows.parts
        try:
            while True:
                version = parts.version
                parsed = self._read(block)
                if parts.version == version:  # else rows are parts of their own now
                    return parsed
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
        # Whether text is UTF-8 need not be looked at, at a tenth of the cost of reading it, where it is ASCII.
        table = self._table(
            block, odd_lines, self._convert_ascii if data.max() < _LEAST_BEYOND_ASCII else self._convert
        )
        if table.num_rows + len(odd_lines) != line_count or not table.num_rows:
            raise _Unsure  # line breaks within fields, or blank lines
        texts = table.column(self._value)
        value, odd = _values(pc.replace_substring(texts, ",", ".") if self._dialect.decimal_comma else texts)
        time_ns = self._times(table, odd)
        encoded = table.column(self._metric).chunk(0).dictionary_encode()
        metric, metric_names = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
        gpus = self._gpus.find(table, metric, metric_names)
        odd |= gpus.refused[gpus.entry]
        names, name = self._name(metric, metric_names, gpus.kind[gpus.entry], gpus.naming, value, odd)
        lines = np.arange(line_count)
        if odd_lines:
            lines = np.delete(lines, odd_lines)
        columns = Columns(gpus.gpus, names, gpus.gpu[gpus.entry], name, time_ns, value)
        entry = gpus.entry
        self.saw_several |= bool(gpus.several)
        seconds = self._seconds(columns, gpus, odd) if gpus.several and self._time else []
        second_lines = lines[seconds].tolist()
        if odd.any() or seconds:
            odd_lines = sorted([*odd_lines, *lines[odd].tolist()])
            good = ~odd
            good[seconds] = False
            columns, lines, entry = columns.where(good), lines[good], entry[good]
        return Parsed(
            columns,
            lines,
            _places(data, odd_lines),
            _counted(gpus.remarks, entry),
            _places(data, second_lines),
            line_count,
        )

    def _seconds(self, columns: Columns, gpus: GpuEntries, odd: Mask) -> list[int]:
        """The rows that contradict an earlier one. Of GPUs with one description there are none."""
        is_of_several = np.zeros(len(gpus.gpu), bool)
        is_of_several[list(gpus.several)] = True
        rows = np.flatnonzero(is_of_several[gpus.entry] & ~odd)
        kind = gpus.entry[rows] * len(columns.names) + columns.name[rows]
        kinds, which = np.unique(kind, return_inverse=True)
        named = [
            (gpus.several[each // len(columns.names)], columns.names[each % len(columns.names)])
            for each in kinds.tolist()
        ]
        twins = self._rows.twins
        suspected = [
            twins.suspects(*each) for each in named
        ]  # twice, since a suspect's first description comes before it
        again = [one or twins.suspects(*each) for one, each in zip(suspected, named, strict=True)]
        places = np.flatnonzero(np.array(again, bool)[which])
        told = zip(
            which[places].tolist(),
            columns.time_ns[rows[places]].tolist(),
            columns.value[rows[places]].tolist(),
            strict=True,
        )
        found = twins.second(
            LabelledRow(named[each][0], named[each][1], time_ns, value) for each, time_ns, value in told
        )
        return cast("list[int]", rows[places[found]].tolist())

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
                delimiter=self._dialect.delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=note,
            ),
            convert_options=convert,
        )
        return table.combine_chunks()

    def _times(self, table: pa.Table, odd: Mask) -> Ints:
        if self._parse_time is None or self._time is None:
            return np.zeros(table.num_rows, np.int64)
        encoded = table.column(self._time).chunk(0).dictionary_encode()
        codes, texts = encoded.indices.to_numpy(), encoded.dictionary
        if len(texts) > _MANY_TIMES and pc.all(pc.match_substring_regex(texts, self._plain_time)).as_py():
            try:
                plain = pc.replace_substring_regex(texts, self._plain_time, r"\1-\2\3-\4T\5.\6")
                plain = pc.utf8_rtrim(plain, ".")
                times: Ints = plain.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()
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


def _as_text(columns: Iterable[str], *, check_utf8: bool = True) -> Any:
    names = list(dict.fromkeys(columns))
    return pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=names,
        strings_can_be_null=False,
        check_utf8=check_utf8,
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
