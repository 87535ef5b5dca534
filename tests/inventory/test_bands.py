"""inventory.bands: what collectors keep of each minute, and what is read of it."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from inventory.bands import MINUTE_NS, Bands, bands_between
from inventory.expiry import forget_bands
from inventory.models import GPU, MinuteBands
from inventory.removal import remove_gpus
from inventory.sync.memory import InventoryMemory
from readings.model import Point, PointBlock
from tests.inventory.building import POWER, SECOND, T0, TEMP, USED, UTIL, block, fleet, gpu, seen

pytestmark = pytest.mark.django_db

MINUTE = T0 // MINUTE_NS * MINUTE_NS  # T0 is 34 s into it


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> InventoryMemory:
    """A collector's, which writes bands with every save."""
    monkeypatch.setattr("inventory.sync.memory.BAND_SECONDS", 0.0)
    return InventoryMemory("c1")


def bands(metric: str = UTIL, models: list[str] | None = None) -> Bands:
    return bands_between(metric, MINUTE, MINUTE + 60 * MINUTE_NS, models)


def utilisations(values: list[float], seconds: float) -> PointBlock:
    gpus = [gpu(f"GPU-{n:04d}", hostname=f"host-{n // 8}", gpu_id=n % 8) for n in range(len(values))]
    return PointBlock(gpus, [UTIL], [(n, T0 + round(seconds * SECOND), [value]) for n, value in enumerate(values)])


def test_a_minute_has_the_last_value_of_each_gpu(memory: InventoryMemory) -> None:
    memory.save(seen(utilisations([90.0] * 101, 0)))
    memory.save(seen(utilisations([float(n) for n in range(101)], 20)))
    found = bands()
    assert found.time_ns.tolist() == [MINUTE]
    assert (found.min[0], found.p5[0], found.median[0], found.p95[0], found.max[0]) == (0, 5, 50, 95, 100)
    assert (found.sum[0], found.count[0]) == (5050, 101)


def test_a_minute_that_lasts_is_written_seldom_and_in_the_end() -> None:
    memory = InventoryMemory("c1")
    for seconds in range(3):
        memory.save(seen(utilisations([10.0 * seconds], seconds)))
    assert bands().max.tolist() == [0.0]  # the first alone
    memory.refresh()
    assert bands().max.tolist() == [20.0]
    for minute in range(1, 5):
        memory.save(seen(utilisations([float(minute)], 60 * minute)))
    assert len(bands().time_ns) >= 3  # several minutes do not wait


def test_quantiles_are_those_of_the_values_to_half_a_step(memory: InventoryMemory) -> None:
    random = np.random.default_rng(3)
    watts, used = random.uniform(60, 700, 400), random.uniform(0, 180_000, 400)
    gpus = [gpu(f"GPU-{n:04d}", hostname=f"host-{n // 8}", gpu_id=n % 8) for n in range(400)]
    points: list[Point] = [(n, T0, [float(watts[n]), float(used[n])]) for n in range(400)]
    memory.save(seen(PointBlock(gpus, [POWER, USED], points)))
    for metric, values, half in ((POWER, watts, 2.0), (USED, used, 256.0)):
        found = bands(metric)
        assert (found.min[0], found.max[0], found.sum[0]) == (values.min(), values.max(), pytest.approx(values.sum()))
        for share, quantile in ((0.05, found.p5), (0.5, found.median), (0.95, found.p95)):
            assert abs(quantile[0] - np.quantile(values, share, method="inverted_cdf")) <= half


def test_each_minute_keeps_its_own_though_flushes_cross_it(memory: InventoryMemory) -> None:
    memory.save(seen(utilisations([10.0] * 16, 20)))
    memory.save(seen(utilisations([20.0] * 8, 40), utilisations([10.0] * 16, 25)))  # 26 s: the next minute
    memory.save(seen(utilisations([30.0] * 16, 80)))
    found = bands()
    assert found.time_ns.tolist() == [MINUTE, MINUTE + MINUTE_NS]
    assert found.count.tolist() == [16, 16]
    assert found.sum.tolist() == [160.0, 480.0]


