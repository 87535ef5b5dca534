"""The header of a capture: which column holds which field, under any name that a dcgm-exporter version or a tool gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.errors import SourceError
from readings.labels import HOST_LABELS

# Field: accepted names, the preferred one first. Case is ignored.
# With honorLabels off, Prometheus keeps the workload under exported_*, and plain pod is the exporter's own pod.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "timestamp": ("timestamp", "time"),
    "metric_name": ("metric_name", "metric", "__name__"),
    "value": ("value",),
    "uuid": ("uuid", "gpu_uuid"),
    "gpu_id": ("gpu_id", "gpu", "index"),
    "device": ("device",),
    "model_name": ("model_name", "modelname", "model"),
    "hostname": tuple(dict.fromkeys(name.lower() for name in HOST_LABELS)),
    "container": ("exported_container", "container", "container_name"),
    "pod": ("exported_pod", "pod", "pod_name"),
    "namespace": ("exported_namespace", "namespace", "pod_namespace"),
    "mig_id": ("gpu_i_id", "mig_id"),
    "mig_profile": ("gpu_i_profile", "mig_profile"),
    "labels": ("labels_raw", "labels"),
    "unit": ("unit",),  # in our own exports: the catalogue knows it by the metric's name
}
# With two columns for one of these, nobody could say which one is meant.
UNIQUE = ("timestamp", "metric_name", "value", "uuid", "labels")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the fields of a line are separated; ``blanks_after``: blanks may follow a separator, as in nvidia-smi's output."""

    delimiter: str = ","
    blanks_after: bool = False

    @property
    def decimal_comma(self) -> bool:
        """Whether a comma in a number is its decimal point."""
        return self.delimiter != ","


COMMAS = Dialect()


@dataclass(frozen=True, slots=True)
class CaptureHeader:
    """``columns`` maps each field to its column numbers, the preferred one first; ``extra`` has the other columns."""

    names: tuple[str, ...]
    columns: Mapping[str, tuple[int, ...]]
    extra: tuple[tuple[int, str], ...]
    dialect: Dialect = COMMAS

    def column(self, field: str) -> int | None:
        """The preferred column of a field, or None."""
        return self.columns[field][0] if field in self.columns else None


def parse_header(fields: Sequence[str], *, needs_timestamp: bool, dialect: Dialect = COMMAS) -> CaptureHeader:
    """Parse the first record. Raises SourceError, with their names, for duplicate and missing columns."""
    names = tuple(field.strip() for field in fields)
    for name in names:
        if name and names.count(name) > 1:
            raise SourceError(f"the header names the column {name!r} twice")
    columns = {}
    for field, aliases in ALIASES.items():
        # With both Hostname and hostname, the newer, lower-case form is preferred.
        matches = [(aliases.index(name.lower()), name, at) for at, name in enumerate(names) if name.lower() in aliases]
        matches.sort(key=lambda each: (each[0], each[1] != each[1].lower()))
        if len(matches) > 1 and field in UNIQUE:
            shown = " and ".join(repr(name) for _, name, _ in matches)
            raise SourceError(f"the header has several columns for {field}: {shown}")
        if matches:
            columns[field] = tuple(at for _, _, at in matches)
    required = ["timestamp", "metric_name", "value"] if needs_timestamp else ["metric_name", "value"]
    missing = [field for field in required if field not in columns]
    if "uuid" not in columns and "labels" not in columns:
        missing.append("uuid (or labels_raw)")
    if missing:
        raise SourceError(
            f"the header lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has {shown_names(names)}"
        )
    used = {at for numbers in columns.values() for at in numbers}
    extra = tuple((at, name) for at, name in enumerate(names) if at not in used and name)
    return CaptureHeader(names, columns, extra, dialect)


def shown_names(names: Sequence[str]) -> str:
    """Column names for an error's text, escaped and shortened."""
    text = ", ".join(names)
    return ascii(text if len(text) <= 200 else text[:200] + "…")[1:-1]
