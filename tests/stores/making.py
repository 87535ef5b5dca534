"""Short ways to make blocks and to read rows back in tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from readings.model import Gpu, Point, PointBlock
from stores.base import ReadingsQuery, Row, Store

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


def ask(store: Store, **query: Any) -> list[Row]:
    """readings() with the query's fields as keywords."""
    return store.readings(ReadingsQuery(**query))


def values(rows: Iterable[Row]) -> list[float]:
    """Only the values."""
    return [row.value for row in rows]


def keys(rows: Iterable[Row]) -> list[tuple[int, str, str]]:
    """Time, GPU and metric of each row."""
    return [(row.time_ns, row.gpu, row.metric_name) for row in rows]
