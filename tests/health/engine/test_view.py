"""What conditions see of new points."""

from __future__ import annotations

import numpy as np
import pytest

from health.engine.growth import GrowthLog
from health.engine.intake import Floats, Intake
from health.engine.view import PointView
from health.rules.model import Rule
from readings.model import PointBlock
from readings.times import SECOND
from tests.health.engine.building import HOUR, REPLAYS, START, TEMP, UTIL, gpu

LINK = "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"


def nothing_usual(function: str, metric: str) -> Floats:
    return np.full(10, np.nan)


def see(intake: Intake, at: float, values: dict[str, float | None]) -> PointView:
    block = PointBlock([gpu(0)], list(values), [(0, START + round(at * SECOND), list(values.values()))])
    arrivals = intake.take(block, source="s", live=True, received_ns=START + HOUR)
    assert arrivals is not None
    view = PointView(intake, arrivals, GrowthLog(), nothing_usual)
    intake.keep(arrivals)
    return view


def test_a_value_of_another_message_counts_while_it_is_fresh() -> None:
    intake = Intake([UTIL, TEMP])
    see(intake, 0, {UTIL: 50.0})
    assert see(intake, 30, {TEMP: 40.0}).value(UTIL).tolist() == [50.0]
    late = see(intake, 500, {TEMP: 40.0})
    assert np.isnan(late.value(UTIL)).tolist() == [True]
    assert late.age(UTIL).tolist() == [500.0]
    assert np.isnan(late.model_median(UTIL)).tolist() == [True]


def test_growth_is_that_of_all_parts() -> None:
    intake = Intake([LINK, REPLAYS])
    first = see(intake, 0, {f"{LINK}:nvlink:0": 5.0, f"{LINK}:nvlink:1": 7.0, REPLAYS: 1.0})
    assert np.isnan(first.increase(LINK)).tolist() == [True]
    assert first.value(LINK).tolist() == [7.0]
    second = see(intake, 10, {f"{LINK}:nvlink:0": 6.0, f"{LINK}:nvlink:1": 2.0, REPLAYS: 1.0})
    assert second.increase(LINK).tolist() == [3.0]
    assert second.seconds(LINK).tolist() == [10.0]
    assert second.increase(REPLAYS).tolist() == [0.0]
    assert np.isnan(second.increase(TEMP)).tolist() == [True]


def test_numbers_are_those_of_the_rule_and_of_the_model() -> None:
    intake = Intake([UTIL])
    view = see(intake, 0, {UTIL: 50.0})
    with pytest.raises(LookupError):
        view.setting("limit")
    plain = Rule("r", "r", "r", "condition", "gpu", "warning", "none", settings={"limit": 5.0})
    by_model = Rule(
        "r", "r", "r", "condition", "gpu", "warning", "none", settings={"limit": 5.0}, models={"H100": {"limit": 7.0}}
    )
    assert view.of(plain).setting("limit") == 5.0
    assert np.asarray(view.of(by_model).setting("limit")).tolist() == [7.0]


def test_the_lowest_of_a_metrics_parts() -> None:
    state = "DCGM_FI_DEV_NVLINK_GET_STATE"
    intake = Intake([state, UTIL])
    view = see(intake, 0, {f"{state}:nvlink:0": 1.0, f"{state}:nvlink:1": 0.0, UTIL: 3.0})
    assert view.lowest(state).tolist() == [0.0]
    assert view.value(state).tolist() == [1.0]
    assert view.lowest(UTIL).tolist() == [3.0]
    assert np.isnan(view.lowest(TEMP)).tolist() == [True]


def test_the_lowest_counts_the_parts_that_came_in_another_message() -> None:
    state = "DCGM_FI_DEV_NVLINK_GET_STATE"
    intake = Intake([state])
    see(intake, 0, {f"{state}:nvlink:0": 1.0})
    see(intake, 0, {f"{state}:nvlink:1": 1.0})
    assert see(intake, 30, {f"{state}:nvlink:0": 0.0}).lowest(state).tolist() == [0.0]
    assert see(intake, 30, {f"{state}:nvlink:1": 1.0}).lowest(state).tolist() == [0.0]
    assert see(intake, 60, {f"{state}:nvlink:0": 1.0}).lowest(state).tolist() == [1.0]


def test_growth_is_known_at_a_message_without_the_counter() -> None:
    intake = Intake([REPLAYS, UTIL])
    assert np.isnan(see(intake, 0, {UTIL: 1.0}).windowed(REPLAYS, 60)).tolist() == [True]
    see(intake, 30, {REPLAYS: 5.0})
    assert see(intake, 30, {UTIL: 1.0}).windowed(REPLAYS, 60).tolist() == [0.0]


def test_a_counter_that_is_a_little_lower_did_not_grow() -> None:
    intake = Intake([REPLAYS])
    see(intake, 0, {REPLAYS: 5000.0})
    assert see(intake, 10, {REPLAYS: 4999.0}).increase(REPLAYS).tolist() == [0.0]
    assert see(intake, 20, {REPLAYS: 40.0}).increase(REPLAYS).tolist() == [40.0]
