from __future__ import annotations

import random

import pytest

from ingest.simulator.demo import BAD_AIRFLOW, MISSING_S, RESTART_S, DemoFleet, bursts, sawtooth, steady
from ingest.simulator.fleet import HEALTH_METRICS, FleetShape
from ingest.simulator.gpu import MEMORY_MIB, SimGpu
from readings.checks import problem_of

DEV = "DCGM_FI_DEV_"
Seen = dict[tuple[str, int], dict[str, float]]


def demo(hosts: int = 8, gpus: int = 8, seed: int = 1, seconds: float = 0.0) -> DemoFleet:
    return DemoFleet(FleetShape(hosts, gpus, seed, HEALTH_METRICS, scenario="demo"), seconds)


def seen(fleet: DemoFleet) -> Seen:
    """The readings of each GPU by its host and slot."""
    found: Seen = {}
    for host in fleet.hosts:
        for gpu, name, value in fleet.readings(host):
            found.setdefault((host.name, gpu.gpu_id or 0), {})[name.removeprefix(DEV)] = value
    return found


def after(fleet: DemoFleet, seconds: float, step: float = 5.0) -> list[Seen]:
    """What is seen at each step of that time."""
    found = []
    for _ in range(round(seconds / step)):
        fleet.step(step)
        found.append(seen(fleet))
    return found


def gpus_of(fleet: DemoFleet) -> list[SimGpu]:
    return [gpu for host in fleet.hosts for gpu in host.gpus]


def test_within_a_minute_there_is_one_of_everything() -> None:
    fleet = demo()
    minute = after(fleet, 60)
    now = minute[-1]
    teams = {gpu.identity.namespace for gpu in gpus_of(fleet)}
    assert len(teams - {""}) >= 5
    idle = [gpu for gpu in gpus_of(fleet) if gpu.utilisation == 0 and "missing" not in gpu.faults]
    held = [gpu for gpu in idle if gpu.used_mib > 1024]
    assert {gpu.identity.namespace for gpu in held} == {"synthetic-notebooks"}
    assert len(held) == 5
    assert sum(gpu.job is None for gpu in idle) >= 4
    throttled = [gpu for gpu in now.values() if gpu["GPU_UTIL"] > 90 and gpu["SM_CLOCK"] < 1000]
    assert len(throttled) == 1
    assert int(throttled[0]["CLOCKS_EVENT_REASONS"]) & 128
    assert throttled[0]["POWER_VIOLATION"] > 50e9
    assert {gpu["XID_ERRORS"] for sample in minute for gpu in sample.values()} == {0.0, 48.0, 79.0}


def test_one_gpu_reports_an_xid_and_is_missing_from_then_on() -> None:
    samples = after(demo(), 600)
    everything = set(samples[0])
    for number, sample in enumerate(samples):
        gone = everything - set(sample)
        assert gone == ({("synthetic-004", 7)} if (number + 1) * 5 >= MISSING_S else set())
    last = [sample["synthetic-004", 7]["XID_ERRORS"] for sample in samples if ("synthetic-004", 7) in sample]
    assert last[-2:] == [79.0, 79.0]


def test_the_job_of_a_gpu_with_an_xid_dies_and_starts_again_without_it() -> None:
    fleet = demo()
    failing, *others = fleet.hosts[3].gpus[:4]
    fleet.step(5.0)
    pods = {gpu.identity.pod for gpu in (failing, *others)}
    assert pods == {"finetune-llm-0"}
    after(fleet, 60)
    assert [gpu.job for gpu in (failing, *others)] == [None] * 4
    assert (failing.xid, failing.value(DEV + "GPU_RECOVERY_ACTION")) == (48.0, 1.0)
    after(fleet, RESTART_S)
    assert failing.job is None
    assert {gpu.identity.pod for gpu in others} == {"finetune-llm-1"}
    assert min(gpu.utilisation for gpu in others) > 50


def test_one_host_is_hotter_than_others_under_the_same_load() -> None:
    fleet = demo()
    after(fleet, 70)
    hot, cool = fleet.hosts[1].gpus, fleet.hosts[4].gpus
    assert min(gpu.temperature for gpu in hot) > max(gpu.temperature for gpu in cool) - BAD_AIRFLOW / 2
    assert sum(gpu.temperature - 0.062 * gpu.power_w for gpu in hot) / 8 == pytest.approx(
        sum(gpu.temperature - 0.062 * gpu.power_w for gpu in cool) / 8 + BAD_AIRFLOW, abs=4.0
    )


def test_shapes_of_load_last_as_long_as_it_runs() -> None:
    fleet = demo(seconds=-3600.0)
    samples = after(fleet, 3600, step=30.0) + after(fleet, 7200)

    def of(host: int, slot: int) -> list[float]:
        return [sample[f"synthetic-{host:03d}", slot]["GPU_UTIL"] for sample in samples]

    assert min(of(1, 0)) > 90  # steady training
    dips = [value < 20 for value in of(2, 0)]
    assert 0.02 < sum(dips) / len(dips) < 0.15  # checkpoints
    assert min(value for value in of(2, 0) if value > 20) > 85
    assert set(of(3, 0)) == {0.0}  # a notebook
    serving = of(6, 0)
    assert min(serving) < 30 < 80 < max(serving)
    assert len({gpu.identity.pod for gpu in fleet.hosts[2].gpus[:5]}) == 5  # each in a pod of its own
    assert samples[-1]["synthetic-003", 0]["FB_USED"] == pytest.approx(0.35 * MEMORY_MIB, abs=1)


@pytest.mark.parametrize(("hosts", "gpus"), [(1, 1), (2, 3), (4, 8), (9, 1), (24, 16)])
def test_any_size_gives_readings_that_are_all_taken(hosts: int, gpus: int) -> None:
    samples = after(demo(hosts, gpus), 240)
    assert len(samples[0]) == hosts * gpus
    assert [
        (name, value)
        for sample in samples[::8]
        for readings in sample.values()
        for name, value in readings.items()
        if problem_of(name if name.startswith("DCGM") else DEV + name, value)
    ] == []


def test_the_same_seed_gives_the_same_demo() -> None:
    assert after(demo(seed=3), 300) == after(demo(seed=3), 300) != after(demo(seed=4), 300)


def test_all_names_say_synthetic() -> None:
    fleet = demo(hosts=16)
    after(fleet, 300)
    for gpu in gpus_of(fleet):
        assert gpu.identity.hostname.startswith("synthetic-")
        assert gpu.identity.namespace.startswith("synthetic-") or gpu.job is None


def test_loads() -> None:
    rng = random.Random(1)
    assert [steady(90.0)(time, rng) for time in (-100.0, 0.0, 7.5)] == [90.0] * 3
    teeth = sawtooth(90.0, 100.0, 20.0, 30.0)
    assert [teeth(time, rng) for time in (29.0, 30.0, 49.0, 50.0, 130.0, -70.0, -50.0)] == [90, 12, 12, 90, 12, 12, 90]
    waves = [bursts(40.0, 20.0, 600.0)(float(time), rng) for time in range(600)]
    assert min(waves) < 22
    assert 0.05 < sum(value >= 80 for value in waves) / 600 < 0.2
