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
        code = np.zeros(table.num_rows, np.int64)
        many = 1
        coded: list[
            tuple[Ints | None, Ints, pa.Array]
        ] = []  # for each row which text; for each text its lasting number
        for place, at in enumerate(self._key):
            encoded = table.column(str(at)).chunk(0).dictionary_encode()
            texts = encoded.dictionary.to_pylist()
            lasting = self._number_labels(texts) if at == self._labels else self._number(place, texts)
            if len(texts) == 1:
                coded.append((None, lasting, encoded.dictionary))
                continue
            indices = encoded.indices.to_numpy()
            if at == self._labels:  # rows that differ in nothing but the label __name__ are of one description
                distinct, first, local = np.unique(lasting, return_index=True, return_inverse=True)
                lasting, indices, size = distinct, local[indices], len(distinct)
                coded.append((indices, lasting, encoded.dictionary.take(pa.array(first))))
            else:
                size = len(texts)
                coded.append((indices, lasting, encoded.dictionary))
            if many > _MAX_CODE // size:
                code, many = _dense(code)
            code = code * size + indices
            many *= size
        entry, firsts = _entries(code)
        return self._describe(entry, firsts, coded)

    def _describe(self, entry: Ints, firsts: Ints, coded: list[tuple[Ints | None, Ints, pa.Array]]) -> Found:
        local = [np.zeros(len(firsts), np.int64) if indices is None else indices[firsts] for indices, _, _ in coded]
        keys = zip(*[lasting[each].tolist() for each, (_, lasting, _) in zip(local, coded, strict=True)], strict=True)
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
                for at, each, (_, _, texts) in zip(self._key, local, coded, strict=True):
                    fields[at] = texts[int(each[number])].as_py()
                known = self._known[key] = self._describe_anew(fields)
            described, kind[number] = known
            if described is None:
                refused[number] = True
                continue
            conflict[number] = described.conflict
            place = numbers.setdefault(id(described.gpu), len(gpus))
            if place == len(gpus):
                gpus.append(described.gpu)
            gpu[number] = place
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


def _dense(code: Ints) -> tuple[Ints, int]:
    """The same codes counted from 0 without holes, and how many."""
    distinct, dense = np.unique(code, return_inverse=True)
    return dense.astype(np.int64), len(distinct)


def _entries(code: Ints) -> tuple[Ints, Ints]:
    """For each row which of the distinct codes it has, in the order of their first rows; and these rows."""
    encoded = pa.array(code).dictionary_encode()
    entry = encoded.indices.to_numpy().astype(np.int64)
    firsts = np.zeros(len(encoded.dictionary), np.int64)
    firsts[entry[::-1]] = np.arange(len(entry) - 1, -1, -1)
    return entry, firsts
