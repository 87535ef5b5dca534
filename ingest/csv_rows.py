"""One row of a capture as a reading, or the reason why it is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ingest.csv_header import Header
from readings.checks import Refused, check_gpu, check_metric_name, parse_value
from readings.labels import is_blank_text, label_conflicts, parse_labels, split_labels
from readings.model import Gpu
from readings.reasons import BAD_FIELD, BAD_TIMESTAMP, NO_IDENTITY, SHORT_ROW
from readings.times import parse_time

# A fleet's worth. The key leaves out the label __name__, so one entry serves all metrics of a GPU.
MAX_CACHED_GPUS = 20_000
_INSTANCE = re.compile(r'(?:^|,)\s*instance="([^":]+)')
_INDEX = re.compile(r"[0-9]{1,9}", re.ASCII)
_IDENTITY = (
    "uuid",
    "hostname",
    "gpu_id",
    "device",
    "model_name",
    "mig_id",
    "mig_profile",
    "container",
    "pod",
    "namespace",
)


class Sample(NamedTuple):
    """One reading of one GPU. ``time_ns`` is 0 where the time is not taken from the capture."""

    gpu: Gpu
    metric_name: str
    time_ns: int
    value: float


class RowReader:
    """Reads the rows under one header. ``conflicts`` counts rows whose labels disagree with their columns (the columns win)."""

    def __init__(self, header: Header, *, needs_timestamp: bool) -> None:
        self.conflicts = 0
        self._width = len(header.names)
        self._header = header
        self._time_column = header.column("timestamp") if needs_timestamp else None
        self._metric_column = header.columns["metric_name"][0]
        self._value_column = header.columns["value"][0]
        self._labels_column = header.column("labels")
        fields = [field for field in _IDENTITY if field in header.columns]
        self._identity = [(field, header.columns[field]) for field in fields]
        self._key_columns = [at for field in fields for at in header.columns[field]] + [at for at, _ in header.extra]
        self._gpus: dict[tuple[str, ...], tuple[Gpu, bool]] = {}

    def read(self, fields: Sequence[str]) -> Sample:
        """The reading of a row. Raises Refused with the reason and the detail."""
        # Empty fields at the end are what spreadsheets leave; anything else there would make it a guess which field is which.
        if len(fields) < self._width or any(fields[self._width :]):
            raise Refused(SHORT_ROW, f"{len(fields)} fields where the header has {self._width}")
        metric_name = check_metric_name(fields[self._metric_column])
        gpu, conflict = self._gpu(fields)
        time_ns = self._time(fields)
        value = parse_value(fields[self._value_column])
        if conflict:
            self.conflicts += 1
        return Sample(gpu, metric_name, time_ns, value)

    def _time(self, fields: Sequence[str]) -> int:
        if self._time_column is None:
            return 0
        try:
            return parse_time(fields[self._time_column])
        except ValueError as error:
            raise Refused(BAD_TIMESTAMP, str(error)) from None

    def _gpu(self, fields: Sequence[str]) -> tuple[Gpu, bool]:
        labels = "" if self._labels_column is None else fields[self._labels_column]
        # The label __name__ is all that differs between the metrics of a GPU.
        key = (
            labels.replace(f'__name__="{fields[self._metric_column]}"', "", 1),
            *[fields[at] for at in self._key_columns],
        )
        found = self._gpus.get(key)
        if found is None:
            found = self._make_gpu(fields, labels)
            if len(self._gpus) >= MAX_CACHED_GPUS:
                self._gpus.clear()
            self._gpus[key] = found
        return found

    def _make_gpu(self, fields: Sequence[str], labels_text: str) -> tuple[Gpu, bool]:
        try:
            told, extras = split_labels(parse_labels(labels_text))
        except ValueError as error:
            raise Refused(BAD_FIELD, str(error)) from None
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
        extras.update((name, value) for at, name in self._header.extra if (value := _known(fields[at])))
        index = known.get("gpu_id", "")
        gpu = Gpu(
            uuid=known["uuid"],
            hostname=known.get("hostname", ""),
            gpu_id=int(index) if _INDEX.fullmatch(index) else None,
            device=known.get("device", ""),
            model_name=known.get("model_name", ""),
            mig_id=known.get("mig_id", ""),
            mig_profile=known.get("mig_profile", ""),
            container=known.get("container", ""),
            pod=known.get("pod", ""),
            namespace=known.get("namespace", ""),
            labels=extras,
        )
        return check_gpu(gpu), conflict


def _known(text: str) -> str:
    """A field's text without spaces around it; a blank of DCGM tells nothing."""
    text = text.strip()
    return "" if is_blank_text(text) else text
