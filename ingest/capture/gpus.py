"""The GPUs that the rows of a block describe: each distinct description is parsed once."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.capture.header import CaptureHeader
from ingest.capture.rows import MAX_CACHED_GPUS, GpuDescription, RowReader
from ingest.capture.twins import Described
from ingest.samples import NamingLabels
from readings.checks import Refused
from readings.columns import Ints
from readings.labels import without_name
from readings.model import Gpu

_BETWEEN = "\0"  # blocks with this byte are read row by row
_MAX_LABELS_HELD = 16 << 20  # bytes
# Labels are foreseen for so many metrics of a capture.
_MOST_METRICS = 256


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


class _ParsedDescription(NamedTuple):
    """A description that was parsed (None: it is refused), and the place of its labels in ``naming``."""

    described: GpuDescription | None
    kind: int


class GpuTable:
    """Remembers the descriptions of GPUs, so that each is parsed once. Needs the columns in ``columns`` as text without NUL.

    Labels are long, and mostly those of the last row with the same metric and the same other columns. Comparing a block's labels with these
    takes a third of the time of looking for the distinct ones.
    """

    def __init__(self, header: CaptureHeader, rows: RowReader) -> None:
        self._rows = rows
        self._width = len(header.names)
        self._labels = header.column("labels")
        self._key = [at for at in rows.key_columns if at != self._labels]
        self.columns = [str(at) for at in (*self._key, *([] if self._labels is None else [self._labels]))]
        self._raw_bases: dict[tuple[str | None, ...], dict[str, int]] = {}
        self._metrics: dict[str, int] = {}
        self._plain_labels: dict[str, int] = {}
        self._raw_labels: dict[str, int] = {}
        self._raw_size = 0
        self._bases: dict[tuple[str, ...], int] = {}
        self._places: dict[tuple[int, int], int] = {}
        self._naming: dict[NamingLabels, int] = {}
        self._known: list[_ParsedDescription] = []
        # By base and metric: the place in ``_texts_foreseen`` (-1: none), and the number of the description.
        self._slot_text = self._slot_known = np.zeros(0, np.int64)
        self._texts_foreseen: pa.Array | None = None
        # What the last block had: the next one mostly has the same descriptions.
        self._last: tuple[tuple[bytes, int], GpuEntries] | None = None
        self._version = rows.parts.version

    def find(self, table: pa.Table, metric: Ints, metric_names: Sequence[str]) -> GpuEntries:
        """The descriptions in the rows of ``table``, which must have one chunk. Row i is of ``metric_names[metric[i]]``."""
        if len(self._known) > MAX_CACHED_GPUS or self._version != self._rows.parts.version:
            self._forget()
        columns = [table.column(str(key)).chunk(0) for key in self._key]
        bases = self._number_bases(columns, table.num_rows)
        if self._labels is None:
            return self._entries_of(self._numbers(bases, np.zeros(len(bases), np.int64), columns, None))
        column = table.column(str(self._labels)).chunk(0)
        metrics = np.array([self._metrics.setdefault(name, len(self._metrics)) for name in metric_names], np.int64)
        slots = bases * _MOST_METRICS + metrics[metric] if len(self._metrics) <= _MOST_METRICS else None
        known = self._foreseen(slots, column)
        if known is None:
            known = self._numbers(bases, self._number_labels(column), columns, column)
            self._foresee(slots, known, column)
        return self._entries_of(known)

    # Columns.

    def _number_bases(self, columns: list[pa.Array], count: int) -> Ints:
        """A number for the columns without labels in each row.

        Looking for distinct texts once, in all columns that are not constant, takes half the time of looking in each.
        """
        constants = tuple(_constant(column) for column in columns)
        varying = [column for column, text in zip(columns, constants, strict=True) if text is None]
        raw = self._raw_bases.setdefault(constants, {})
        if not varying:
            return np.full(count, self._number_base(raw, constants, ""), np.int64)
        encoded = pc.binary_join_element_wise(*varying, _BETWEEN).dictionary_encode()
        numbers = [
            number if (number := raw.get(text)) is not None else self._number_base(raw, constants, text)
            for text in encoded.dictionary.to_pylist()
        ]
        rows: Ints = np.array(numbers, np.int64)[encoded.indices.to_numpy()]
        return rows

    def _number_base(self, raw: dict[str, int], constants: tuple[str | None, ...], joined: str) -> int:
        """The number of one combination of texts, in whichever of its columns they are constant."""
        varying = iter(joined.split(_BETWEEN))
        texts = tuple(next(varying) if text is None else text for text in constants)
        number = raw[joined] = self._bases.setdefault(texts, len(self._bases))
        return number

    def _number_labels(self, column: pa.Array) -> Ints:
        """A number for the labels of each row. Labels that differ only in __name__ are one description."""
        encoded = column.dictionary_encode()
        raw, plain = self._raw_labels, self._plain_labels
        numbers = []
        for text in encoded.dictionary.to_pylist():
            number = raw.get(text)
            if number is None:
                number = plain.setdefault(without_name(text), len(plain))
                self._raw_size += len(text)
                if self._raw_size > _MAX_LABELS_HELD:
                    raw.clear()
                    self._raw_size = len(text)
                raw[text] = number
            numbers.append(number)
        rows: Ints = np.array(numbers, np.int64)[encoded.indices.to_numpy()]
        return rows

    # What is foreseen: the labels of a row, by its metric and other columns.

    def _foreseen(self, slots: Ints | None, column: pa.Array) -> Ints | None:
        """The number of each row's description, if all rows have the labels that are foreseen."""
        if slots is None or self._texts_foreseen is None or int(slots.max()) >= len(self._slot_text):
            return None
        texts: Ints = self._slot_text[slots]
        if texts.min() < 0 or not pc.all(pc.equal(self._texts_foreseen.take(pa.array(texts)), column)).as_py():
            return None
        return self._slot_known[slots]

    def _foresee(self, slots: Ints | None, known: Ints, column: pa.Array) -> None:
        """Foresee for later rows what these had."""
        if slots is None:
            return
        distinct, rows = np.unique(slots, return_index=True)
        size = (int(distinct[-1]) // _MOST_METRICS + 1) * _MOST_METRICS
        if size > len(self._slot_text):
            grown = max(size, 2 * len(self._slot_text))
            self._slot_text = np.append(self._slot_text, np.full(grown - len(self._slot_text), -1, np.int64))
            self._slot_known = np.append(self._slot_known, np.zeros(grown - len(self._slot_known), np.int64))
        texts = column.take(pa.array(rows))
        before = self._texts_foreseen
        if before is None or before.nbytes > _MAX_LABELS_HELD:
            self._slot_text[:] = -1
            before = texts.slice(0, 0)
        self._texts_foreseen = pa.concat_arrays([before, texts])
        self._slot_text[distinct] = np.arange(len(before), len(before) + len(texts))
        self._slot_known[distinct] = known[rows]

    # Descriptions.

    def _numbers(self, bases: Ints, labels: Ints, columns: list[pa.Array], column: pa.Array | None) -> Ints:
        """The number of each row's description. Parses those that are new, each from the first row that has it."""
        pairs, rows, pair = np.unique(bases * (int(labels.max()) + 1) + labels, return_index=True, return_inverse=True)
        numbers = np.zeros(len(pairs), np.int64)
        for place in np.argsort(rows).tolist():
            row = int(rows[place])
            key = int(bases[row]), int(labels[row])
            number = self._places.get(key)
            if number is None:
                fields = [""] * self._width
                for at, each in zip(self._key, columns, strict=True):
                    fields[at] = each[row].as_py()
                if column is not None and self._labels is not None:
                    fields[self._labels] = column[row].as_py()
                number = self._places[key] = self._describe_anew(fields)
            numbers[place] = number
        return numbers[pair]

    def _describe_anew(self, fields: list[str]) -> int:
        try:
            described = self._rows.describe(fields)
        except Refused:
            known = _ParsedDescription(None, self._naming.setdefault((), len(self._naming)))
        else:
            known = _ParsedDescription(described, self._naming.setdefault(described.naming, len(self._naming)))
        self._known.append(known)
        return len(self._known) - 1

    def _entries_of(self, known: Ints) -> GpuEntries:
        """What a block has of these descriptions, in the order in which they were first met."""
        is_there = np.zeros(len(self._known), np.bool_)
        is_there[known] = True
        entry = (np.cumsum(is_there) - 1)[known]
        suspected = self._rows.twins.suspected_gpus
        key = is_there.tobytes(), len(suspected)  # of these there are ever more
        if self._last is None or self._last[0] != key:
            self._last = key, self._entries_there(is_there, suspected)
        return self._last[1]._replace(entry=entry)

    def _entries_there(self, is_there: npt.NDArray[np.bool_], suspected: Set[tuple[str, ...]]) -> GpuEntries:
        found = [self._known[number] for number in np.flatnonzero(is_there).tolist()]
        numbers: dict[int, int] = {}
        gpus: list[Gpu] = []
        gpu = np.zeros(len(found), np.int64)
        refused = np.zeros(len(found), bool)
        remarks: dict[int, frozenset[str]] = {}
        of_gpu: dict[tuple[str, ...], list[int]] = {}
        for number, (described, _) in enumerate(found):
            if described is None:
                refused[number] = True
                continue
            of_gpu.setdefault(described.described.identity, []).append(number)
            if described.remarks:
                remarks[number] = described.remarks
            place = numbers.setdefault(id(described.gpu), len(gpus))
            if place == len(gpus):
                gpus.append(described.gpu)
            gpu[number] = place
        several = {
            number: described.described
            for identity, same in of_gpu.items()
            if len(same) > 1 or identity in suspected
            for number in same
            if (described := found[number].described) is not None
        }
        kind = np.array([each.kind for each in found], np.int64)
        return GpuEntries(np.zeros(0, np.int64), gpus, gpu, list(self._naming), kind, refused, remarks, several)

    def _forget(self) -> None:
        """Start over: labels that never repeat must not fill the memory, and labels that were found are no longer of GPUs."""
        self._version = self._rows.parts.version
        self._raw_bases.clear()
        self._metrics.clear()
        self._plain_labels.clear()
        self._raw_labels.clear()
        self._raw_size = 0
        self._bases.clear()
        self._places.clear()
        self._naming.clear()
        self._known.clear()
        self._slot_text = self._slot_known = np.zeros(0, np.int64)
        self._texts_foreseen = None
        self._last = None


def _constant(column: pa.Array) -> str | None:
    """The text of all rows; None if they differ."""
    first = column[0]
    if column[-1] != first or not pc.all(pc.equal(column, first)).as_py():
        return None
    return cast(str, first.as_py())
