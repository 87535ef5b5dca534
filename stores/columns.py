"""Readings as columns of numbers: what the stores hand over to be put into windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Source(NamedTuple):
    """What readings are of, and where that sat. Of a share also whose it is: namespace, pod, container."""

    uuid: str
    mig_id: str
    hostname: str
    model: str
    holder: tuple[str, str, str] | None = None

    @property
    def gpu(self) -> str:
        """The GPU's identity (see readings.model.Gpu.id)."""
        return f"{self.uuid}:{self.mig_id}" if self.mig_id else self.uuid


class Columns(NamedTuple):
    """Readings of one metric, in no order: ``places`` are indexes into ``sources``, ``times`` nanoseconds."""

    sources: Sequence[Source]
    places: Ints
    times: Ints
    values: Floats

    def only(self, chosen: Mask | Ints) -> Columns:
        """Those that are chosen, in the order of an index."""
        return Columns(self.sources, self.places[chosen], self.times[chosen], self.values[chosen])


def columns_of(sources: Sequence[Source], rows: Sequence[tuple[int, int, float]]) -> Columns:
    """Columns from rows of (place, time, value)."""
    places, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    return Columns(
        sources,
        np.array(places, dtype=np.int64),
        np.array(times, dtype=np.int64),
        np.array(values, dtype=np.float64),
    )


def joined(parts: Sequence[Columns]) -> Columns:
    """Several parts with the same sources."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return columns_of((), ())
    return Columns(
        parts[0].sources,
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.values for part in parts]),
    )
