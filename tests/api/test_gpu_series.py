"""api.gpu_series: windows of many metrics from one pass agree with those that the store makes of each."""

from __future__ import annotations

import random

import numpy as np
import pytest

from api.gpu_series import GpuWindows, How, how_of
from readings.model import Gpu, PointBlock
from readings.times import SECOND
from stores.aggregate.buckets import Buckets
from stores.base import Aggregate, ReadingsQuery, SeriesQuery, Store
from tests.api.conftest import T0

UTIL, XID, ENERGY = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
REASONS = "DCGM_FI_DEV_CLOCKS_EVENT_REASONS"
NAMES = (UTIL, XID, ENERGY, REASONS)
GPU = Gpu(uuid="GPU-a", hostname="h", gpu_id=0)


@pytest.mark.parametrize(
    ("metric", "how"), [(UTIL, "mean"), (XID, "last"), (ENERGY, "increase"), (REASONS, "bits"), ("of_nobody", "mean")]
)
def test_each_kind_of_metric_has_its_own_way(metric: str, how: How) -> None:
    assert how_of(metric) == how


def filled(store: Store, seconds: range) -> None:
    """Readings with gaps, a counter that restarts, and another GPU that must not count."""
    dice, total = random.Random(7), 0
    points: list[tuple[int, int, list[float | None]]] = []
    for second in seconds:
        total = 0 if dice.random() < 0.02 else total + dice.randrange(50)
        if dice.random() < 0.3:
            continue
        values: list[float | None] = [
            float(dice.randrange(101)) if dice.random() < 0.9 else None,
            float(dice.choice([0, 31, 79])),
            float(total),
            float(dice.choice([0, 1, 4, 8, 0x48])),
        ]
        points += [(0, T0 + second * SECOND, values), (1, T0 + second * SECOND, [1e6, 1.0, 1e6, 256.0])]
    store.write([PointBlock([GPU, Gpu(uuid="GPU-b")], list(NAMES), points)])


def windows_of(store: Store, buckets: Buckets) -> GpuWindows:
    windows = GpuWindows(NAMES, buckets)
    query = ReadingsQuery(
        gpus=(GPU.id,),
        metric_names=NAMES,
        start_ns=buckets.start_ns,
        end_ns=buckets.end_ns,
        newest_first=False,
        limit=None,
    )
    for batch in store.stream(query):
        for row in range(0, len(batch), 37):  # smaller parts than a store gives
            windows.add(batch.cut(row, row + 37))
    return windows


@pytest.mark.parametrize("every", [7, 60, 900])
def test_it_agrees_with_the_store(store: Store, every: int) -> None:
    filled(store, range(900))
    buckets = Buckets(T0 + 3 * SECOND, T0 + 890 * SECOND, every * SECOND)

    def asked(metric: str, aggregate: Aggregate) -> list[float | None]:
        query = SeriesQuery(metric_name=metric, aggregate=aggregate, buckets=buckets, gpus=(GPU.id,))
        return store.series(query)[0].values

    util, xid, energy, reasons = windows_of(store, buckets).answer()
    for found, expected in (
        (util.values, asked(UTIL, "mean")),
        (util.lowest, asked(UTIL, "min")),
        (util.highest, asked(UTIL, "max")),
        (xid.values, asked(XID, "last")),
        (energy.values, asked(ENERGY, "increase")),
    ):
        assert found is not None
        np.testing.assert_array_equal(found, np.array(expected, np.float64))
    assert reasons.lowest is None
    assert energy.highest is None


def test_every_bit_of_a_window_is_kept_and_a_gap_is_no_0(store: Store) -> None:
    points: list[tuple[int, int, list[float | None]]] = [
        (0, T0, [None, 31.0, 5.0, 4.0]),
        (0, T0 + SECOND, [None, 0.0, 9.0, 64.0]),
        (0, T0 + 25 * SECOND, [None, 0.0, 2.0, 0.0]),
    ]
    store.write([PointBlock([GPU], list(NAMES), points)])
    start = T0 // (10 * SECOND) * 10 * SECOND
    util, xid, energy, reasons = windows_of(store, Buckets(start, start + 40 * SECOND, 10 * SECOND)).answer()
    assert np.isnan(util.values).all()
    np.testing.assert_array_equal(reasons.values, [68.0, np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(xid.values, [0.0, np.nan, 0.0, np.nan])
    # 5 to 9 is 4 more; 2 is less than 9, so the count restarted and grew by 2.
    np.testing.assert_array_equal(energy.values, [4.0, np.nan, 2.0, np.nan])
