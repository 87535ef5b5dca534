"""Short ways to make blocks and to read rows back in tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from readings.model import Gpu, Point, PointBlock
from stores.base import Position, ReadingsQuery, RowBatch, Store

START = 1_752_871_354_000_000_000  # 2025-07-18T20:42:34Z, in ns
SECOND = 1_000_000_000
MINUTE = 60 * SECOND

UTIL, TEMP = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"


def gpu(number: int = 0, **fields: Any) -> Gpu:
    """A GPU that sits where its number says: eight to a host."""
    described: dict[str, Any] = {
        "uuid": f"GPU-{number:04d}",
        "hostname": f"host-{number // 8:03d}",
        "gpu_id": number % 8,
        "device": f"nvidia{number % 8}",
        "model_name": "NVIDIA H100 80GB HBM3",
    }
    return Gpu(**(described | fields))


def one(of: Gpu, time_ns: int, **values: float | None) -> PointBlock:
    """A block of one point; the keywords are its metrics."""
    return PointBlock([of], list(values), [(0, time_ns, list(values.values()))])


def several(of: Gpu, readings: Iterable[tuple[int, float | None]], metric: str = UTIL) -> PointBlock:
    """A block of one GPU and one metric: (time, value) each."""
    points: list[Point] = [(0, time_ns, [value]) for time_ns, value in readings]
    return PointBlock([of], [metric], points)


def fleet(gpus: Sequence[Gpu], time_ns: int, metrics: Sequence[str] = (UTIL, TEMP)) -> PointBlock:
    """All GPUs at one time; the value tells the GPU's place and the metric's."""
    points: list[Point] = [
        (place, time_ns, [place * 100.0 + number for number in range(len(metrics))]) for place in range(len(gpus))
    ]
    return PointBlock(list(gpus), list(metrics), points)


class Row(NamedTuple):
    """One row of a batch."""

    time_ns: int
    metric_name: str
    value: float
    uuid: str
    mig_id: str
    gpu_id: int | None
    device: str
    model_name: str
    hostname: str
    container: str
    pod: str
    namespace: str

    @property
    def gpu(self) -> str:
        """The GPU's id."""
        return f"{self.uuid}:{self.mig_id}" if self.mig_id else self.uuid

    @property
    def position(self) -> Position:
        """The cursor that continues after this row."""
        return Position(self.time_ns, self.gpu, self.metric_name)


def rows(batch: RowBatch) -> list[Row]:
    """The rows of a batch one by one."""
    return [
        Row(time_ns, batch.origins[place][0], value, *batch.origins[place][1:])
        for time_ns, value, place in zip(batch.times, batch.values, batch.places, strict=True)
    ]


def ask(store: Store, **query: Any) -> list[Row]:
    """The rows of page(), with the query's fields as keywords."""
    return rows(store.page(ReadingsQuery(**query)))


class Held(NamedTuple):
    """What a store holds, counted by reading all of it."""

    readings: int
    series: int
    oldest_ns: int | None
    newest_ns: int | None


def held(store: Store) -> Held:
    """Read everything, and check that what stats() says agrees. None there is unknown."""
    batches = list(store.stream(ReadingsQuery(limit=None)))
    times = [time_ns for batch in batches for time_ns in batch.times]
    series = {batch.origins[place][:3] for batch in batches for place in set(batch.places)}
    found = Held(len(times), len(series), min(times, default=None), max(times, default=None))
    stats = store.stats()
    if stats.readings is not None:
        assert (stats.readings, stats.series, stats.oldest_ns, stats.newest_ns) == found
    return found


def values(found: Iterable[Row]) -> list[float]:
    """Only the values."""
    return [row.value for row in found]


def keys(found: Iterable[Row]) -> list[tuple[int, str, str]]:
    """Time, GPU and metric of each row."""
    return [(row.time_ns, row.gpu, row.metric_name) for row in found]
