"""The usage meter against a plain reckoning."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from health.engine.intake import Intake
from health.usage.meter import MeterStateError, UsageMeter
from health.usage.packing import FREE, Figure, Period
from health.usage.sharing import MOST_LANES
from readings.model import Gpu, PointBlock
from tests.health.usage.reckoning import (
    ENERGY,
    ENGINE,
    HOUR,
    LIMIT,
    NAMES,
    POWER,
    SECOND,
    SM,
    UTIL,
    Cells,
    Reckoning,
    cells_of,
)

MINUTE = 60 * SECOND
START = 500_000 * HOUR
STEP = 30 * SECOND


class Fleet:
    """Feeds points to a meter and to the plain reckoning. The meter may be dumped and loaded, and emptied, at any time."""

    def __init__(self) -> None:
        self.intake = Intake(NAMES)
        self.meter = UsageMeter()
        self.reckoning = Reckoning()
        self.closed: list[Period] = []

    def send(self, points: list[tuple[Gpu, int, dict[str, float]]], *, live: bool = False) -> None:
        """One block."""
        gpus = [gpu for gpu, _, _ in points]
        names = [name for name in NAMES if any(name in values for _, _, values in points)]
        rows = [(at, time, [values.get(name) for name in names]) for at, (_, time, values) in enumerate(points)]
        block = PointBlock(gpus, names, rows)
        arrivals = self.intake.take(block, source="test", live=live, received_ns=START)
        if arrivals is not None:
            self.intake.keep(arrivals)
            self.meter.take(arrivals, self.intake.registry)
            self.reckoning.take(arrivals, self.intake.registry)

    def run(
        self, gpu: Gpu, start: int, minutes: float, *, step: int = STEP, energy: float | None = None, **values: float
    ) -> int:
        """Samples of a GPU, the same all along; returns the time of the sample that would be next. ``energy`` counts up at POWER."""
        names = {"util": UTIL, "engine": ENGINE, "sm": SM, "power": POWER, "limit": LIMIT}
        read = {names[name]: value for name, value in values.items()}
        for number in range(int(minutes * MINUTE) // step):
            if energy is not None:
                read[ENERGY] = energy + number * values["power"] * step / 1e6
            self.send([(gpu, start + number * step, dict(read))])
        return start + int(minutes * MINUTE) // step * step

    def reload(self) -> None:
        """As after a restart."""
        self.meter = UsageMeter.load(self.meter.dump())

    def total(self, figure: Figure) -> int:
        """Over everything."""
        return sum(figures[figure] for figures in self.cells().values())

    def cells(self) -> Cells:
        """What the meter has, open and closed."""
        return cells_of([*self.closed, *self.meter.open_hours()])


def gpu_of(number: int = 1, **fields: Any) -> Gpu:
    given: dict[str, Any] = {"uuid": f"GPU-{number}", "hostname": f"node-{number % 2}", "model_name": "H100"}
    return Gpu(**(given | {"gpu_id": number} | fields))


def test_a_sample_counts_until_the_next_one() -> None:
    fleet = Fleet()
    fleet.run(gpu_of(pod="train", namespace="ml"), START, 30, util=80.0, sm=0.5)
    assert fleet.total(Figure.KNOWN) == 30 * MINUTE - STEP
    assert fleet.total(Figure.ACTIVE) == 30 * MINUTE - STEP
    assert fleet.total(Figure.EFFECTIVE) == (30 * MINUTE - STEP) / 2
    assert fleet.total(Figure.IDLE) == 0


def test_a_gap_is_neither_idle_nor_busy() -> None:
    fleet = Fleet()
    gpu = gpu_of(pod="train", namespace="ml")
    end = fleet.run(gpu, START, 10, util=80.0)
    fleet.run(gpu, end + 30 * MINUTE, 10, util=80.0)
    # Nine and a half minutes, three steps of the gap, and nine and a half minutes.
    assert fleet.total(Figure.KNOWN) == 2 * (10 * MINUTE - STEP) + 3 * STEP


def test_idle_time_counts_from_its_start_once_it_has_lasted_a_quarter_of_an_hour() -> None:
    fleet = Fleet()
    gpu = gpu_of(pod="sleepy", namespace="ml")
    end = fleet.run(gpu, START + 50 * MINUTE, 15, util=0.0)
    assert fleet.total(Figure.IDLE) == 0
    fleet.reload()
    fleet.run(gpu, end, 1, util=0.0)
    assert fleet.total(Figure.IDLE) == 15 * MINUTE + STEP
    hours = {period.start_ns: int(period.figures[Figure.IDLE].sum()) for period in fleet.meter.open_hours()}
    assert hours == {START: 10 * MINUTE, START + HOUR: 5 * MINUTE + STEP}


@pytest.mark.parametrize("interruption", ["busy", "another pod"])
def test_a_short_pause_is_not_waste(interruption: str) -> None:
    fleet = Fleet()
    gpu, other = gpu_of(pod="a", namespace="ml"), gpu_of(pod="b", namespace="ml")
    end = fleet.run(gpu, START, 14, util=0.0)
    end = fleet.run(gpu if interruption == "busy" else other, end, 1, util=90.0 if interruption == "busy" else 0.0)
    fleet.run(gpu, end, 14, util=0.0)
    assert fleet.total(Figure.IDLE) == 0


def test_the_two_thresholds_differ() -> None:
    fleet = Fleet()
    fleet.run(gpu_of(pod="a", namespace="ml"), START, 30, util=7.0)
    known = 30 * MINUTE - STEP
    assert (fleet.total(Figure.IDLE), fleet.total(Figure.IDLE_SECOND)) == (0, known)
    assert (fleet.total(Figure.ACTIVE), fleet.total(Figure.ACTIVE_SECOND)) == (known, 0)


def test_stuck_profiling_counters_make_no_idle_gpu() -> None:
    fleet = Fleet()
    fleet.run(gpu_of(pod="a", namespace="ml"), START, 30, util=100.0, engine=0.0)
    assert fleet.total(Figure.IDLE) == 0
    assert fleet.total(Figure.ACTIVE) == 30 * MINUTE - STEP


def test_energy_comes_from_the_counter_and_over_gaps() -> None:
    fleet = Fleet()
    gpu = gpu_of(pod="a", namespace="ml")
    end = fleet.run(gpu, START, 10, util=50.0, power=500.0, limit=700.0, energy=1e9)
    # The counter went on for half an hour at 400 W.
    later = 1e9 + 500 * (10 * 60 - 30) * 1000 + 400 * 1800 * 1000
    fleet.run(gpu, end - STEP + 30 * MINUTE, 1, util=50.0, power=500.0, limit=700.0, energy=later)
    assert fleet.total(Figure.COUNTED_MJ) == (500 * 570 + 400 * 1800 + 500 * 30) * 1000
    assert fleet.total(Figure.ESTIMATED_MJ) == 0
    gap = sum(figures[Figure.COUNTED_MJ] for (_, _, holder), figures in fleet.cells().items() if holder == -2)
    assert gap == 400 * (1800 - 90) * 1000
    assert fleet.total(Figure.DRAWN_MJ) * 7 == fleet.total(Figure.LIMIT_MJ) * 5


def test_a_counter_that_falls_starts_anew() -> None:
    fleet = Fleet()
    gpu = gpu_of()
    end = fleet.run(gpu, START, 5, util=0.0, power=100.0, energy=1e9)
    fleet.run(gpu, end, 5, util=0.0, power=100.0, energy=5e6)
    # What it took between the two counters is estimated.
    assert fleet.total(Figure.COUNTED_MJ) == 2 * 100 * 270 * 1000
    assert fleet.total(Figure.ESTIMATED_MJ) == 100 * 30 * 1000
    assert fleet.total(Figure.IDLE_MJ) == 100 * 570 * 1000


def test_a_counter_that_jumps_is_not_believed() -> None:
    fleet = Fleet()
    gpu = gpu_of()
    end = fleet.run(gpu, START, 5, util=0.0, power=100.0, energy=1e6)
    fleet.run(gpu, end, 5, util=0.0, power=100.0, energy=9e12)
    assert fleet.total(Figure.COUNTED_MJ) + fleet.total(Figure.ESTIMATED_MJ) == 100 * 570 * 1000


def test_power_stands_in_for_a_missing_counter_until_that_is_back() -> None:
    fleet = Fleet()
    gpu = gpu_of()
    end = fleet.run(gpu, START, 5, util=0.0, power=100.0, energy=1e9)
    end = fleet.run(gpu, end, 5, util=0.0, power=100.0)
    assert fleet.total(Figure.ESTIMATED_MJ) == 100 * 300 * 1000
    fleet.reload()
    fleet.run(gpu, end, 5, util=0.0, power=100.0, energy=1e9 + 600 * 110 * 1000)
    both = fleet.total(Figure.COUNTED_MJ) + fleet.total(Figure.ESTIMATED_MJ)
    assert both == (600 * 110 + 100 * 270) * 1000
    assert fleet.total(Figure.ENERGY_KNOWN) == 15 * MINUTE - STEP


def test_a_mig_board_is_split_over_its_holders_without_remainder() -> None:
    fleet = Fleet()
    parts = [
        gpu_of(mig_id=str(number), mig_profile="1g.10gb", pod=f"pod-{number}" if number else "", namespace="ml")
        for number in range(4)
    ]
    for number in range(60):
        values = {POWER: 300.0, LIMIT: 700.0}
        fleet.send(
            [(gpu, START + number * (STEP + 1), {ENGINE: 0.9 * (at == 1), **values}) for at, gpu in enumerate(parts)]
        )
    known = 59 * (STEP + 1)
    assert fleet.total(Figure.KNOWN) == known
    assert fleet.total(Figure.ESTIMATED_MJ) == sum([round(300 * (STEP + 1) * 1e-6)] * 59)
    held = {holder: figures for (_, _, holder), figures in fleet.cells().items()}
    assert set(held) == {("ml", f"pod-{number}") for number in (1, 2, 3)}
    assert sorted(figures[Figure.KNOWN] for figures in held.values()) == [
        59 * STEP // 3,
        59 * STEP // 3,
        59 * (STEP // 3 + 1),
    ]
    assert held["ml", "pod-1"][Figure.IDLE] == 0
    assert held["ml", "pod-2"][Figure.IDLE] == 0  # a third of half an hour is no quarter of an hour


def test_one_block_may_have_several_pods_of_a_gpu() -> None:
    fleet = Fleet()
    pods = ["a"] * 5 + ["b"] * 5 + [""] * 5 + ["a"] * 5
    fleet.send(
        [
            (gpu_of(namespace="ml" if pod else "", pod=pod), START + at * STEP, {UTIL: 50.0})
            for at, pod in enumerate(pods)
        ]
    )
    held = {holder: figures[Figure.KNOWN] for (_, _, holder), figures in fleet.cells().items()}
    assert held == {("ml", "a"): 9 * STEP, ("ml", "b"): 5 * STEP, FREE: 5 * STEP}
    assert fleet.cells() == fleet.reckoning.cells()


def test_what_the_meter_cannot_read_is_an_error() -> None:
    with pytest.raises(MeterStateError, match="cannot be read"):
        UsageMeter.load(b"nonsense")
    assert UsageMeter.load(b"").open_hours() == []


def random_fleet(rng: random.Random) -> Fleet:
    """Some GPUs of every kind for two or three hours: gaps, resets, missing metrics, pods that come and go, repeats, late data."""
    fleet = Fleet()
    kinds = rng.choices(("plain", "plain", "mig", "shared", "mig and shared"), k=rng.randint(1, 3))
    time = START + rng.randrange(HOUR)
    energy = [rng.randrange(10**10) for _ in kinds]
    pods = [("ml", f"pod-{number}") for number in range(3)] + [("", "")]
    owner = [rng.choice(pods) for _ in kinds]
    load = [rng.choice((0.0, 4.9, 5.0, 7.0, 10.0, 60.0)) for _ in kinds]
    step = rng.choice((10, 30, 60)) * SECOND
    old: list[list[tuple[Gpu, int, dict[str, float]]]] = []
    waiting: list[tuple[Gpu, int, dict[str, float]]] = []
    for _ in range(rng.randint(20, 150)):
        time += step * rng.choice((1,) * 12 + (2, 3, 4)) + rng.choice((0, 0, 1, 7 * SECOND))
        if rng.random() < 0.02:
            time += rng.choice((20 * MINUTE, HOUR, 5 * HOUR, 30 * HOUR))
        points: list[tuple[Gpu, int, dict[str, float]]] = []
        for at, kind in enumerate(kinds):
            if rng.random() < 0.03:
                continue
            if rng.random() < 0.05:
                owner[at] = rng.choice(pods)
            if rng.random() < 0.08:
                load[at] = rng.choice((0.0, 4.9, 5.0, 7.0, 10.0, 60.0))
            energy[at] = rng.randrange(1000) if rng.random() < 0.02 else energy[at] + rng.randrange(20_000_000)
            values = {
                UTIL: load[at],
                ENGINE: load[at] / 100,
                SM: rng.random(),
                POWER: rng.uniform(60, 700),
                ENERGY: float(energy[at]),
                LIMIT: 700.0,
            }
            values = {name: value for name, value in values.items() if rng.random() < 0.9}
            namespace, pod = owner[at]
            place = {"hostname": "node-9"} if rng.random() < 0.01 else {}
            whole = gpu_of(at, **place)
            if kind == "plain":
                points.append((gpu_of(at, namespace=namespace, pod=pod, **place), time, values))
            if "mig" in kind:
                for number in rng.sample((0, 1, 2), rng.choice((3, 3, 3, 2))):
                    own = rng.choice(pods) if rng.random() < 0.03 else pods[number] if number < 2 else ("", "")
                    part = gpu_of(at, mig_id=str(number), namespace=own[0], pod=own[1], **place)
                    if kind == "mig and shared" and number == 2:
                        part = gpu_of(at, mig_id="2", **place)
                        points.append(
                            (gpu_of(at, mig_id="2", namespace="ml", pod="guest", share=True, **place), time, {})
                        )
                    points.append((part, time, {**values, ENGINE: rng.choice((0.0, 0.02, 0.5))}))
            if kind == "shared":
                points.append((whole, time, values))
                for number in range(rng.choice((0, 1, 2, 2, 2))):
                    share = gpu_of(at, namespace="ml", pod=f"guest-{number}", share=True, **place)
                    points.append((share, time, {}))
        if points and rng.random() < 0.1:
            # One sample in two messages.
            half = [
                (gpu, at, {name: value for name, value in read.items() if name in (UTIL, POWER)})
                for gpu, at, read in points
            ]
            fleet.send(half)
        waiting += points
        if waiting and rng.random() < 0.7:
            fleet.send(waiting)
            old.append(waiting)
            waiting = []
        if old and rng.random() < 0.05:
            fleet.send(rng.choice(old))
        if rng.random() < 0.1:
            fleet.reload()
        if rng.random() < 0.05:
            fleet.closed += fleet.meter.closed()
    return fleet


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32))
def test_the_meter_agrees_with_a_plain_reckoning(seed: int) -> None:
    fleet = random_fleet(random.Random(seed))
    assert fleet.cells() == fleet.reckoning.cells()


def test_readings_over_more_than_a_hundred_days_count_in_their_newest_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.usage.meter.MOST_HOURS", 5)
    fleet = Fleet()
    fleet.send([(Gpu(uuid="G"), START + number * HOUR, {UTIL: 50.0}) for number in range(20)])
    assert [period.start_ns for period in fleet.meter.open_hours()] == [
        START + number * HOUR for number in range(14, 19)
    ]


def test_a_sample_says_nothing_of_more_than_a_day() -> None:
    fleet = Fleet()
    years = 365 * 24 * HOUR
    fleet.send(
        [(Gpu(uuid=f"G{number}"), START + each * years, {UTIL: 50.0}) for number in range(3) for each in range(4)]
    )
    known = [int(period.figures[Figure.KNOWN].sum()) for period in fleet.meter.open_hours()]
    assert sum(known) == 3 * 3 * 24 * HOUR


def test_places_that_a_gpu_has_left_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.usage.meter._UNUSED_PLACES", 10)
    fleet, plain = Fleet(), Fleet()
    for number in range(40):
        gpu = Gpu(uuid="G", hostname=f"node-{number}", model_name="H100")
        for each in (fleet, plain):
            each.send([(gpu, START + number * HOUR, {UTIL: 50.0}), (gpu, START + number * HOUR + STEP, {UTIL: 50.0})])
        fleet.closed += fleet.meter.closed()
        fleet.meter = UsageMeter.load(fleet.meter.dump())
    assert len(fleet.meter._places) <= 10
    assert cells_of([*fleet.closed, *fleet.meter.open_hours()]) == cells_of(plain.meter.open_hours())
    assert fleet.meter.boards() == plain.meter.boards()


def test_only_so_many_instances_and_pods_hold_a_board() -> None:
    fleet = Fleet()
    crowd = [Gpu(uuid="G", mig_id=str(number), pod=f"p{number}", namespace="n") for number in range(MOST_LANES + 20)]
    for number in range(3):
        fleet.send([(each, START + number * STEP, {UTIL: 50.0}) for each in (Gpu(uuid="G"), *crowd)])
    (period,) = fleet.meter.open_hours()
    assert len(period.holders) == MOST_LANES
    assert int(period.figures[Figure.KNOWN].sum()) == 2 * STEP
