"""Growth of counters over a window."""

from __future__ import annotations

import numpy as np

from health.engine.growth import GrowthLog
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
