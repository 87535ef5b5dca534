"""Late, repeated and impossible readings do not reach the rules, and MIG instances repeat their board."""

from __future__ import annotations

import numpy as np
import pytest

from health.engine.intake import MOST_PART_COLUMNS, MOST_PARTS, Arrivals, Intake, NewestTable
from health.engine.registry import Registry
from readings.model import Gpu, PointBlock
from readings.times import SECOND
from tests.health.engine.building import START, TEMP, UTIL, gpu

NAMES = [UTIL, TEMP, "DCGM_FI_DEV_MEM_CLOCK"]


def take_any(
    intake: Intake, *points: tuple[Gpu, float, list[float | None]], live: bool = True, received: float = 1e6
) -> Arrivals | None:
    gpus = list({each.id + str(each.share): each for each, _, _ in points}.values())
    index = {each.id + str(each.share): number for number, each in enumerate(gpus)}
    block = PointBlock(
        gpus,
        NAMES,
        [(index[each.id + str(each.share)], START + round(at * SECOND), values) for each, at, values in points],
    )
    arrivals = intake.take(block, source="s", live=live, received_ns=START + round(received * SECOND))
    if arrivals is None:
        return None
    intake.keep(arrivals)
    return arrivals


def take(
    intake: Intake, *points: tuple[Gpu, float, list[float | None]], live: bool = True, received: float = 1e6
) -> Arrivals:
    arrivals = take_any(intake, *points, live=live, received=received)
    assert arrivals is not None
    return arrivals


def test_only_wanted_metrics_come_through_and_late_and_repeated_readings_do_not() -> None:
    intake = Intake([UTIL, TEMP])
    first = take(intake, (gpu(0), 10, [5.0, 40.0, 1.0]))
    assert first.names == (UTIL, TEMP)
    assert first.value(UTIL).tolist() == [5.0]
    assert take_any(intake, (gpu(0), 10, [5.0, 40.0, 1.0])) is None
    assert take_any(intake, (gpu(0), 9, [6.0, 41.0, 1.0])) is None
    # A part of the same point that was not there before is new.
    intake = Intake([UTIL, TEMP])
    take(intake, (gpu(0), 10, [5.0, None, None]))
    part = take(intake, (gpu(0), 10, [5.0, 40.0, None]))
    assert np.isnan(part.value(UTIL)).tolist() == [True]
    assert part.value(TEMP).tolist() == [40.0]


def test_a_block_with_several_times_of_a_gpu_knows_what_came_before_each() -> None:
    intake = Intake([UTIL])
    take(intake, (gpu(0), 0, [1.0, None, None]))
    arrivals = take(
        intake,
        (gpu(1), 20, [7.0, None, None]),
        (gpu(0), 30, [3.0, None, None]),
        (gpu(0), 10, [2.0, None, None]),
        (gpu(0), 20, [None, 50.0, None]),
    )
    assert arrivals.rows.tolist() == [0, 0, 0, 1]
    assert arrivals.before[0].tolist()[:1] == [1.0]
    assert arrivals.before[0].tolist()[2] == 2.0
    assert np.isnan(arrivals.before[0][3])
    assert arrivals.last.tolist() == [False, False, True, True]
    assert intake.table.values[intake.table.columns[UTIL], 0] == 3.0
    assert intake.registry.last_ns.tolist() == [START + 30 * SECOND, START + 20 * SECOND]


def test_times_of_a_clock_that_is_ahead_are_those_of_the_message() -> None:
    intake = Intake([UTIL])
    arrivals = take(intake, (gpu(0), 3600, [1.0, None, None]), received=10)
    assert arrivals.times_ns.tolist() == [START + 10 * SECOND]
    assert arrivals.ahead_ns == {"node-1": 3590 * SECOND}
    capture = take(Intake([UTIL]), (gpu(0), 3600, [1.0, None, None]), received=10, live=False)
    assert capture.times_ns.tolist() == [START + 3600 * SECOND]


