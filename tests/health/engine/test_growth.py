"""Growth of counters over a window."""

from __future__ import annotations

import random

import numpy as np
import pytest

from health.engine.growth import GrowthLog
from readings.times import SECOND
from tests.health.engine.building import HOUR, MINUTE, START


def test_what_grew_within_a_window_counts_and_the_rest_is_forgotten() -> None:
    log = GrowthLog()
    rows = np.array([0, 1], np.int32)
    for minute in range(0, 30, 10):
        times = np.array([START + minute * MINUTE] * 2, np.int64)
        log.add("m", rows, times, np.array([2.0, np.nan]), HOUR)
    assert log.within("m", rows, times, 10 * MINUTE).tolist() == [2.0, 0.0]
    assert log.within("m", rows, times, 11 * MINUTE).tolist() == [4.0, 0.0]
    assert log.within("other", rows, times, HOUR).tolist() == [0.0, 0.0]
    again = GrowthLog()
    again.restore([(metric, row, list(steps)) for (metric, row), steps in log.steps.items()])
    assert again.steps == log.steps
    log.expire(START + 10 * HOUR, {"m": HOUR})
    assert log.steps == {}


def test_many_points_of_one_counter_have_the_sum_of_their_own_windows() -> None:
    chance = random.Random(3)
    for fraction in (0.0, 0.37):
        log, expected = GrowthLog(), []
        times = START + np.cumsum([chance.choice((1, 20, 90)) for _ in range(500)]) * SECOND
        steps = np.array([chance.choice((np.nan, 1.0, 7.0)) + fraction for _ in times])
        row = np.zeros(len(times), np.int32)
        # Those of another part come out of order.
        for part in (slice(1, None, 2), slice(0, None, 2)):
            log.add("m", row[part], times[part], steps[part], 100 * HOUR)
        for end in times.tolist():
            inside = (times > end - 10 * MINUTE) & (times <= end)
            expected.append(float(np.nansum(steps[inside])))
        assert log.within("m", row, times, 10 * MINUTE) == pytest.approx(expected, abs=1e-9)