def test_the_same_again_changes_nothing_and_a_restart_loses_nothing(memory: InventoryMemory) -> None:
    sightings = seen(utilisations([10.0] * 16, 0))
    memory.save(sightings)
    memory.save(sightings)
    assert bands().count.tolist() == [16]
    InventoryMemory("c1").save(seen(utilisations([99.0] * 3, 10)))
    assert (bands().count.tolist(), bands().max.tolist()) == ([16], [10.0])
    InventoryMemory("c1").save(seen(utilisations([50.0] * 16, 20)))
    assert (bands().count.tolist(), bands().max.tolist()) == ([16], [50.0])


def test_gpus_that_come_and_go_within_a_minute_take_nothing_from_it(memory: InventoryMemory) -> None:
    memory.save(seen(utilisations([10.0] * 15, -20)))
    memory.save(seen(utilisations([10.0] * 15, 0)))
    remove_gpus(GPU.objects.filter(pk="GPU-0008"))
    memory.save(seen(utilisations([20.0] * 8, 5)))
    assert bands().count.tolist() == [15]
    memory.save(seen(utilisations([30.0] * 17, 10)))
    assert (bands().count.tolist(), bands().min.tolist()) == ([17], [30.0])


def test_two_collectors_that_see_the_same_fleet_count_it_once(memory: InventoryMemory) -> None:
    memory.save(seen(utilisations([10.0] * 16, 0)))
    InventoryMemory("late").save(seen(utilisations([10.0] * 4, 0)))
    assert bands().count.tolist() == [16]


def test_models_and_boards(memory: InventoryMemory) -> None:
    other = gpu("GPU-x", hostname="host-9", model_name="A100")
    instance = gpu("GPU-m", hostname="host-9", gpu_id=1, mig_id="1", mig_profile="1g")
    memory.save(
        seen(utilisations([10.0] * 4, 0), block(other, 0, {UTIL: 80.0}), block(instance, 0, {UTIL: 1.0, POWER: 300.0}))
    )
    assert bands().count.tolist() == [5]
    assert bands(models=["A100"]).sum.tolist() == [80.0]
    assert bands(models=["B200"]).time_ns.tolist() == []
    assert (bands(POWER).sum.tolist(), bands(POWER).count.tolist()) == ([300.0], [1])


def test_what_is_beyond_the_scale_is_counted_and_its_extreme_is_exact(memory: InventoryMemory) -> None:
    memory.save(seen(block(gpu(), 0, {POWER: 5000.5, USED: 10e6})))
    assert (bands(POWER).max.tolist(), bands(POWER).median.tolist()) == ([5000.5], [5000.5])
    assert bands(USED).p95.tolist() == [10e6]


def test_a_range_is_one_query_and_has_its_start_and_not_its_end(memory: InventoryMemory) -> None:
    for minute in range(5):
        memory.save(seen(fleet(8, minute * 60)))
    with CaptureQueriesContext(connection) as queries:
        found = bands_between(TEMP, MINUTE + MINUTE_NS, MINUTE + 3 * MINUTE_NS)
    assert len(queries) == 1
    assert ((found.time_ns - MINUTE) // MINUTE_NS).tolist() == [1, 2]
    with pytest.raises(ValueError, match="no bands are kept of XYZ: use one of DCGM_FI_DEV_GPU_UTIL"):
        bands_between("XYZ", 0, 1)


def test_a_week_is_not_held_at_once(memory: InventoryMemory) -> None:
    gpus = [gpu(f"GPU-{n:04d}", hostname=f"host-{n // 8}", gpu_id=n % 8) for n in range(1000)]
    memory.save(seen(PointBlock(gpus, [POWER], [(n, T0, [4.0 * n]) for n in range(1000)])))
    row = MinuteBands.objects.get()
    MinuteBands.objects.bulk_create(
        [MinuteBands(minute=row.minute + n, writer="c1", readings=1000, data=row.data) for n in range(1, 2000)]
    )
    tracemalloc.start()
    try:
        assert len(bands_between(POWER, 0, 2 * MINUTE_NS * row.minute).time_ns) == 2000
        assert tracemalloc.get_traced_memory()[1] < 2000 * len(row.data) / 2
    finally:
        tracemalloc.stop()


def test_minutes_are_kept_for_a_week(memory: InventoryMemory) -> None:
    day = 86_400
    for seconds in (0, 6.9 * day, 7.1 * day):
        memory.save(seen(fleet(1, seconds)))
    now = datetime.fromtimestamp(T0 / SECOND + 3 * day, UTC)
    assert forget_bands(now) == 0  # by this clock the newest are still to come
    assert forget_bands() == 1
    assert MinuteBands.objects.count() == 2
