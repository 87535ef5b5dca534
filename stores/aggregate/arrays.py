"""Readings of one metric as arrays, with the GPUs that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stores.aggregate.functions import Floats, Ints, Mask

Pod = tuple[str, str, str]  # namespace, pod, container


class ReadingSource(NamedTuple):
    """The GPU of some readings, with its host and model, and for a share its pod."""

    uuid: str
    mig_id: str
    hostname: str
    model: str
    pod: Pod | None = None

    @property
    def gpu(self) -> str:
        """The GPU's identity (see readings.model.Gpu.id)."""
        return f"{self.uuid}:{self.mig_id}" if self.mig_id else self.uuid


class ReadingArrays(NamedTuple):
    """Readings of one metric in any order. ``places`` are indexes into ``sources``; ``times`` are nanoseconds."""

    sources: Sequence[ReadingSource]
    places: Ints
    times: Ints
    values: Floats

    def only(self, chosen: Mask | Ints) -> ReadingArrays:
        """The readings that a mask or index selects."""
        return ReadingArrays(self.sources, self.places[chosen], self.times[chosen], self.values[chosen])


def columns_of(sources: Sequence[ReadingSource], rows: Sequence[tuple[int, int, float]]) -> ReadingArrays:
    """Arrays from rows of (place, time, value)."""
    places, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    return ReadingArrays(
        sources,
        np.array(places, dtype=np.int64),
        np.array(times, dtype=np.int64),
        np.array(values, dtype=np.float64),
    )
