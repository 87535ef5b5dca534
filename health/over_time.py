"""How many events were ongoing when, and which rules had most, over a range of time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from health.queries import MARKS, SeverityCounts

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAR = np.iinfo(np.int64).max


class EventSpan(NamedTuple):
    """When an event was ongoing; one without an end still is."""

    rule: str
    severity: str
    opened: datetime
    closed: datetime | None


class RuleTotal(NamedTuple):
    """What one rule had in a range: its worst severity, events, and how long they held within it together, in µs."""

    rule: str
    severity: str
    events: int
    duration_us: int


@dataclass(frozen=True)
class EventSpans:
    """Many spans in arrays: row ``i`` of each is one event. Times are µs since 1970."""

    rules: tuple[str, ...]
    rule: NDArray[np.int32]
    mark: NDArray[np.int8]  # of MARKS: 1 is the worst
    opened_us: NDArray[np.int64]
    closed_us: NDArray[np.int64]

    @classmethod
    def of(cls, spans: Iterable[EventSpan]) -> EventSpans:
        """These spans."""
        rows = list(spans)
        rules = tuple(sorted({span.rule for span in rows}))
        place = {rule: number for number, rule in enumerate(rules)}
        return cls(
            rules,
            np.array([place[span.rule] for span in rows], np.int32),
            np.array([MARKS[span.severity] for span in rows], np.int8),
            np.array([_us(span.opened) for span in rows], np.int64),
            np.array([_FAR if span.closed is None else _us(span.closed) for span in rows], np.int64),
        )

    def over_time(self, origin_us: int, every_us: int, windows: int) -> list[SeverityCounts]:
        """For each window from ``origin_us`` on, how many events were ongoing at some time in it; those of a moment never were."""
        end_us = origin_us + windows * every_us
        there = (self.opened_us < end_us) & (self.closed_us >= origin_us) & (self.closed_us > self.opened_us)
        first = np.maximum(self.opened_us[there] - origin_us, 0) // every_us
        last = (np.minimum(self.closed_us[there], end_us - 1) - origin_us) // every_us
        counts = np.zeros((len(MARKS), windows), np.int64)
        for mark in MARKS.values():
            of_mark = self.mark[there] == mark
            begun = np.bincount(first[of_mark], minlength=windows + 1)
            ended = np.bincount(last[of_mark] + 1, minlength=windows + 1)
            counts[mark - 1] = np.cumsum(begun - ended)[:windows]
        return [SeverityCounts(*each) for each in counts.T.tolist()]

    def top(self, start_us: int, end_us: int, most: int) -> list[RuleTotal]:
        """The rules with most events in [start, end), most first; of as many the ones that held longest."""
        there = (self.opened_us < end_us) & (self.closed_us >= start_us)
        rule = self.rule[there]
        held = np.minimum(self.closed_us[there], end_us) - np.maximum(self.opened_us[there], start_us)
        counts = np.bincount(rule, minlength=len(self.rules))
        # Whole numbers: a sum of floats would lose microseconds of a long range.
        durations = np.zeros(len(self.rules), np.int64)
        np.add.at(durations, rule, np.maximum(held, 0))
        worst = np.full(len(self.rules), len(MARKS), np.int8)
        np.minimum.at(worst, rule, self.mark[there])
        severities: Sequence[str] = list(MARKS)
        totals = [
            RuleTotal(name, str(severities[mark - 1]), count, duration)
            for name, mark, count, duration in zip(
                self.rules, worst.tolist(), counts.tolist(), durations.tolist(), strict=True
            )
            if count
        ]
        return sorted(totals, key=lambda total: (-total.events, -total.duration_us, total.rule))[:most]


def _us(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
