"""How a metric is spread over the GPUs."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_django import Settings

from api.places import places
from api.views.bands import bands_answer, of_minutes
from inventory.bands import Bands
from readings.model import Gpu
from stores.aggregate.buckets import Buckets
from stores.base import Store
from tests.api.conftest import A100, H100, T0, Api, block_of, save

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


@pytest.fixture
def large(store: Store, db: None) -> Store:
    """1,100 GPUs, of which the first 100 are of another model."""
    gpus = [
        Gpu(uuid=f"GPU-{n}", hostname=f"h{n // 8}", gpu_id=n % 8, model_name=A100 if n < 100 else H100)
        for n in range(1100)
    ]
    save(store, block_of(gpus, [(n, T0, [float(n % 100), 1.0, 1.0]) for n in range(len(gpus))]))
    return store


def test_of_a_large_fleet_what_collectors_kept_is_the_answer(api: Api, large: Store) -> None:
    minutes = BANDS.replace("every=10s", "every=1m")
    body = api.get(minutes)
    assert (body["source"], body["every"], body["time"]) == ("kept", "1m", ["2025-07-18T20:42:00Z"])
    assert (body["min"], body["p5"], body["median"], body["p95"], body["max"]) == ([0], [4], [49], [94], [99])
    assert (body["sum"], body["count"]) == ([11 * 4950.0], [1100])
    assert api.get(f"{minutes}&model={A100}")["count"] == [100]
    hours = api.get(BANDS.replace("&every=10s", "").replace("T20:42:30Z", "T20:00:00Z"))
    assert (hours["source"], hours["every"], hours["count"], hours["median"][0]) == (
        "kept",
        "1m",
        [0] * 42 + [1100],
        None,
    )
    for other in ("&hostname=h3", "&namespace=nobody"):
        assert api.get(f"{minutes}{other}")["source"] == "store"
    ever = f"{BANDS.split('&')[0]}&start_time=1678-01-01T00:00:00Z&end_time=2262-01-01T00:00:00Z"
    assert (api.get(ever)["source"], max(api.get(ever)["count"])) == ("kept", 1100)
    nothing_kept = minutes.replace("2025", "2024")
    assert (api.get(nothing_kept)["source"], api.get(nothing_kept)["count"]) == ("store", [0])
    assert "end_time must be later" in api.refused(f"{minutes.split('&end')[0]}&end_time=2025-07-18T20:00:00Z", 400)


def test_a_long_range_of_kept_minutes_is_a_heavy_question(api: Api, large: Store, settings: Settings) -> None:
    settings.QUERIES_AT_ONCE = 1
    days = BANDS.replace("&every=10s", "")
    with places.question() as heavy:
        heavy()
        assert "QUERIES_AT_ONCE" in api.refused(days.replace("07-18T20:42:30Z", "07-12T00:00:00Z"), 503)
        assert api.get(days.replace("07-18T20:42:30Z", "07-18T00:00:00Z"))["source"] == "kept"


def test_a_longer_window_has_the_extremes_and_the_means_of_its_minutes() -> None:
    minute = 60 * SECOND
    first, second, third = (np.array(values) for values in ([1.0, 5.0, 9.0], [3.0, 5.0, 7.0], [10.0, 20.0, 30.0]))
    times, counts = np.array([0, minute, 5 * minute]), np.array([4, 3, 2])
    bands = of_minutes(
        "DCGM_FI_DEV_GPU_UTIL",
        Buckets(0, 15 * minute, 5 * minute),
        Bands(times, first, second, second, second, third, third, counts),
    )
    assert (bands.min, bands.median, bands.max) == ([1.0, 9.0, None], [4.0, 7.0, None], [20.0, 30.0, None])
    assert (bands.sum, bands.count, bands.every) == ([15.0, 30.0, None], [4, 2, 0], "5m")


def test_more_gpus_than_a_series_answer_may_have(api: Api, large: Store) -> None:
    body = api.get(BANDS)
    assert (body["count"], body["median"][0], body["p95"][0]) == ([1100, 0, 0], 49.0, 94.0)
    hours = BANDS.replace("T20:42:30Z", "T17:40:00Z")
    assert "1,100 GPUs in 1,098 windows are too much at once" in api.refused(hours, 400)
    hours = BANDS.replace("&every=10s", "&hostname=h3").replace("T20:42:30Z", "T12:00:00Z")
    assert (api.get(hours)["every"], api.get(hours)["count"][-1]) == ("1m", 8)
