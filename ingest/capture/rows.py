"""Reads a capture row by row: for the lines that the column reader leaves out. Slow and exact."""

from __future__ import annotations

import csv
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, tzinfo
from itertools import repeat
from typing import BinaryIO, NamedTuple

from ingest.capture.compression import PeekableFile
from ingest.capture.header import COMMAS, CaptureHeader, Dialect
from ingest.capture.twins import Described, LabelledRow, Twins
from ingest.parts import Parts
from ingest.samples import IDENTITY, NamingLabels, PartNames, RefusedRow, Sample, make_gpu, metric_namer, naming_labels
from readings.checks import (
    BAD_FIELD,
    BAD_TIMESTAMP,
    DUPLICATE_ROW,
    LABEL_CONFLICT,
    NO_IDENTITY,
    NO_METRIC,
    NOT_A_GPU,
    NOT_UTF8,
    SHORT_ROW,
    Refused,
    parse_value,
)
from readings.labels import (
    HOST_LABELS,
    OWNER_LABELS,
    host_of,
    is_blank_identity,
    is_blank_text,
    is_of_no_gpu,
    label_conflicts,
    read_labels,
    split_labels,
    without_name,
)
from readings.model import Gpu
from readings.times import parse_time
from readings.units import SourceUnits

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 1 << 20
MAX_LINES_PER_RECORD = 50
MAX_RAW_CHARACTERS = 4096
# Rows read one by one where a block as a whole cannot be read by column.
CAREFUL_ROWS = 1000
# A field is as long as its line, so that long labels refuse no row.
csv.field_size_limit(MAX_LINE_BYTES)


class CsvRecord(NamedTuple):
    """A record: the number of its first line from 1, and its fields."""

    line: int
    fields: list[str]


