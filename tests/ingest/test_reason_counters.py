"""Each kind of reason is a counter of its own."""

from __future__ import annotations

from ingest.reason_counters import counters_by_kind
from readings.checks import BLANK, NOT_UTF8


def test_refused_and_remarked_readings_are_counted_apart_by_reason() -> None:
    found = {
        metric.name: [(sample.labels["reason"], sample.value) for sample in metric.samples]
        for metric in counters_by_kind("p_", {BLANK: 3, NOT_UTF8: 1})
    }
    assert found["p_readings_refused"] == [(BLANK, 3)]
    assert found["p_readings_remarked"] == [(NOT_UTF8, 1)]
    assert found["p_readings_passed_over"] == []
