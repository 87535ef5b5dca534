"""What the pipeline carries: GPUs, points and blocks of points. Plain data, shared by every room.

- reading: one metric of one GPU at one time.
- point: all metrics of one GPU at one time.
- block: many points that share a list of GPUs and a list of metric names. Identity is told once per block and values
  are bare lists, so nothing on the hot path makes an object per reading.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

# One point: index into the block's gpus, nanoseconds since 1970 UTC, one value per metric name (None: no reading).
Point = tuple[int, int, list[float | None]]

DRIVER_LABEL = "DCGM_FI_DRIVER_VERSION"


# The limits hold when a batch is decoded; what passes them fits the columns of the inventory.
Index = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Uuid = Annotated[str, Meta(min_length=1, max_length=128)]
Word = Annotated[str, Meta(max_length=64)]
Model = Annotated[str, Meta(max_length=128)]
Name = Annotated[str, Meta(max_length=255)]
Labels = Annotated[dict[Name, Annotated[str, Meta(max_length=4096)]], Meta(max_length=100)]


class Gpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reading is of, and where that sat at the time.

    Identity is ``id`` alone: the uuid, and the MIG instance if there is one. Everything else describes and may change.
    A ``share`` is one pod's part of a GPU that several pods use: kept apart, never summed into the fleet.
    """

    uuid: Uuid
    hostname: Name = ""
    gpu_id: Index | None = None
    device: Word = ""
    model_name: Model = ""
    mig_id: Word = ""
    mig_profile: Word = ""
    container: Name = ""
    pod: Name = ""
    namespace: Name = ""
    share: bool = False
    labels: Labels = {}

    @property
    def id(self) -> str:
        """The identity: ``GPU-…`` or, for a MIG instance, ``GPU-…:<instance id>``."""
        return f"{self.uuid}:{self.mig_id}" if self.mig_id else self.uuid

    @property
    def driver_version(self) -> str:
        """The driver version its labels tell, or an empty string."""
        return self.labels.get(DRIVER_LABEL, "")


# GPU, metric name, time in nanoseconds, value.
Reading = tuple[Gpu, str, int, float]


class PointBlock(msgspec.Struct):
    """Points that share their GPUs and metric names."""

    gpus: list[Gpu]
    metric_names: list[str]
    points: list[Point]

    def count(self) -> int:
        """How many readings it holds."""
        return len(self.points) * len(self.metric_names) - sum([values.count(None) for _, _, values in self.points])
