"""inventory.fleet: the slots of the fleet, their states and their newest values."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from pytest_django import DjangoAssertNumQueries

from inventory.expected import learned_counts
from inventory.fleet import Fleet, SlotState, fleet_now
from inventory.models import GPU, AssetState, Host
from inventory.sync.memory import save_sightings
from readings.model import PointBlock
from tests.inventory.building import FREE, POWER, T0, TEMP, USED, UTIL, block, fleet, gpu, save, seen

pytestmark = pytest.mark.django_db


OLD = -400.0  # seconds before the newest reading: more than STALE_AFTER


def states(now: Fleet) -> dict[str, str]:
    """host/slot: state."""
    return {
        f"{now.hosts[host].name}/{slot}": SlotState(state).name.lower()
        for host, slot, state in zip(now.host.tolist(), now.slot.tolist(), now.state.tolist(), strict=True)
    }


def test_an_empty_fleet() -> None:
    now = fleet_now()
    assert (len(now), now.hosts, now.newest_ns, now.metric_names()) == (0, (), None, [])
    assert len(now.metric(UTIL)) == 0


def test_a_slot_that_the_hosts_of_a_model_have_is_missing_where_it_is_not() -> None:
    whole = fleet(80)
    points = [point for point in whole.points if point[0] != 11]  # host-001, slot 3
    save(PointBlock(whole.gpus, whole.metric_names, points))
    now = fleet_now()
    missing = np.flatnonzero(now.rows_in(SlotState.MISSING)).tolist()
    assert [(now.hosts[now.host[row]].name, int(now.slot[row]), now.ids[row]) for row in missing] == [
        ("host-001", 3, "")
    ]
    assert [host.expected for host in now.hosts] == [8] * 10
    assert np.isnan(now.metric(UTIL)[missing]).all()


def test_hosts_that_disagree_teach_nothing() -> None:
    whole = fleet(72)  # 8 of 9 hosts are fewer than 90 %
    save(PointBlock(whole.gpus, whole.metric_names, [point for point in whole.points if point[0] != 11]))
    assert len(fleet_now()) == 71
    assert learned_counts([("m", 8)] * 4) == {}
    assert learned_counts([("m", 8)] * 5) == {"m": 8}


def test_a_person_says_how_many_a_host_has() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    Host.objects.update(expected_gpus=3)
    assert states(fleet_now()) == {"host-1/0": "reporting", "host-1/1": "missing", "host-1/2": "missing"}


def test_a_silent_gpu_is_missing_and_the_gpus_of_a_silent_host_are_stale() -> None:
    save(
        block(gpu("GPU-a"), 0, {UTIL: 1.0}),
        block(gpu("GPU-b", gpu_id=1), OLD, {UTIL: 1.0}),
        block(gpu("GPU-c", hostname="host-2"), OLD, {UTIL: 1.0}),
        block(gpu("GPU-d", hostname="host-2", gpu_id=1), OLD, {UTIL: 1.0}),
    )
    now = fleet_now()
    assert states(now) == {
        "host-1/0": "reporting",
        "host-1/1": "missing",
        "host-2/0": "stale",
        "host-2/1": "stale",
    }
    assert [value == value for value in now.metric(UTIL).tolist()] == [True, False, False, False]


def test_nothing_is_missed_of_what_is_in_maintenance_and_the_retired_are_gone() -> None:
    save(
        block(gpu("GPU-a"), 0, {UTIL: 1.0}),
        block(gpu("GPU-b", gpu_id=1), OLD, {UTIL: 1.0}),
        block(gpu("GPU-c", gpu_id=2), 0, {UTIL: 1.0}),
        block(gpu("GPU-d", hostname="host-2"), 0, {UTIL: 1.0}),
    )
    Host.objects.filter(name="host-1").update(asset_state=AssetState.MAINTENANCE, expected_gpus=4)
    Host.objects.filter(name="host-2").update(asset_state=AssetState.RETIRED)
    GPU.objects.filter(pk="GPU-c").update(asset_state=AssetState.RETIRED)
    assert states(fleet_now()) == {
        "host-1/0": "reporting",
        "host-1/1": "maintenance",
        "host-1/2": "maintenance",
        "host-1/3": "maintenance",
    }


def test_a_gpu_that_was_replaced_in_its_slot_is_not_missed() -> None:
    save(block(gpu("GPU-old"), OLD, {UTIL: 1.0}), block(gpu("GPU-new"), 0, {UTIL: 2.0}))
    now = fleet_now()
    assert now.ids == ("GPU-new",)
    assert states(now) == {"host-1/0": "reporting"}


def test_gpus_without_a_host_come_first_and_miss_nobody() -> None:
    save(
        block(gpu("GPU-a", hostname=""), 0, {UTIL: 1.0}),
        block(gpu("GPU-b", hostname=""), OLD, {UTIL: 1.0}),
        block(gpu("GPU-c"), 0, {UTIL: 3.0}),
    )
    now = fleet_now()
    assert [host.name for host in now.hosts] == ["", "host-1"]
    assert dict(zip(now.ids, now.state.tolist(), strict=True)) == {
        "GPU-a": SlotState.REPORTING,
        "GPU-b": SlotState.STALE,
        "GPU-c": SlotState.REPORTING,
    }
    assert now.metric(UTIL)[now.ids.index("GPU-c")] == 3.0


def test_a_slot_without_a_gpu_is_missing_though_its_host_is_away() -> None:
    save(block(gpu("GPU-a"), OLD, {UTIL: 1.0}), block(gpu("GPU-b", hostname="host-2"), 0, {UTIL: 1.0}))
    Host.objects.filter(name="host-1").update(expected_gpus=2, tags={"rack": "r12"}, owner="research")
    now = fleet_now()
    assert states(now) == {"host-1/0": "stale", "host-1/1": "missing", "host-2/0": "reporting"}
    assert (now.hosts[0].tags, now.hosts[0].owner, now.hosts[0].expected) == ({"rack": "r12"}, "research", 2)


def test_a_host_without_gpus_is_there() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    save(block(gpu(hostname="host-2"), 10, {UTIL: 1.0}))
    now = fleet_now()
    assert [(host.name, host.expected) for host in now.hosts] == [("host-1", 0), ("host-2", 1)]
    assert now.hosts[0].last_seen_ns == T0


def test_each_host_may_have_metrics_of_its_own() -> None:
    save(block(gpu("GPU-a"), 0, {UTIL: 1.0}), block(gpu("GPU-b", hostname="host-2"), 0, {TEMP: 40.0, UTIL: 2.0}))
    now = fleet_now()
    assert now.metric(UTIL).tolist() == [1.0, 2.0]
    assert np.isnan(now.metric(TEMP)[0])
    assert now.metric_names() == sorted([UTIL, TEMP])


def test_a_value_that_is_old_by_the_newest_reading_of_all_is_unknown() -> None:
    save(
        block(gpu("GPU-a"), -310.0, {UTIL: 1.0, POWER: 5.0}),
        block(gpu("GPU-a"), -200.0, {UTIL: 2.0}),
        block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 1.0}),
    )
    now = fleet_now()
    assert now.metric(UTIL).tolist() == [2.0, 1.0]
    assert np.isnan(now.metric(POWER)).all()


def test_what_two_collectors_saw_counts_once() -> None:
    first, second = "collector-1", "collector-2"
    old = [
        block(gpu("GPU-a"), OLD, {UTIL: 1.0, TEMP: 40.0}),
        block(gpu("GPU-b", gpu_id=1, mig_id="1"), -9, {USED: 7.0}),
    ]
    new = [block(gpu("GPU-a"), 0, {UTIL: 2.0}), block(gpu("GPU-b", gpu_id=1, mig_id="1"), 0, {USED: 1000.0})]
    for writer, blocks in ((first, old), (second, new)):
        save_sightings(seen(*blocks), writer)
    now = fleet_now()
    assert now.metric(UTIL).tolist()[0] == 2.0
    assert np.isnan(now.metric(TEMP)).all()  # collector-1 has it, from long ago
    assert now.metric(USED).tolist()[1] == 1000.0


def test_a_board_of_mig_instances_counts_as_a_whole() -> None:
    save(
        block(gpu("GPU-a", mig_id="1", mig_profile="1g.10gb"), 0, {USED: 1000.0, POWER: 300.0}),
        block(gpu("GPU-a", mig_id="2", mig_profile="1g.10gb"), 0, {USED: 500.0, POWER: 300.0}),
    )
    now = fleet_now()
    assert now.ids == ("GPU-a",)
    assert now.metric(USED).tolist() == [1500.0]
    assert now.metric(POWER).tolist() == [300.0]


def test_a_single_value_that_is_old_is_unknown() -> None:
    save(block(gpu(), OLD, {UTIL: 10.0, POWER: 100.0}), block(gpu(), 0, {UTIL: 20.0}))
    now = fleet_now()
    assert now.metric(UTIL).tolist() == [20.0]
    assert np.isnan(now.metric(POWER)).all()


def test_idle_and_held() -> None:
    save(
        block(gpu("GPU-a"), 0, {UTIL: 0.0, USED: 1024.5}),
        block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 0.0, USED: 1024.0}),
        block(gpu("GPU-c", gpu_id=2), 0, {UTIL: 1.0, USED: 9999.0}),
        block(gpu("GPU-d", gpu_id=3), 0, {USED: 9999.0}),
    )
    now = fleet_now()
    assert now.is_idle().tolist() == [True, True, False, False]
    assert now.is_held().tolist() == [True, False, False, False]


def test_memory_is_what_the_gpu_says_else_its_parts() -> None:
    save(
        block(gpu("GPU-a"), 0, {USED: 7.0, FREE: 1.0, "DCGM_FI_DEV_FB_RESERVED": 2.0}),
        block(gpu("GPU-b", gpu_id=1), 0, {USED: 7.0, FREE: 1.0, "DCGM_FI_DEV_FB_TOTAL": 16.0}),
        block(gpu("GPU-c", gpu_id=2), 0, {USED: 7.0}),
    )
    first, second, third = fleet_now().memory_total().tolist()
    assert (first, second) == (10.0, 16.0)
    assert np.isnan(third)


def test_it_keeps_no_column_for_each_name_that_somebody_asks_for() -> None:
    save(fleet(8))
    now = fleet_now()
    tracemalloc.start()
    try:
        for number in range(2000):
            assert np.isnan(now.metric(f"of_nobody_{number}")).all()
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert now.metric(UTIL).tolist() == [float(n) for n in range(8)]


def test_it_is_asked_for_with_few_queries(django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    save(fleet(200))
    with django_assert_max_num_queries(5):
        now = fleet_now()
        assert np.nansum(now.metric(POWER)) == 200 * 300.5
        assert now.metric(TEMP)[0] == 40.0
    assert now.newest_ns == T0


def test_a_retired_gpu_is_not_missed_where_the_number_is_learned() -> None:
    save(fleet(80))
    GPU.objects.filter(pk="GPU-0011").update(asset_state=AssetState.RETIRED)
    now = fleet_now()
    assert (len(now), int(now.rows_in(SlotState.MISSING).sum())) == (79, 0)
    assert now.hosts[1].expected == 7
    Host.objects.filter(name="host-001").update(expected_gpus=8)
    assert states(fleet_now())["host-001/3"] == "missing"


def test_a_retired_gpu_that_was_replaced_changes_nothing() -> None:
    save(fleet(80))
    GPU.objects.filter(pk="GPU-0011").update(asset_state=AssetState.RETIRED)
    save(block(gpu("GPU-new", hostname="host-001", gpu_id=3), 0, {UTIL: 5.0}))
    now = fleet_now()
    assert (len(now), int(now.rows_in(SlotState.MISSING).sum())) == (80, 0)


def test_which_metrics_a_model_has() -> None:
    save(
        block(gpu("GPU-a"), 0, {UTIL: 1.0, POWER: 2.0}),
        block(gpu("GPU-b", gpu_id=1, model_name="A100"), 0, {UTIL: 1.0, TEMP: None}),
    )
    now = fleet_now()
    assert now.metric_names_of("NVIDIA H100 80GB HBM3") == {UTIL, POWER}
    assert now.metric_names_of("A100") == {UTIL}
    assert now.metric_names_of("none") == set()
