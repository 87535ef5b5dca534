from __future__ import annotations

from broker.server.histogram import Histogram


def test_durations_are_counted_by_upper_bound() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.0001, 0.0002, 0.4, 99.0):
        histogram.add(seconds)
    rows = dict(histogram.cumulative())
    assert rows[0.0001] == 2
    assert rows[0.00025] == rows[0.1] == 3
    assert rows[0.5] == rows[2.5] == 4
    assert rows[float("inf")] == histogram.count == 5
    assert round(histogram.total, 4) == 99.4003
