"""How a metric is spread over the GPUs."""

from __future__ import annotations

import numpy as np

from api.views.bands import bands_answer
from readings.model import Gpu
from stores.aggregate.buckets import Buckets
from stores.base import Store
from tests.api.conftest import T0, Api, block_of, save

SECOND = 1_000_000_000
BANDS = "/api/v1/fleet/bands?metric=DCGM_FI_DEV_GPU_UTIL&every=10s&start_time=2025-07-18T20:42:30Z&end_time=2025-07-18T20:43:00Z"


def test_percentiles_are_over_gpus_and_gaps_are_null() -> None:
    values = np.full((100, 2), np.nan)
    values[:, 0] = np.arange(100.0)
    bands = bands_answer("DCGM_FI_DEV_GPU_UTIL", Buckets(0, 20 * SECOND, 10 * SECOND), values)
    assert (bands.min, bands.p5, bands.median, bands.p95, bands.max) == (
        [0.0, None],
        [4.0, None],
        [49.0, None],
        [94.0, None],
        [99.0, None],
    )
    assert (bands.sum, bands.count) == ([4950.0, None], [100, 0])


def test_each_gpu_counts_with_its_mean(api: Api, store: Store, db: None) -> None:
    gpus = [Gpu(uuid=f"GPU-{n}", hostname="h", gpu_id=n) for n in range(2)]
    points: list[tuple[int, int, list[float | None]]] = [
        (0, T0, [10.0, 1.0, 1.0]),
        (0, T0 + SECOND, [30.0, 1.0, 1.0]),
        (1, T0, [80.0, 1.0, 1.0]),
    ]
    save(store, block_of(gpus, points))
    body = api.get(BANDS)
    assert (body["min"][0], body["max"][0], body["sum"][0], body["count"]) == (20.0, 80.0, 100.0, [2, 0, 0])
    assert body["median"][1] is None
    assert len(body["time"]) == 3
    assert api.get(f"{BANDS}&hostname=elsewhere")["count"] == [0, 0, 0]


def test_what_has_no_bands_is_refused(api: Api, db: None) -> None:
    assert "bitmask" in api.refused("/api/v1/fleet/bands?metric=DCGM_FI_DEV_XID_ERRORS", 400)
    assert "metric is missing" in api.refused("/api/v1/fleet/bands", 400)
