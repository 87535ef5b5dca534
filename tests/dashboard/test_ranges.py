"""dashboard.ranges: the range that a URL asks for."""

from __future__ import annotations

import time

import pytest

from dashboard.ranges import range_of
from readings.times import SECOND, parse_time

NOW = parse_time("2026-01-02T03:04:05Z")


def test_a_preset_ends_at_the_anchor_else_now() -> None:
    shown = range_of({"range": "15m"}, NOW)
    assert (shown.preset, shown.end_ns, shown.end_ns - shown.start_ns) == ("15m", NOW, 900 * SECOND)
    before = time.time_ns()
    assert before <= range_of({}).end_ns <= time.time_ns()


def test_two_times_are_an_absolute_range() -> None:
    shown = range_of({"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T06:00:00Z", "range": "7d"}, NOW)
    assert (shown.preset, shown.start, shown.end) == ("", "2026-01-01T00:00:00Z", "2026-01-01T06:00:00Z")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"range": "soon"},
        {"range": "-1h"},
        {"start": "2026-01-01T00:00:00Z"},
        {"start": "today", "end": "tomorrow"},
        {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
    ],
)
def test_what_cannot_be_read_shows_the_last_hour(query: dict[str, str]) -> None:
    shown = range_of(query, NOW)
    assert (shown.preset, shown.end_ns - shown.start_ns) == ("1h", 3600 * SECOND)
