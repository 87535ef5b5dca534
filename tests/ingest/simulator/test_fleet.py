from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.simulator.fleet import (
    ALL_METRICS,
    DEFAULT_METRICS,
    FAULTS,
    HEALTH_METRICS,
    METRIC_SETS,
    FleetShape,
    SimFleet,
)
from ingest.simulator.gpu import BLANK, MEMORY_MIB, SimGpu
from readings.catalogue import CATALOGUE, canonical_name
from readings.checks import problem_of
from telemetry_site.options import SIM_FAULTS

UTIL, POWER, TEMP, USED = (f"DCGM_FI_DEV_{name}" for name in ("GPU_UTIL", "POWER_USAGE", "GPU_TEMP", "FB_USED"))
Told = dict[tuple[str, str], float]


def told(fleet: SimFleet) -> Told:
    return {(gpu.id, name): value for host in fleet.hosts for gpu, name, value in fleet.readings(host)}


def run(shape: FleetShape, steps: int = 200, seconds: float = 5.0) -> list[Told]:
    fleet = SimFleet(shape)
    found = []
    for _ in range(steps):
        fleet.step(seconds)
        found.append(told(fleet))
    return found


def all_gpus(fleet: SimFleet) -> list[SimGpu]:
    return [gpu for host in fleet.hosts for gpu in host.gpus]


def test_the_same_seed_gives_the_same_fleet() -> None:
    shape = FleetShape(2, 4, 7, faults=tuple(FAULTS))
    assert run(shape, 50) == run(shape, 50)
    assert run(shape, 50) != run(FleetShape(2, 4, 8, faults=tuple(FAULTS)), 50)


def test_everything_in_it_says_that_it_is_synthetic() -> None:
    for gpu in all_gpus(SimFleet(FleetShape(2, 2))):
        assert gpu.identity.hostname.startswith("synthetic-")
        assert "Synthetic" in gpu.identity.model_name
        assert gpu.identity.driver_version == "0.0.0-synthetic"


def test_a_fleet_without_faults_gives_nothing_that_is_refused() -> None:
    for values in run(FleetShape(4, 8, metrics=ALL_METRICS)):
        assert len(values) == 32 * len(ALL_METRICS)
        assert [(name, value) for (_, name), value in values.items() if problem_of(name, value)] == []


def test_jobs_come_and_go_and_some_gpus_idle() -> None:
    fleet = SimFleet(FleetShape(4, 8))
    pods = set()
    idle = busy = 0
    for _ in range(500):
        fleet.step(5.0)
        for gpu in all_gpus(fleet):
            assert bool(gpu.identity.pod) == (gpu.job is not None)
            pods.add(gpu.identity.pod)
            idle, busy = idle + (gpu.job is None), busy + (gpu.job is not None)
    assert len(pods) > 20
    assert idle > 1000
    assert busy > 1000


def test_power_follows_load_temperature_follows_power_and_memory_goes_in_steps() -> None:
    fleet = SimFleet(FleetShape(1, 8, metrics=(UTIL, POWER, TEMP, USED)))
    steps = set()
    for _ in range(300):
        before = [gpu.used_mib for gpu in all_gpus(fleet)]
        fleet.step(5.0)
        for gpu, used in zip(all_gpus(fleet), before, strict=True):
            steps.add(gpu.used_mib - used)
            if gpu.utilisation == 0 and gpu.job is None and gpu.power_w < 80:
                assert gpu.value(USED) == 7
            if gpu.utilisation > 90 and gpu.power_w > 400:
                assert gpu.temperature > 30
            assert 0 < gpu.value(USED) < MEMORY_MIB
    assert 0 in steps
    assert min(steps) < -1000 < 1000 < max(steps)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_each_fault_shows(fault: str) -> None:
    metrics = (UTIL, POWER, TEMP, "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_SM_CLOCK")
    good, bad = run(FleetShape(2, 2, metrics=metrics)), run(FleetShape(2, 2, metrics=metrics, faults=(fault,)))

    def values(found: list[Told], name: str) -> set[float]:
        return {value for each in found for (_, metric), value in each.items() if metric == name}

    seen: Callable[[list[Told]], bool] = {
        "xid": lambda found: values(found, metrics[3]) != {0.0},
        "overheat": lambda found: max(values(found, TEMP)) > 75,
        "throttle": lambda found: 855.0 in values(found, metrics[4]),
        "missing": lambda found: min(map(len, found)) < 4 * len(metrics),
        "blank": lambda found: BLANK in values(found, POWER),
        "spike": lambda found: bool({2619.0, 1980.0, 808_334_905.0} & values(found, UTIL)),
        "silent": lambda found: min(map(len, found)) <= 2 * len(metrics),
    }[fault]
    assert seen(bad) and not seen(good)  # noqa: PT018 - one thing


