"""What the pipeline carries: GPUs, points and blocks of points. Plain data, shared by every room.

- reading: one metric of one GPU at one time.
- point: all metrics of one GPU at one time.
- block: many points that share a list of GPUs and a list of metric names. Identity is told once per block and values
  are bare lists, so nothing on the hot path makes an object per reading.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

# One point: index into the block's gpus, nanoseconds since 1970 UTC, one value per metric name (None: no reading).
Point = tuple[int, int, list[float | None]]

DRIVER_LABEL = "DCGM_FI_DRIVER_VERSION"


class Gpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reading is of, and where that sat at the time.

    Identity is ``id`` alone: the uuid, and the MIG instance if there is one. Everything else describes and may change.
    A ``share`` is one pod's part of a GPU that several pods use: kept apart, never summed into the fleet.
    """

    uuid: str
    hostname: str = ""
    gpu_id: int | None = None
    device: str = ""
    model_name: str = ""
    mig_id: str = ""
    mig_profile: str = ""
    container: str = ""
    pod: str = ""
    namespace: str = ""
    share: bool = False
    labels: Mapping[str, str] = {}

    @property
    def id(self) -> str:
        """The identity: ``GPU-…`` or, for a MIG instance, ``GPU-…:<instance id>``."""
        return f"{self.uuid}:{self.mig_id}" if self.mig_id else self.uuid

    @property
    def driver_version(self) -> str:
        """The driver version its labels tell, or an empty string."""
        return self.labels.get(DRIVER_LABEL, "")


class PointBlock(msgspec.Struct):
    """Points that share their GPUs and metric names."""

    gpus: list[Gpu]
    metric_names: list[str]
    points: list[Point]

    def count(self) -> int:
        """How many readings it holds."""
        return sum(len(values) - values.count(None) for _, _, values in self.points)
