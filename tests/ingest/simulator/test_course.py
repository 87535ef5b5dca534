from __future__ import annotations

import pytest

from ingest.simulator.course import BegunFault
from ingest.simulator.faults import BY_LOT, NAMED
from ingest.simulator.fleet import ALL_METRICS, HEALTH_METRICS, FleetShape, SimFleet
from readings.checks import problem_of

STEP = 10.0
Seen = list[dict[tuple[str, int], dict[str, float]]]


def run(
    *faults: str, steps: int = 30, rate: float = 0.0, metrics: tuple[str, ...] = ALL_METRICS
) -> tuple[SimFleet, Seen]:
    """The readings of each GPU by host and slot, at each step."""
    fleet = SimFleet(FleetShape(3, 4, 1, metrics, faults, fault_rate=rate))
    seen: Seen = []
    for _ in range(steps):
        fleet.step(STEP)
        seen.append({})
        for host in fleet.hosts:
            for gpu, name, value in fleet.readings(host):
                seen[-1].setdefault((host.name, gpu.gpu_id or 0), {})[name] = value
    return fleet, seen


PLACE = ("synthetic-002", 1)
GPU_FAULTS = sorted(name for name, fault in NAMED.items() if fault.place == "gpu")


@pytest.mark.parametrize("name", GPU_FAULTS)
def test_a_fault_changes_its_gpu_alone_and_from_its_time_on(name: str) -> None:
    _, healthy = run()
    _, seen = run(f"{name}@2/1+1m")
    changed = [
        (number, place)
        for number, (now, then) in enumerate(zip(seen, healthy, strict=True))
        for place in then
        if now.get(place) != then[place]
    ]
    assert changed
    assert {place for _, place in changed} == {PLACE}
    assert changed[0][0] >= 5  # the sample of second 60
    if name != "overheat":  # heat builds up
        assert changed[0][0] <= 10


@pytest.mark.parametrize("name", sorted(set(GPU_FAULTS) - {"blank", "spike"}))
def test_no_fault_gives_values_that_a_collector_refuses(name: str) -> None:
    _, seen = run(f"{name}@2/1+1m")
    for sample in seen:
        assert [(key, value) for key, value in sample.get(PLACE, {}).items() if problem_of(key, value)] == []


def test_a_fault_ends() -> None:
    _, seen = run("temp_high:97@2/1+1m+2m")
    hot = [number for number, sample in enumerate(seen) if sample[PLACE]["DCGM_FI_DEV_GPU_TEMP"] == 97]
    assert hot == list(range(5, 17))


def test_what_a_fault_added_to_a_counter_stays_until_a_reset() -> None:
    name = "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"
    _, seen = run("ecc_sbe_rate:3600@2/1+1m+1m", "gpu_reset@2/1+4m")
    counts = [sample[PLACE][name] for sample in seen]
    assert counts[:5] == [0] * 5
    assert counts[5:11] == [10, 20, 30, 40, 50, 60]
    assert set(counts[11:23]) == {60}
    assert set(counts[23:]) == {0}
    energy = [sample[PLACE]["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"] for sample in seen]
    assert [number for number in range(1, 30) if energy[number] < energy[number - 1]] == [23]


def test_a_metric_that_vanishes_is_absent_while_others_go_on() -> None:
    _, seen = run("metric_vanished@2/1+1m+1m")
    there = ["DCGM_FI_DEV_MEMORY_TEMP" in sample[PLACE] for sample in seen]
    assert there == [True] * 5 + [False] * 6 + [True] * 19


def test_another_gpu_in_the_place_of_one_has_another_uuid() -> None:
    before, _ = run(steps=1)
    after, _ = run("gpu_replaced@2/1+1m")
    differ = [
        (host.name, gpu.identity.gpu_id)
        for host, other in zip(before.hosts, after.hosts, strict=True)
        for gpu, new in zip(host.gpus, other.gpus, strict=True)
        if gpu.identity.uuid != new.identity.uuid
    ]
    assert differ == [PLACE]


def test_a_host_and_the_whole_fleet_fall_silent() -> None:
    _, seen = run("silent@2+1m+1m", "source_silent@*+3m+1m")
    hosts = [sorted({host[-1] for host, _ in sample}) for sample in seen]
    assert hosts[:5] == [["1", "2", "3"]] * 5
    assert hosts[5:11] == [["1", "3"]] * 6
    assert hosts[17:23] == [[]] * 6
    assert hosts[23:] == [["1", "2", "3"]] * 7


def test_what_began_is_written_down_with_what_should_come_of_it() -> None:
    fleet, _ = run("xid:48@2/1+1m", "missing@2/2+2m", "xid@2/2+1m")
    uuids = [gpu.identity.uuid for gpu in fleet.hosts[1].gpus]
    rules = [(fault.name, fault.uuid, [event.rule for event in fault.events]) for fault in fleet.course.begun]
    assert rules == [
        ("xid", uuids[1], ["xid_fatal", "recovery_action", "ecc_dbe", "remap_pending"]),
        ("xid", uuids[2], ["xid_fatal", "recovery_action"]),
        ("missing", uuids[2], []),  # the XID said so
    ]


def test_the_schedule_is_of_its_seed_and_leaves_the_rest_of_the_fleet_alone() -> None:
    def begun(seed: int) -> list[BegunFault]:
        fleet = SimFleet(FleetShape(3, 4, seed, HEALTH_METRICS, fault_rate=60))
        for _ in range(360):
            fleet.step(STEP)
        return list(fleet.course.begun)

    first = begun(1)
    assert first == begun(1)
    assert first != begun(2)
    assert 35 < len(first) < 85
    assert {fault.name for fault in first} <= set(BY_LOT) - {"dcgm_health"}