def test_an_instance_has_its_own_metrics_and_its_boards_go_to_the_board() -> None:
    intake = Intake([UTIL, TEMP])
    parts = [gpu(0, mig_id="1", mig_profile="1g.10gb"), gpu(0, mig_id="2", mig_profile="1g.10gb")]
    arrivals = take(intake, *[(part, 10, [20.0 + number, 60.0, None]) for number, part in enumerate(parts)])
    registry = intake.registry
    board = registry.row_of["GPU-node-1-0"]
    values = {
        registry.gpus[row].id: (arrivals.value(UTIL)[at], arrivals.value(TEMP)[at])
        for at, row in enumerate(arrivals.rows.tolist())
    }
    assert values[f"{registry.gpus[board].uuid}"][1] == 60.0
    assert values["GPU-node-1-0:1"][0] == 20.0
    assert np.isnan(values["GPU-node-1-0:1"][1])
    assert registry.board.tolist() == [board] * 3


def test_pods_that_share_a_gpu_hold_it_until_they_are_gone() -> None:
    intake = Intake([UTIL])
    share = gpu(0, namespace="a", pod="p", share=True)
    for at in (0, 10, 20):
        arrivals = take(intake, (gpu(0), at, [1.0, None, None]), (share, at, [None, None, None]))
        assert len(arrivals) == 1
    assert intake.registry.held.tolist() == [True]
    for at in (30, 40, 50, 60, 70):
        take(intake, (gpu(0), at, [1.0, None, None]))
    assert intake.registry.held.tolist() == [False]


def test_the_usual_step_is_learned_and_outlives_a_gap_and_a_burst() -> None:
    registry = Registry(100)
    row = registry.row(gpu(0), "s", True)
    rows = np.array([row], np.int32)
    at = START
    for seconds in (10, 10, 10, 3600, 10, 10, 1, 10, 10, 10):
        at += seconds * SECOND
        registry.sample(rows, np.array([at], np.int64))
    assert 9 * SECOND <= registry.step_ns[0] <= 11 * SECOND
    for _ in range(20):
        at += 60 * SECOND
        registry.sample(rows, np.array([at], np.int64))
    assert registry.step_ns[0] == 60 * SECOND


def test_of_a_block_with_too_many_points_the_newest_of_each_gpu_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("health.engine.intake.MOST_POINTS", 10)
    intake = Intake([UTIL])
    few = [(gpu(0), at, [float(at), None, None]) for at in range(2)]
    many = [(gpu(1), at, [float(at), None, None]) for at in range(50)]
    arrivals = take(intake, *few, *many)
    assert arrivals.value(UTIL).tolist() == [0.0, 1.0, *(float(at) for at in range(42, 50))]
    assert intake.left_out == {"too_many_times": 42}
    # Of each GPU at least one.
    crowd = [(gpu(number), at, [1.0, None, None]) for number in range(20) for at in (60, 61)]
    arrivals = take(intake, *crowd)
    assert arrivals.rows.tolist() == list(range(20))
    assert {(each - START) // SECOND for each in arrivals.times_ns.tolist()} == {61}


def test_parts_of_one_metric_leave_room_for_those_of_others_and_for_whole_metrics() -> None:
    links, whole = "DCGM_FI_DEV_NVLINK_GET_STATE", "DCGM_FI_DEV_POWER_USAGE"
    errors = "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"
    wanted = [links, errors, whole, *(f"DCGM_FI_MADE_UP_{number}" for number in range(9))]
    intake = Intake(wanted)

    def names(*metrics: str) -> int:
        block = PointBlock([gpu(0)], list(metrics), [(0, START + len(intake.registry) * SECOND, [1.0] * len(metrics))])
        arrivals = intake.take(block, source="s", live=False, received_ns=START)
        return len(arrivals.names) if arrivals else 0

    assert names(*(f"{links}:nvlink:{number}" for number in range(600))) == MOST_PARTS
    assert names(f"{errors}:nvlink:0", whole) == 2
    for metric in wanted[3:]:
        names(*(f"{metric}:nvlink:{number}" for number in range(600)))
    assert intake.table.parts.total() == MOST_PART_COLUMNS
    assert names(*wanted[3:]) == 9
    again = NewestTable()
    again.restore(intake.table.columns)
    assert (again.columns, again.parts) == (intake.table.columns, intake.table.parts)
