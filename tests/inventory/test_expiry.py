from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from inventory.expiry import forget
from inventory.models import GPU, Host, Placement, Residence
from inventory.sync.memory import InventoryMemory
from tests.inventory.building import T0, UTIL, block, gpu, save, seen

DAY = 86_400
NOTHING = timedelta(0)
START = datetime.fromtimestamp(T0 // 10**9, UTC)


def pods() -> set[str]:
    return set(Placement.objects.values_list("pod", flat=True))


@pytest.fixture
def fleet(db: None) -> None:
    """GPU-a runs one pod after another; GPU-b was seen on the first day alone."""
    save(block(gpu("GPU-b", gpu_id=1, pod="gone", namespace="n"), 0, {UTIL: 1.0}))
    for day in range(10):
        save(block(gpu("GPU-a", pod=f"pod-{day}", namespace="n"), day * DAY, {UTIL: 1.0}))


@pytest.mark.usefixtures("fleet")
def test_old_placements_go_and_younger_ones_stay() -> None:
    assert forget(placements=timedelta(days=3), gpus=NOTHING) == (7, 0)
    assert pods() == {"pod-6", "pod-7", "pod-8", "pod-9"}
    assert GPU.objects.count() == 2


@pytest.mark.usefixtures("fleet")
def test_a_gpu_not_seen_for_long_goes_with_its_history_and_its_host_stays() -> None:
    assert forget(placements=NOTHING, gpus=timedelta(days=5)) == (0, 1)
    assert set(GPU.objects.values_list("pk", flat=True)) == {"GPU-a"}
    assert "gone" not in pods()
    assert not Residence.objects.filter(gpu_id="GPU-b").exists()
    assert Host.objects.count() == 1


@pytest.mark.usefixtures("fleet")
def test_nothing_goes_unless_it_is_asked_for() -> None:
    assert forget(placements=NOTHING, gpus=NOTHING) == (0, 0)
    assert forget(placements=timedelta(days=30), gpus=timedelta(days=30)) == (0, 0)


@pytest.mark.usefixtures("fleet")
def test_a_clock_that_is_ahead_makes_nothing_old_and_neither_do_readings_from_the_future() -> None:
    ahead = START + timedelta(days=5000)
    assert forget(placements=timedelta(days=30), gpus=timedelta(days=30), now=ahead) == (0, 0)
    save(block(gpu("GPU-ahead", gpu_id=2), 5000 * DAY, {UTIL: 1.0}))
    now = START + timedelta(days=9)
    assert forget(placements=timedelta(days=30), gpus=timedelta(days=30), now=now) == (0, 0)


@pytest.mark.django_db
def test_an_empty_inventory_has_nothing_to_forget() -> None:
    assert forget(placements=timedelta(days=1), gpus=timedelta(days=1)) == (0, 0)


@pytest.mark.django_db
def test_many_go_in_several_transactions() -> None:
    for day in range(25):
        save(block(gpu("GPU-a", pod=f"pod-{day}", namespace="n"), day * DAY, {UTIL: 1.0}))
    from inventory import expiry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expiry, "_AT_ONCE", 4)
        assert forget(placements=timedelta(days=2), gpus=NOTHING) == (22, 0)


@pytest.mark.django_db
def test_what_runs_stays_however_fast_a_capture_is_read() -> None:
    """A collector writes when rows were last seen by the clock; readings of an hour may come in a second."""
    memory = InventoryMemory("c1")
    for minutes in range(0, 61, 5):
        memory.save(seen(block(gpu("GPU-a", pod="train", namespace="n"), minutes * 60, {UTIL: 1.0})))
    memory.save(seen(block(gpu("GPU-b", gpu_id=1), 3600, {UTIL: 1.0})))
    assert forget(placements=timedelta(minutes=30), gpus=timedelta(minutes=30)) == (0, 0)
    assert forget(placements=timedelta(minutes=30), gpus=timedelta(minutes=30), now=START) == (0, 0)
    memory.save(seen(block(gpu("GPU-b", gpu_id=1), 7200, {UTIL: 1.0})))
    assert forget(placements=timedelta(minutes=30), gpus=timedelta(minutes=30)) == (1, 1)
