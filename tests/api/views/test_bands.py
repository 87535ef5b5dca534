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


def test_a_namespace_chooses_the_gpus_while_it_used_them(api: Api, fleet: Store) -> None:
    body = api.get(f"{BANDS}&namespace=research")
    assert (body["count"], body["max"][0]) == ([1, 0, 0], 50.0)
    assert api.get(f"{BANDS}&namespace=nobody")["count"] == [0, 0, 0]


def test_more_gpus_than_a_series_answer_may_have(api: Api, store: Store, db: None) -> None:
    gpus = [Gpu(uuid=f"GPU-{n}", hostname=f"h{n // 8}", gpu_id=n % 8) for n in range(1100)]
    save(store, block_of(gpus, [(n, T0, [float(n % 100), 1.0, 1.0]) for n in range(len(gpus))]))
    body = api.get(BANDS)
    assert (body["count"], body["median"][0], body["p95"][0]) == ([1100, 0, 0], 49.0, 94.0)
    hours = BANDS.replace("&every=10s", "").replace("T20:42:30Z", "T12:00:00Z")
    assert (api.get(hours)["every"], api.get(hours)["count"][-1]) == ("1m", 1100)
