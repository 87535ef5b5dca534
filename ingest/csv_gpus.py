"""Which GPU the rows of a block are of, where every distinct description is looked at once, not every row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.csv_header import Header
from ingest.csv_rows import MAX_CACHED_GPUS, Described, RowReader
from ingest.naming import Telling
from readings.checks import Refused
from readings.columns import Ints
from readings.labels import without_name
from readings.model import Gpu

_NOT_IDENTITY = {"timestamp", "metric_name", "value", "labels", "unit"}
_MAX_CODE = 1 << 62
_MAX_LABELS_HELD = 16 << 20  # bytes


class Found(NamedTuple):
    """For each row its ``entry``; for each entry its GPU (a place in ``gpus``), its kind (in ``tellings``), and what is wrong with it."""

    entry: Ints
    gpus: list[Gpu]
    gpu: Ints
    tellings: list[Telling]
    kind: Ints
    refused: npt.NDArray[np.bool_]
    conflict: npt.NDArray[np.bool_]


class _Column(NamedTuple):
    """A column of a block: for each row which of its texts (None: there is one), and the number that each text has for good."""

    rows: Ints | None
    numbers: Ints
    texts: pa.Array


class GpuTable:
    """All descriptions met so far; ``rows`` makes them out. Needs the columns named in ``columns`` as text."""

    def __init__(self, header: Header, rows: RowReader) -> None:
        self._rows = rows
        self._width = len(header.names)
        self._labels = header.column("labels")
        key = [at for field, numbers in header.columns.items() if field not in _NOT_IDENTITY for at in numbers]
        self._key = [*key, *[at for at, _ in header.extra]]
        if self._labels is not None:
            self._key.append(self._labels)
        self.columns = [str(at) for at in self._key]
        self._texts: list[dict[str, int]] = [{} for _ in self._key]
        self._raw_labels: dict[str, int] = {}
        self._raw_size = 0
        self._known: dict[tuple[int, ...], tuple[Described | None, int]] = {}
        self._tellings: dict[Telling, int] = {}

    def find(self, table: pa.Table) -> Found:
        """The descriptions of all rows of ``table``, which has one chunk."""
        if len(self._known) > MAX_CACHED_GPUS:
            self._forget()
        columns = [self._read(place, table.column(name).chunk(0)) for place, name in enumerate(self.columns)]
        entry, firsts = _entries(columns, table.num_rows)
        return self._describe(entry, firsts, columns)

    def _read(self, place: int, column: pa.Array) -> _Column:
        encoded = column.dictionary_encode()
        texts, rows = encoded.dictionary, encoded.indices.to_numpy()
        if self._key[place] != self._labels:
            numbers = self._number(place, texts.to_pylist())
        else:  # rows that differ in nothing but the label __name__ are of one description
            numbers, firsts, local = np.unique(
                self._number_labels(texts.to_pylist()), return_index=True, return_inverse=True
            )
            texts, rows = texts.take(pa.array(firsts)), local[rows]
        return _Column(None if len(numbers) == 1 else rows, numbers, texts)

    def _describe(self, entry: Ints, firsts: Ints, columns: list[_Column]) -> Found:
        """What the distinct descriptions are, each of which is in one of the rows ``firsts``."""
        places = [np.zeros(len(firsts), np.int64) if each.rows is None else each.rows[firsts] for each in columns]
        keys = zip(*[each.numbers[place].tolist() for each, place in zip(columns, places, strict=True)], strict=True)
        numbers: dict[int, int] = {}
        gpus: list[Gpu] = []
        gpu = np.zeros(len(firsts), np.int64)
        kind = np.zeros(len(firsts), np.int64)
        refused = np.zeros(len(firsts), bool)
        conflict = np.zeros(len(firsts), bool)
        for number, key in enumerate(keys):
            known = self._known.get(key)
            if known is None:
                fields = [""] * self._width
                for at, each, place in zip(self._key, columns, places, strict=True):
                    fields[at] = each.texts[int(place[number])].as_py()
                known = self._known[key] = self._describe_anew(fields)
            described, kind[number] = known
            if described is None:
                refused[number] = True
                continue
            conflict[number] = described.conflict
            gpu[number] = numbers.setdefault(id(described.gpu), len(gpus))
            if gpu[number] == len(gpus):
                gpus.append(described.gpu)
        return Found(entry, gpus, gpu, list(self._tellings), kind, refused, conflict)

    def _describe_anew(self, fields: list[str]) -> tuple[Described | None, int]:
        try:
            described = self._rows.describe(fields)
        except Refused:
            return None, self._tellings.setdefault((), len(self._tellings))
        return described, self._tellings.setdefault(described.telling, len(self._tellings))

    def _number(self, place: int, texts: list[str]) -> Ints:
        known = self._texts[place]
        return np.array([known.setdefault(text, len(known)) for text in texts], np.int64)

    def _number_labels(self, texts: list[str]) -> Ints:
        raw, known = self._raw_labels, self._texts[-1]
        numbers = []
        for text in texts:
            number = raw.get(text)
            if number is None:
                number = known.setdefault(without_name(text), len(known))
                self._raw_size += len(text)
                if self._raw_size > _MAX_LABELS_HELD:
                    raw.clear()
                    self._raw_size = len(text)
                raw[text] = number
            numbers.append(number)
        return np.array(numbers, np.int64)

    def _forget(self) -> None:
        """Captures whose labels never come again must not fill the memory."""
        for texts in self._texts:
            texts.clear()
        self._raw_labels.clear()
        self._raw_size = 0
        self._known.clear()
        self._tellings.clear()


def _entries(columns: list[_Column], count: int) -> tuple[Ints, Ints]:
    """For each row which of the distinct combinations it has, in the order of their first rows; and these rows."""
    code = np.zeros(count, np.int64)
    many = 1
    for column in columns:
        if column.rows is not None:
            size = len(column.numbers)
            if many > _MAX_CODE // size:  # count from 0 again, without holes
                distinct, code = np.unique(code, return_inverse=True)
                many = len(distinct)
            code = code * size + column.rows
            many *= size
    encoded = pa.array(code).dictionary_encode()
    entry = encoded.indices.to_numpy().astype(np.int64)
    firsts = np.zeros(len(encoded.dictionary), np.int64)
    firsts[entry[::-1]] = np.arange(count - 1, -1, -1)
    return entry, firsts
