"""health.over_time: events in windows, and the rules with most, against a plain reckoning."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from health.over_time import EventSpan, EventSpans, RuleTotal
from health.queries import MARKS
from tests.health.building import NOON

MINUTE = timedelta(minutes=1)
MINUTE_US = 60_000_000
NOON_US = round(NOON.timestamp()) * 1_000_000


def span(first: float, last: float | None, rule: str = "temp_high", severity: str = "warning") -> EventSpan:
    """Minutes after noon."""
    return EventSpan(rule, severity, NOON + first * MINUTE, None if last is None else NOON + last * MINUTE)


def warnings(*spans: EventSpan, windows: int = 5) -> list[int]:
    return [counts.warning for counts in EventSpans.of(spans).over_time(NOON_US, MINUTE_US, windows)]


@pytest.mark.parametrize(
    ("spans", "counts"),
    [
        ([], [0, 0, 0, 0, 0]),
        ([span(1.5, 3.5)], [0, 1, 1, 1, 0]),
        ([span(1, 2)], [0, 1, 1, 0, 0]),  # its end is in the third window
        ([span(2, 2)], [0, 0, 0, 0, 0]),  # it was over at once
        ([span(-9, None)], [1, 1, 1, 1, 1]),
        ([span(-9, 0)], [1, 0, 0, 0, 0]),
        ([span(-9, -1), span(5, None), span(7, 8)], [0, 0, 0, 0, 0]),
        ([span(4.99, 900)], [0, 0, 0, 0, 1]),
        ([span(0, None), span(1.2, 1.3), span(1.4, 2.6)], [1, 3, 2, 1, 1]),
    ],
)
def test_an_event_counts_in_each_window_that_it_touches(spans: list[EventSpan], counts: list[int]) -> None:
    assert warnings(*spans) == counts


def test_severities_are_counted_apart() -> None:
    found = EventSpans.of([span(0, 1, severity=each) for each in MARKS] + [span(0, 0, severity="info")])
    assert found.over_time(NOON_US, MINUTE_US, 2) == [(1, 1, 1), (1, 1, 1)]


def test_the_top_has_counts_and_the_time_within_the_range() -> None:
    found = EventSpans.of(
        [
            span(-10, 2, "often"),
            span(3, 3, "often", "critical"),
            span(1, None, "long"),
            span(8, 9, "long"),
            span(11, 12, "later"),
            span(-3, -1, "before"),
            span(5, 6, "once", "info"),
        ]
    )
    end = NOON_US + 10 * MINUTE_US
    assert found.top(NOON_US, end, 9) == [
        RuleTotal("long", "warning", 2, 10 * MINUTE_US),
        RuleTotal("often", "critical", 2, 2 * MINUTE_US),
        RuleTotal("once", "info", 1, MINUTE_US),
    ]
    assert [total.rule for total in found.top(NOON_US, end, 1)] == ["long"]


def test_any_events_agree_with_a_plain_reckoning() -> None:
    rng, tick = random.Random(18), timedelta(microseconds=1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for _ in range(30):
        spans = []
        for _ in range(rng.randint(0, 60)):
            opened = start + timedelta(microseconds=rng.randint(-(10**9), 10**9))
            closed = (
                None
                if rng.random() < 0.2
                else opened + timedelta(microseconds=rng.choice([0, 1, rng.randint(0, 10**9)]))
            )
            spans.append(EventSpan(rng.choice("abc"), rng.choice(list(MARKS)), opened, closed))
        every, windows = rng.choice([1_000_000, 7_000_000, 60_000_000]), rng.randint(1, 40)
        origin = start + timedelta(microseconds=rng.randint(-(10**8), 10**8))
        origin_us = (origin - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        found = EventSpans.of(spans).over_time(origin_us, every, windows)
        for window, counts in enumerate(found):
            first = origin + timedelta(microseconds=window * every)
            last = first + timedelta(microseconds=every)
            plain = Counter(
                each.severity
                for each in spans
                if each.opened < last and (each.closed is None or each.closed >= max(first, each.opened + tick))
            )
            assert counts._asdict() == {severity: plain[severity] for severity in MARKS}
