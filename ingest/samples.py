"""What sources produce: single readings, and rows that were refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from readings.catalogue import PART_LABELS, name_of_part
from readings.checks import check_gpu, check_metric_name
from readings.model import Gpu
from readings.units import NEW_DRIVER_LABEL, OLD_DRIVER_LABEL, Folded, SourceUnits

# Names of a GPU's identity columns in sources.
IDENTITY = (
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
    """One reading of one GPU. ``time_ns`` is 0 if the source's time is not used."""

    gpu: Gpu
    metric_name: str
    time_ns: int
    value: float


class RefusedRow(NamedTuple):
    """A row or line without a usable reading: its number (from 1), reason, detail and text."""

    line: int
    reason: str
    detail: str
    raw: str


def make_gpu(known: Mapping[str, str], extras: Mapping[str, str]) -> Gpu:
    """The GPU of a row: ``known`` has the columns named in IDENTITY, ``extras`` the other labels. Raises Refused."""
    index = known.get("gpu_id", "")
    return check_gpu(
        Gpu(
            uuid=known["uuid"],
            hostname=known.get("hostname", ""),
            gpu_id=int(index) if index.isascii() and index.isdigit() and len(index) < 10 else None,
            device=known.get("device", ""),
            model_name=known.get("model_name", ""),
            mig_id=known.get("mig_id", ""),
            mig_profile=known.get("mig_profile", ""),
            container=known.get("container", ""),
            pod=known.get("pod", ""),
            namespace=known.get("namespace", ""),
            labels=dict(extras),
        )
    )


# Labels that decide what a metric name means. Rows with the same values for them share a Folded.
TELLING = (*PART_LABELS, OLD_DRIVER_LABEL, NEW_DRIVER_LABEL)
_MOST_NAMES = 10_000

Telling = tuple[tuple[str, str], ...]


def telling(labels: Mapping[str, str]) -> Telling:
    """The labels of a row that decide what its metric name means."""
    return tuple((name, labels[name]) for name in TELLING if name in labels)


class Namer:
    """Maps a source's metric names to stored names; calls ``units`` once per name."""

    def __init__(self, units: SourceUnits) -> None:
        self._units = units
        self._names: dict[tuple[str, Telling], Folded] = {}

    def name(self, text: str, told: Telling) -> Folded:
        """The stored name, and how to convert values to the stored unit. Raises Refused for an invalid name."""
        key = (text, told)
        folded = self._names.get(key)
        if folded is None:
            labels = dict(told)
            name, convert = self._units.fold(text, labels)
            folded = Folded(name_of_part(check_metric_name(name), labels), convert)
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            self._names[key] = folded
        return folded