class CsvRecords:
    """An iterator over the records of a UTF-8 file that is open in binary mode, from its current position.

    ``position`` is the byte after the last record returned, ``line`` the number of the next line: a later reader that starts
    there goes on exactly where this one stopped. Blank lines are skipped. Raises OSError when the file cannot be read.
    """

    def __init__(self, file: PeekableFile | BinaryIO, *, line: int = 1, dialect: Dialect = COMMAS) -> None:
        self.position = file.tell()
        self.line = line
        self._file = file
        self._taken: list[bytes] = []
        self._again: deque[bytes] = deque()
        # A generator would end with the first exception that passes through it. A map goes on.
        self._reader = csv.reader(
            map(self._next_text, repeat(None)),
            strict=True,
            delimiter=dialect.delimiter,
            skipinitialspace=dialect.blanks_after,
        )

    def __iter__(self) -> Iterator[CsvRecord | RefusedRow]:
        return self

    def __next__(self) -> CsvRecord | RefusedRow:
        while True:
            self._taken.clear()
            try:
                fields = next(self._reader)
            except (csv.Error, Refused) as error:
                return self._give_up_first_line(error)
            first_line = self.line
            self.position += sum(map(len, self._taken))
            self.line += len(self._taken)
            if fields:
                return CsvRecord(first_line, fields)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing beyond ``position`` was read from the file."""
        return not self._again

    def raw(self) -> str:
        """The text of the last record, shortened when long."""
        return _text(b"".join(self._taken))

    def _next_text(self, _: None) -> str:
        """The next line for csv.reader, which asks for more while a quote is open."""
        if len(self._taken) == MAX_LINES_PER_RECORD:
            raise Refused(SHORT_ROW, "a quote is opened and not closed")
        raw = self._again.popleft() if self._again else self._file.readline(MAX_LINE_BYTES)
        if not raw:
            if self._taken:
                raise Refused(SHORT_ROW, "a quote is opened and not closed before the file ends")
            raise StopIteration
        self._taken.append(raw)
        if len(raw) >= MAX_LINE_BYTES and not raw.endswith(b"\n"):
            raise Refused(BAD_FIELD, f"the line is longer than {MAX_LINE_BYTES} bytes")
        return raw.decode("utf-8", "replace")

    def _give_up_first_line(self, error: Exception) -> RefusedRow:
        first, *others = self._taken
        self._again.extendleft(reversed(others))
        line = self.line
        self.line += 1
        self.position += len(first)
        if len(first) >= MAX_LINE_BYTES and not first.endswith(b"\n"):
            self.position += self._skip_rest_of_line()
        if isinstance(error, Refused):
            return RefusedRow(line, error.reason, error.detail, _text(first))
        return RefusedRow(line, BAD_FIELD, str(error), _text(first))

    def _skip_rest_of_line(self) -> int:
        skipped = 0
        while piece := self._file.readline(MAX_LINE_BYTES):
            skipped += len(piece)
            if piece.endswith(b"\n"):
                break
        return skipped


def _text(raw: bytes) -> str:
    return raw[: 4 * MAX_RAW_CHARACTERS].decode("utf-8", "replace").rstrip("\r\n")[:MAX_RAW_CHARACTERS]


SECOND_ROW = "a second row of this GPU, metric and time, and no label tells it from the first"
# A fleet's worth.
MAX_CACHED_GPUS = 20_000


class GpuDescription(NamedTuple):
    """A GPU as a row describes it. ``remarks``: what was left out, or contradicts itself. ``naming``: see ``naming_labels``."""

    gpu: Gpu
    remarks: frozenset[str]
    naming: NamingLabels
    described: Described


class RowReadings(NamedTuple):
    """The readings in one row, and why some of its values give none."""

    samples: list[Sample]
    refused: Sequence[Refused] = ()


class RowReader:
    """Reads rows under one header. ``remarks`` counts rows by what was left out of them, or was taken against their labels."""

    def __init__(
        self,
        header: CaptureHeader,
        *,
        needs_timestamp: bool,
        units: SourceUnits | None = None,
        zone: tzinfo = UTC,
        parts: Parts | None = None,
    ) -> None:
        self._zone = zone
        self.parts = Parts() if parts is None else parts
        self.twins = Twins(self.parts)
        self._version = self.parts.version
        self.remarks: Counter[str] = Counter()
        self._units = units or SourceUnits()
        self._names = PartNames()
        self._told: set[str] = set()
        self.stored_name = metric_namer(self._units, self.parts.of, self._names)
        self._width = len(header.names)
        self._header = header
        self._time_column = header.column("timestamp") if needs_timestamp else None
        self._metric_column = header.columns["metric_name"][0]
        self._value_column = header.columns["value"][0]
        self._labels_column = header.column("labels")
        self._decimal_comma = header.dialect.decimal_comma
        fields = [field for field in IDENTITY if field in header.columns]
        self._identity = [(field, header.columns[field]) for field in fields if field != "hostname"]
        self._hosts = [(at, header.names[at].lower()) for at in header.columns.get("hostname", ())]
        self.key_columns = [at for field in fields for at in header.columns[field]] + [at for at, _ in header.extra]
        self._gpus: dict[tuple[str, ...], GpuDescription] = {}

    def take_remarks(self) -> Counter[str]:
        """The counts since the last call."""
        remarks, self.remarks = self.remarks, Counter()
        return remarks

    def read(self, fields: Sequence[str]) -> Sample:
        """The reading in a row. Raises Refused with the reason and the detail."""
        # Spreadsheets leave empty fields at the end. With anything else there, it is a guess which field is which.
        if len(fields) < self._width or any(fields[self._width :]):
            raise Refused(SHORT_ROW, f"{len(fields)} fields where the header has {self._width}")
        name = fields[self._metric_column]
        if not name.strip():
            raise Refused(NO_METRIC, "metric_name is empty")
        gpu, remarks, naming, described = self.describe(fields)
        metric_name, convert = self.stored_name(name, naming)
        time_ns = self._time(fields)
        text = fields[self._value_column]
        value = parse_value(text.replace(",", ".") if self._decimal_comma else text)
        if convert is not None:
            value = convert(value)
        if self._is_second(LabelledRow(described, metric_name, time_ns, value)):
            if self._version != self.parts.version:
                return self.read(fields)  # a part of its own now
            raise Refused(DUPLICATE_ROW, SECOND_ROW)
        self.remarks.update(remarks)
        return Sample(gpu, metric_name, time_ns, value)

    def read_all(self, fields: Sequence[str]) -> RowReadings:
        """All readings in a row. Raises Refused."""
        return RowReadings([self.read(fields)])

    def _is_second(self, row: LabelledRow) -> bool:
        return (
            self._time_column is not None
            and self.twins.suspects(row.described, row.name)
            and bool(self.twins.second([row]))
        )

    def _time(self, fields: Sequence[str]) -> int:
        if self._time_column is None:
            return 0
        try:
            return parse_time(fields[self._time_column], self._zone)
        except ValueError as error:
            raise Refused(BAD_TIMESTAMP, str(error)) from None

    def describe(self, fields: Sequence[str]) -> GpuDescription:
        """The GPU that a row describes. Raises Refused."""
        if self._version != self.parts.version:
            self.forget()
        labels = "" if self._labels_column is None else fields[self._labels_column]
        key = (without_name(labels), *[fields[at] for at in self.key_columns])
        description = self._gpus.get(key)
        if description is None:
            description = self._describe_anew(fields, labels)
            if len(self._gpus) >= MAX_CACHED_GPUS:
                self._gpus.clear()
            self._gpus[key] = description
        return description

    def forget(self) -> None:
        """Describe all GPUs anew, with the parts that were found."""
        self._version = self.parts.version
        self._gpus.clear()
        self.stored_name = metric_namer(self._units, self.parts.of, self._names)

    def _describe_anew(self, fields: Sequence[str], labels_text: str) -> GpuDescription:
        try:
            labels, remarks = read_labels(labels_text)
        except ValueError as error:
            raise Refused(BAD_FIELD, str(error)) from None
        labels.update((name, value) for at, name in self._header.extra if (value := _unless_blank(fields[at])))
        labelled, extras = split_labels(labels, self.parts.of_readings)
        columns: dict[str, str] = {}
        for field, numbers in self._identity:
            values = [value for at in numbers if (value := _unless_blank(fields[at]))]
            if values and not (field == "uuid" and is_blank_identity(values[0])):
                columns[field] = values[0]
        conflict = bool(label_conflicts(columns, labelled))
        conflict |= self._find_host(fields, labels, columns)
        identity = {**labelled, **columns}
        if "uuid" not in identity:
            told = {**labels, **{name: value for name, value in identity.items() if value}}
            if is_of_no_gpu(told, fields[self._metric_column]):
                raise Refused(NOT_A_GPU, "a row that names no GPU")
            raise Refused(NO_IDENTITY, "neither the uuid column nor the labels have a uuid, or it is blank")
        gpu, remarks = make_gpu(identity, extras, remarks)
        for remark in remarks:
            if remark.reason not in self._told:
                self._told.add(remark.reason)
                logger.info("%s: %s (the first of this kind)", remark.reason, remark.detail)
        reasons = {remark.reason for remark in remarks}
        if conflict:
            reasons.add(LABEL_CONFLICT)
        if any("\ufffd" in field for field in fields):
            reasons.add(NOT_UTF8)
        owned = not OWNER_LABELS.isdisjoint(labels)
        # Rows may differ in columns alone, such as the host's.
        described = Described((gpu.id, gpu.namespace, gpu.pod, gpu.container), {**labels, **columns}, owned)
        return GpuDescription(gpu, frozenset(reasons), naming_labels(labels, self.parts.labels), described)

    def _find_host(self, fields: Sequence[str], labels: Mapping[str, str], columns: dict[str, str]) -> bool:
        """Add the host to the columns; says whether Hostname and hostname, which are two names for one, differ."""
        told: dict[str, str] = {}
        conflict = False
        for at, name in self._hosts:  # the preferred one first
            host = _unless_blank(fields[at])
            if host:
                conflict |= name == "hostname" and told.get(name, host) != host
                told.setdefault(name, host)
        hosts = {name: value for name, value in labels.items() if name in HOST_LABELS}
        if "hostname" in told:
            conflict |= any(hosts.pop(name, told["hostname"]) != told["hostname"] for name in ("hostname", "Hostname"))
        if host := host_of({**hosts, **told}):
            columns["hostname"] = host
        return conflict


def _unless_blank(text: str) -> str:
    """A field's text without spaces around it; empty for a blank of DCGM."""
    text = text.strip()
    return "" if is_blank_text(text) else text
