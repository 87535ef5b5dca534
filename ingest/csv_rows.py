"""One row of a capture as a reading, or the reason why it is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import NamedTuple

from ingest.csv_header import Header
from ingest.naming import Namer, Telling, telling
from ingest.samples import IDENTITY, Sample, make_gpu
from readings.checks import BAD_FIELD, BAD_TIMESTAMP, NO_IDENTITY, NO_METRIC, SHORT_ROW, Refused, parse_value
from readings.labels import is_blank_text, label_conflicts, parse_labels, split_labels, without_name
from readings.model import Gpu
from readings.times import parse_time
from readings.units import SourceUnits

# A fleet's worth.
MAX_CACHED_GPUS = 20_000
_INSTANCE = re.compile(r'(?:^|,)\s*instance="([^":]+)')


class Described(NamedTuple):
    """What the fields beside name, time and value tell. ``conflict``: the labels disagree with the columns."""

    gpu: Gpu
    conflict: bool
    telling: Telling


class RowReader:
    """Reads the rows under one header. ``conflicts`` counts rows whose labels disagree with their columns (the columns win)."""

    def __init__(
        self, header: Header, *, needs_timestamp: bool, units: SourceUnits | None = None, zone: tzinfo = UTC
    ) -> None:
        self._zone = zone
        self.conflicts = 0
        self.namer = Namer(units or SourceUnits())
        self._width = len(header.names)
        self._header = header
        self._time_column = header.column("timestamp") if needs_timestamp else None
        self._metric_column = header.columns["metric_name"][0]
        self._value_column = header.columns["value"][0]
        self._labels_column = header.column("labels")
        fields = [field for field in IDENTITY if field in header.columns]
        self._identity = [(field, header.columns[field]) for field in fields]
        self._key_columns = [at for field in fields for at in header.columns[field]] + [at for at, _ in header.extra]
        self._gpus: dict[tuple[str, ...], Described] = {}

    def read(self, fields: Sequence[str]) -> Sample:
        """The reading of a row. Raises Refused with the reason and the detail."""
        # Empty fields at the end are what spreadsheets leave; anything else there would make it a guess which field is which.
        if len(fields) < self._width or any(fields[self._width :]):
            raise Refused(SHORT_ROW, f"{len(fields)} fields where the header has {self._width}")
        name = fields[self._metric_column]
        if not name.strip():
            raise Refused(NO_METRIC, "metric_name is empty")
        gpu, conflict, told = self.describe(fields)
        metric_name, convert = self.namer.name(name, told)
        time_ns = self._time(fields)
        value = parse_value(fields[self._value_column])
        if conflict:
            self.conflicts += 1
        return Sample(gpu, metric_name, time_ns, value if convert is None else convert(value))

    def _time(self, fields: Sequence[str]) -> int:
        if self._time_column is None:
            return 0
        try:
            return parse_time(fields[self._time_column], self._zone)
        except ValueError as error:
            raise Refused(BAD_TIMESTAMP, str(error)) from None

    def describe(self, fields: Sequence[str]) -> Described:
        """What a row tells beside name, time and value. Raises Refused."""
        labels = "" if self._labels_column is None else fields[self._labels_column]
        key = (without_name(labels), *[fields[at] for at in self._key_columns])
        found = self._gpus.get(key)
        if found is None:
            found = self._describe_anew(fields, labels)
            if len(self._gpus) >= MAX_CACHED_GPUS:
                self._gpus.clear()
            self._gpus[key] = found
        return found

    def _describe_anew(self, fields: Sequence[str], labels_text: str) -> Described:
        try:
            labels = parse_labels(labels_text)
        except ValueError as error:
            raise Refused(BAD_FIELD, str(error)) from None
        labels.update((name, value) for at, name in self._header.extra if (value := _known(fields[at])))
        told, extras = split_labels(labels)
        columns: dict[str, str] = {}
        conflict = False
        for field, numbers in self._identity:
            values = [value for at in numbers if (value := _known(fields[at]))]
            if values:
                columns[field] = values[0]
                # exported_pod beside pod is two things, Hostname beside hostname are two names of one.
                conflict |= field == "hostname" and len(set(values)) > 1
        conflict |= bool(label_conflicts(columns, told))
        known = {**told, **columns}
        if not known.get("uuid"):
            raise Refused(NO_IDENTITY, "neither the uuid column nor the labels tell a uuid")
        if "hostname" not in known and (instance := _INSTANCE.search(labels_text)):
            known["hostname"] = instance[1]
        return Described(make_gpu(known, extras), conflict, telling(labels))


def _known(text: str) -> str:
    """A field's text without spaces around it; a blank of DCGM tells nothing."""
    text = text.strip()
    return "" if is_blank_text(text) else text
