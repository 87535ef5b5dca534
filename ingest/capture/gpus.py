"""The GPUs that the rows of a block describe: each distinct description is parsed once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.capture.header import CaptureHeader
from ingest.capture.rows import MAX_CACHED_GPUS, GpuDescription, RowReader
from ingest.capture.twins import Described
from ingest.samples import NamingLabels
from readings.checks import Refused
from readings.columns import Ints
from readings.labels import without_name
from readings.model import Gpu

_MAX_CODE = 1 << 62
_MAX_LABELS_HELD = 16 << 20  # bytes


class GpuEntries(NamedTuple):
    """The distinct descriptions of GPUs in a block.

    ``entry`` has the number of the description of each row. The other arrays have one value per description: the place of its
    GPU in ``gpus``, the place of its labels in ``naming``, and whether it is refused. ``remarks`` has those of each that has any, ``several`` the descriptions of those of whose GPU there are or were several.
    """

    entry: Ints
    gpus: list[Gpu]
    gpu: Ints
    naming: list[NamingLabels]
    kind: Ints
    refused: npt.NDArray[np.bool_]
    remarks: dict[int, frozenset[str]]
    several: dict[int, Described]


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
        self._version = rows.parts.version

    def find(self, table: pa.Table) -> GpuEntries:
        """The descriptions in the rows of ``table``, which must have one chunk."""
        if len(self._descriptions) > MAX_CACHED_GPUS or self._version != self._rows.parts.version:
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
        of_gpu: dict[tuple[str, ...], list[tuple[int, Described]]] = {}
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
            of_gpu.setdefault(described.described.identity, []).append((number, described.described))
            if described.remarks:
                remarks[number] = described.remarks
            gpu[number] = numbers.setdefault(id(described.gpu), len(gpus))
            if gpu[number] == len(gpus):
                gpus.append(described.gpu)
        suspected = self._rows.twins.suspected_gpus
        several = {
            number: each
            for identity, same in of_gpu.items()
            if len(same) > 1 or identity in suspected
            for number, each in same
        }
        return GpuEntries(entry, gpus, gpu, list(self._naming), kind, refused, remarks, several)

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
        """Start over: labels that never repeat must not fill the memory, and labels that were found are no longer of GPUs."""
        self._version = self._rows.parts.version
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
