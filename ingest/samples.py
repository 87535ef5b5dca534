"""What sources give: readings one by one, and what they had to turn away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from readings.checks import check_gpu
from readings.model import Gpu

# Column of a GPU's identity, or attribute, that sources tell under this name.
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
    """One reading of one GPU. ``time_ns`` is 0 where the time is not taken from the source."""

    gpu: Gpu
    metric_name: str
    time_ns: int
    value: float


class RefusedRow(NamedTuple):
    """A row or line that gave no reading: its number from 1, reason, detail and text."""

    line: int
    reason: str
    detail: str
    raw: str


def make_gpu(known: Mapping[str, str], extras: Mapping[str, str]) -> Gpu:
    """The GPU that a row tells of: ``known`` by the names in IDENTITY, ``extras`` the other labels. Raises Refused."""
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