def test_the_setting_takes_the_faults_that_there_are() -> None:
    assert SIM_FAULTS.read({"SIM_FAULTS": "all"}) == tuple(FAULTS)


def test_faults_leave_their_marks_in_the_counters_that_tell_of_them() -> None:
    fleet = SimFleet(FleetShape(hosts=2, gpus_per_host=4, metrics=ALL_METRICS, faults=("xid", "overheat", "throttle")))
    for _ in range(1800):
        fleet.step(1.0)
    found = [reading for host in fleet.hosts for reading in fleet.readings(host)]
    for metric in (
        "DCGM_FI_DEV_POWER_VIOLATION",
        "DCGM_FI_DEV_THERMAL_VIOLATION",
        "DCGM_EXP_CLOCK_EVENTS_TOTAL",
        "DCGM_EXP_XID_ERRORS_TOTAL",
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
    ):
        assert max(value for _, name, value in found if name == metric) > 0, metric


HEALTH_CSV = Path(__file__).parents[3] / "deploy" / "dcgm-exporter" / "health.csv"


def counters(lines: list[str]) -> dict[str, str]:
    """The stored names and types in a counters file, as dcgm-exporter reads it."""
    found: dict[str, str] = {}
    for line in lines:
        name, kind, text = (field.strip() for field in line.split(","))
        assert text
        if kind != "label":
            assert canonical_name(name) not in found
            found[canonical_name(name)] = kind
    return found


def test_the_exporters_file_for_health_has_what_the_health_set_has() -> None:
    lines = HEALTH_CSV.read_text().splitlines()
    given = counters([line for line in lines if line and not line.startswith("#")])
    on_request = counters([line[2:] for line in lines if line.startswith("# DCGM_")])
    assert given.keys().isdisjoint(on_request)
    assert {name: CATALOGUE[name].kind for name in given | on_request if CATALOGUE[name].kind == "counter"} == {
        name: kind for name, kind in (given | on_request).items() if kind == "counter"
    }
    licence = {"DCGM_FI_DEV_VGPU_LICENSE_STATUS"}
    assert set(HEALTH_METRICS) - licence <= given.keys() | on_request.keys()
    assert set(METRIC_SETS) == {"default", "health", "all"}
    assert METRIC_SETS["default"] == DEFAULT_METRICS
    assert len(DEFAULT_METRICS) == 25  # figures of benches are of these


def test_what_health_sees_of_a_fault() -> None:
    fleet = SimFleet(FleetShape(1, 1, metrics=HEALTH_METRICS))
    (gpu,) = all_gpus(fleet)
    dev = "DCGM_FI_DEV_"
    gpu.faults["throttle"] = 1e9
    fleet.step(1.0)
    assert int(gpu.value(dev + "CLOCKS_EVENT_REASONS")) & 128
    assert gpu.value(dev + "CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS") == 1e9
    gpu.temperature = 95.0
    assert int(gpu.value(dev + "CLOCKS_EVENT_REASONS")) & 64
    assert gpu.value(dev + "GPU_TEMP_MARGIN_CELSIUS") == -7.0
    assert gpu.value(dev + "GPU_RECOVERY_ACTION") == 0.0
    gpu.xid = 48.0
    assert (gpu.value(dev + "GPU_RECOVERY_ACTION"), gpu.value(dev + "ROW_REMAP_PENDING")) == (1.0, 1.0)
