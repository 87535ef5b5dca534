"""How far counters grew lately: for rules that count errors over some minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from health.engine.intake import Floats
from health.engine.registry import Ints, Rows
from readings.times import SECOND

# Two exporters of one GPU, or a late answer of its driver, can show a counter a little lower: a reset sets it back below this share.
RESET_BELOW = 0.99
_MOST_STEPS = 4096
# Below this float64 adds whole numbers without rounding.
_EXACT = 2.0**53


class Growth(NamedTuple):
    """A counter grew by ``by`` at ``at_ns``."""

    at_ns: int
    by: float


class GrowthLog:
    """The steps in which counters of GPUs grew, for as long as any rule looks back. Most error counters never grow."""

    def __init__(self) -> None:
        self.steps: dict[tuple[str, int], deque[Growth]] = {}

    def add(self, metric: str, rows: Rows, times_ns: Ints, increases: Floats, keep_ns: int) -> None:
        """Note the increases (NaN: none known) of the metric's counters at these points."""
        for at in np.flatnonzero(increases > 0).tolist():
            steps = self.steps.setdefault((metric, int(rows[at])), deque(maxlen=_MOST_STEPS))
            steps.append(Growth(int(times_ns[at]), float(increases[at])))
            while steps[0].at_ns <= times_ns[at] - keep_ns:
                steps.popleft()

    def within(self, metric: str, rows: Rows, times_ns: Ints, window_ns: int) -> Floats:
        """How far each point's counter grew in the window that ends with the point."""
        grown = np.zeros(len(rows))
        if not self.steps or not len(rows):
            return grown
        starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
        ends = np.append(starts[1:], len(rows))
        for start, end, row in zip(starts.tolist(), ends.tolist(), rows[starts].tolist(), strict=True):
            steps = self.steps.get((metric, row))
            if steps:
                grown[start:end] = _sums(steps, times_ns[start:end], window_ns)
        return grown

    def restore(self, steps: list[tuple[str, int, list[Growth]]]) -> None:
        """Take over the steps of another log."""
        self.steps = {(metric, row): deque(each, maxlen=_MOST_STEPS) for metric, row, each in steps}

    def expire(self, now_ns: int, keep_ns: Mapping[str, int]) -> None:
        """Forget steps that no rule looks at any more: ``keep_ns`` has how long a metric's are kept."""
        self.steps = {
            key: steps
            for key, steps in self.steps.items()
            if steps and steps[-1].at_ns > now_ns - keep_ns.get(key[0], 0)
        }


def _sums(steps: Collection[Growth], times_ns: Ints, window_ns: int) -> Floats:
    """For each time the sum of the steps in the window that ends with it."""
    # Parts of a metric may come in several messages, and their steps out of order.
    at_ns, by = (np.array(column) for column in zip(*sorted(steps, key=_time_of), strict=True))
    first = np.searchsorted(at_ns, times_ns - window_ns, "right")
    last = np.searchsorted(at_ns, times_ns, "right")
    if by.sum() < _EXACT and not np.mod(by, 1).any():
        upto = np.concatenate([[0.0], np.cumsum(by)])
        return np.asarray(upto[last] - upto[first], np.float64)
    return np.array([by[begin:end].sum() for begin, end in zip(first.tolist(), last.tolist(), strict=True)], np.float64)


def _time_of(step: Growth) -> int:
    return step.at_ns


def seconds(ns: Ints) -> Floats:
    """Nanoseconds as seconds."""
    return np.asarray(ns / SECOND, np.float64)
