"""The pipeline's data: GPUs, points and blocks of points.

- reading: one metric of one GPU at one time.
- point: all metrics of one GPU at one time.
- block: many points that share a list of GPUs and a list of metric names. Each GPU is described once per block and
  values are bare lists, so nothing on the hot path creates an object per reading.
"""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from math import nan
from struct import error as StructError
from struct import pack
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# One point: index into the block's gpus, nanoseconds since 1970 UTC, one value per metric name (None: no reading).
Point = tuple[int, int, list[float | None]]

DRIVER_LABEL = "DCGM_FI_DRIVER_VERSION"

# Limits that decoding enforces, in characters. What passes them fits the columns of the inventory.
MAX_INDEX = (1 << 31) - 1
MAX_UUID, MAX_WORD, MAX_MODEL, MAX_NAME, MAX_LABEL, MAX_LABELS = 128, 64, 128, 255, 4096, 100
_Index = Annotated[int, Meta(ge=0, le=MAX_INDEX)]
_Uuid = Annotated[str, Meta(min_length=1, max_length=MAX_UUID)]
_Word = Annotated[str, Meta(max_length=MAX_WORD)]
_Model = Annotated[str, Meta(max_length=MAX_MODEL)]
_Name = Annotated[str, Meta(max_length=MAX_NAME)]
_Labels = Annotated[dict[_Name, Annotated[str, Meta(max_length=MAX_LABEL)]], Meta(max_length=MAX_LABELS)]


class Gpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A GPU or MIG instance as one reading describes it.

    ``id`` alone is its identity: the uuid, and the MIG instance if there is one. Everything else may change. A
    ``share`` is one pod's part of a GPU that several pods use: it is kept apart and never summed into the fleet.
    """

    uuid: _Uuid
    hostname: _Name = ""
    gpu_id: _Index | None = None
    device: _Word = ""
    model_name: _Model = ""
    mig_id: _Word = ""
    mig_profile: _Word = ""
    container: _Name = ""
    pod: _Name = ""
    namespace: _Name = ""
    share: bool = False
    labels: _Labels = {}

    @property
    def id(self) -> str:
        """The identity: ``GPU-…`` or, for a MIG instance, ``GPU-…:<instance id>``."""
        return f"{self.uuid}:{self.mig_id}" if self.mig_id else self.uuid

    @property
    def driver_version(self) -> str:
        """The driver version from the labels, or an empty string."""
        return self.labels.get(DRIVER_LABEL, "")


# GPU, metric name, time in nanoseconds, value.
Reading = tuple[Gpu, str, int, float]


class PointArrays(NamedTuple):
    """A block's points as arrays: ``gpu`` (int64) indexes the block's GPUs, ``time_ns`` is int64.

    ``values`` (float64, points x metric names) has NaN where there is no reading.
    """

    gpu: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    values: NDArray[np.float64]


class PointBlock(msgspec.Struct, dict=True):
    """Points that share their GPUs and metric names. Nobody changes the points of a block that has given its ``arrays``."""

    gpus: list[Gpu]
    metric_names: list[str]
    points: list[Point]

    @cached_property
    def arrays(self) -> PointArrays:
        """The points as arrays, made once; nobody may write into them. Raises ValueError where they are no numbers, or too large,
        or not one for each metric name.
        """
        import numpy as np  # a live source does without

        count, width = len(self.points), len(self.metric_names)
        gpus, times, lists = zip(*self.points, strict=True) if count else ((), (), ())
        if not {width}.issuperset(map(len, lists)):
            raise ValueError(f"a point has not {width} values")
        try:
            # A sixth less time than np.fromiter and np.array, and no text is taken for a number.
            numbers, moments = pack(f"{count}q", *gpus), pack(f"{count}q", *times)
            try:
                values = pack(f"{count * width}d", *chain.from_iterable(lists))
            except StructError:  # None among them
                flat = [nan if value is None else value for value in chain.from_iterable(lists)]
                values = pack(f"{count * width}d", *flat)
        except StructError as error:
            raise ValueError(str(error)) from error
        return PointArrays(
            np.frombuffer(numbers, np.int64),
            np.frombuffer(moments, np.int64),
            np.frombuffer(values, np.float64).reshape(count, width),
        )

    def count(self) -> int:
        """The number of readings."""
        return len(self.points) * len(self.metric_names) - sum([values.count(None) for _, _, values in self.points])
