"""The meter over real readings and over a simulated week, against the plain reckoning."""

from __future__ import annotations

import random
from pathlib import Path

from health.usage.packing import FREE, Figure
from ingest.simulator.fleet import HEALTH_METRICS, FleetShape, SimFleet
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND
from tests.api.test_fleet import capture_block
from tests.health.usage.reckoning import ENGINE, NAMES, POWER, UTIL, Cells
from tests.health.usage.test_meter import Fleet

DAY_S = 86_400


class Both(Fleet):
    """Feeds blocks; the meter is dumped, loaded and emptied now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(3)

    def take(self, block: PointBlock) -> None:
        """One block."""
        arrivals = self.intake.take(block, source="test", live=False, received_ns=0)
        if arrivals is None:
            return
        self.intake.keep(arrivals)
        self.meter.take(arrivals, self.intake.registry)
        self.reckoning.take(arrivals, self.intake.registry)
        if self.rng.random() < 0.02:
            self.reload()
            self.closed += self.meter.closed()


def known(cells: Cells, figure: Figure) -> int:
    return sum(figures[figure] for figures in cells.values())


def test_the_real_capture_looped_for_ten_minutes(real_capture: Path) -> None:
    whole = capture_block(real_capture)
    start = min(time for _, time, _ in whole.points)
    both = Both()
    for loop in range(60):
        points = [(gpu, start + loop * 10 * SECOND, values) for gpu, _, values in whole.points]
        both.take(PointBlock(whole.gpus, whole.metric_names, points))
    cells = both.cells()
    assert cells == both.reckoning.cells()
    gpus = len({gpu.id for gpu in whole.gpus})
    assert gpus == 247
    # It has no pods: all time is free, and the energy is an estimate, because it has no energy counters.
    assert known(cells, Figure.KNOWN) == gpus * 590 * SECOND
    assert {holder for _, _, holder in cells} == {FREE}
    power = whole.metric_names.index(POWER)
    watts = {whole.gpus[gpu].id: values[power] for gpu, _, values in whole.points if values[power] is not None}
    assert known(cells, Figure.ESTIMATED_MJ) == sum(59 * round((watt or 0) * 10_000) for watt in watts.values())


def test_a_simulated_week() -> None:
    fleet = SimFleet(FleetShape(hosts=2, gpus_per_host=4, metrics=HEALTH_METRICS, seed=11))
    both, rng = Both(), random.Random(5)
    start, step_s = 1_800_000_000, 240
    silent_until: dict[str, int] = {}
    for at_s in range(start, start + 7 * DAY_S, step_s):
        fleet.step(float(step_s))
        for host in fleet.hosts:
            if rng.random() < 0.005:
                silent_until[host.name] = at_s + rng.randrange(3 * 3600)
            if silent_until.get(host.name, 0) > at_s:
                continue
            values_of: dict[str, dict[str, float]] = {}
            gpus: dict[str, Gpu] = {}
            for gpu, name, value in fleet.readings(host):
                gpus[gpu.id] = gpu
                values_of.setdefault(gpu.id, {})[name] = value
            # Jobs of the simulator work. These hold a GPU and sleep now and then.
            for gpu_id in list(values_of)[:2]:
                if at_s // 3600 % 5 < 2:
                    values_of[gpu_id] |= {UTIL: 0.0, ENGINE: 0.0}
            names = [name for name in NAMES if any(name in values for values in values_of.values())]
            points: list[Point] = [
                (at, at_s * SECOND, [values_of[gpu_id].get(name) for name in names]) for at, gpu_id in enumerate(gpus)
            ]
            both.take(PointBlock(list(gpus.values()), names, points))
    cells = both.cells()
    assert cells == both.reckoning.cells()
    held = {holder for _, _, holder in cells if not isinstance(holder, int)}
    assert len(held) > 20
    boards = both.meter.boards()
    # Held, free and unknown time are all the time, to the last digit.
    total = sum(board.last_ns - board.first_ns for board in boards)
    assert 0.9 * total < known(cells, Figure.KNOWN) < total
    assert known(cells, Figure.IDLE) > 0
    assert known(cells, Figure.COUNTED_MJ) > 0
