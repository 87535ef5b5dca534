"""What a condition can ask of the new points of a block: values, growth, numbers of the rule, the rest of the fleet."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from health.engine.growth import RESET_BELOW, GrowthLog, seconds
from health.engine.intake import Arrivals, Floats, Intake
from health.engine.registry import GAP_STEPS, Ints, Mask
from health.rules.model import Rule
from readings.catalogue import whole_of
from readings.times import SECOND

# A value of another metric counts for a point when it is at most so old, or three steps.
FRESH_NS = 60 * SECOND
_Statistic = Callable[[str, str], Floats]


class PointView:
    """The new points of a block, with what was known before. Every answer is float64 (or bool), one for each point.

    NaN is unknown. The answers are computed once for all rules; ``of`` sets the rule whose numbers ``setting`` gives.
    """

    def __init__(self, intake: Intake, arrivals: Arrivals, growth: GrowthLog, statistic: _Statistic) -> None:
        self._intake = intake
        self._arrivals = arrivals
        self._growth = growth
        self._statistic = statistic
        self._known: dict[tuple[str, str, float], Floats] = {}
        self._rule: Rule | None = None
        self._parts: dict[str, list[int]] = {}
        for number, name in enumerate(arrivals.names):
            self._parts.setdefault(whole_of(name), []).append(number)

    def of(self, rule: Rule) -> PointView:
        """The same points, for this rule."""
        self._rule = rule
        return self

    def has(self, metric: str) -> bool:
        """Whether the block has the metric, or parts of it."""
        return metric in self._parts

    def is_new(self, metrics: tuple[str, ...]) -> Mask:
        """Which points have a new reading of any of these metrics."""
        numbers = [number for metric in metrics for number in self._parts.get(metric, ())]
        if not numbers:
            return np.zeros(len(self._arrivals), np.bool_)
        return np.asarray(~np.isnan(self._arrivals.points[numbers]).all(axis=0), np.bool_)

    def value(self, metric: str) -> Floats:
        """The point's reading, or else the newest one before it if that is fresh. Of a metric in parts the largest counts."""
        return self._once("value", metric, self._value)

    def lowest(self, metric: str) -> Floats:
        """The lowest of the metric's parts at the point; NaN where it has no reading."""
        return self._once("lowest", metric, self._lowest)

    def age(self, metric: str) -> Floats:
        """Seconds since the last reading of the metric; 0 where the point has one."""
        return self._once("age", metric, self._age)

    def increase(self, metric: str) -> Floats:
        """By how much the counter, or the sum of its parts, grew since its reading before. After a reset it grew from 0."""
        return self._once("increase", metric, self._increase)

    def seconds(self, metric: str) -> Floats:
        """Seconds between the point's reading and the one before; NaN where either is missing."""
        return self._once("seconds", metric, self._seconds)

    def windowed(self, metric: str, window_s: float) -> Floats:
        """By how much the counter grew in the last ``window_s`` seconds; NaN where it has no reading before this one.

        Where another message had its newest reading, it is what was known then.
        """
        key = ("windowed", metric, window_s)
        if key not in self._known:
            increases = self.increase(metric)
            grown = self._growth.within(metric, self._arrivals.rows, self._arrivals.times_ns, int(window_s * SECOND))
            elsewhere = np.isnan(self._own(metric)) & ~np.isnan(self._before(metric)[0])
            self._known[key] = np.where(np.isnan(increases) & ~elsewhere, np.nan, grown)
        return self._known[key]

    def setting(self, name: str) -> Floats | float:
        """A number of the rule, by the models of the GPUs where it differs by model."""
        rule = self._rule
        if rule is None:
            raise LookupError(f"no rule was chosen, so {name} is no number")
        if not rule.models:
            return float(rule.settings[name])
        gpus = self._intake.registry.gpus
        by_model = {model: rule.setting(name, model) for model in {gpus[row].model for row in self._rows}}
        return np.array([by_model[gpus[row].model] for row in self._rows])

    def held(self) -> Mask:
        """Which points are of GPUs that a pod has."""
        return self._intake.registry.held[self._arrivals.rows]

    def model_median(self, metric: str) -> Floats:
        """The median over the busy GPUs of the same model; NaN where too few are known."""
        return self._once("median", metric, lambda name: self._statistic("model_median", name)[self._arrivals.rows])

    def model_p90(self, metric: str) -> Floats:
        """The 90th percentile over the busy GPUs of the same model; NaN where too few are known."""
        return self._once("p90", metric, lambda name: self._statistic("model_p90", name)[self._arrivals.rows])

    def note_growth(self, metric: str, keep_ns: int) -> None:
        """Record the growth of a metric that rules look at over a window. Call it once, before the rules."""
        if self.has(metric):
            arrivals = self._arrivals
            self._growth.add(metric, arrivals.rows, arrivals.times_ns, self.increase(metric), keep_ns)

    @cached_property
    def _rows(self) -> list[int]:
        return list(self._arrivals.rows.tolist())

    @cached_property
    def _fresh_ns(self) -> Ints:
        steps = self._intake.registry.step_ns[self._arrivals.rows]
        return np.maximum(FRESH_NS, GAP_STEPS * steps)

    def _once(self, question: str, metric: str, answer: Callable[[str], Floats]) -> Floats:
        key = (question, metric, 0.0)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = answer(metric)
        return known

    def _before(self, metric: str) -> tuple[Floats, Ints]:
        """The newest reading before each point, and its time, whether the block has the metric or not."""
        numbers = self._parts.get(metric)
        if numbers:
            values, times = self._arrivals.before[numbers], self._arrivals.before_ns[numbers]
            if len(numbers) == 1:
                return values[0], times[0]
            return np.fmax.reduce(values, axis=0), times.max(axis=0)
        column = self._intake.table.columns.get(metric)
        rows = self._arrivals.rows
        if column is None or column >= len(self._intake.table.values):
            return np.full(len(rows), np.nan), np.zeros(len(rows), np.int64)
        return self._intake.table.values[column, rows], self._intake.table.times_ns[column, rows]

    def _own(self, metric: str) -> Floats:
        numbers = self._parts.get(metric)
        if not numbers:
            return np.full(len(self._arrivals), np.nan)
        points = self._arrivals.points
        return np.asarray(points[numbers[0]] if len(numbers) == 1 else np.fmax.reduce(points[numbers], axis=0))

    def _lowest(self, metric: str) -> Floats:
        numbers = self._parts.get(metric)
        if not numbers:
            return np.full(len(self._arrivals), np.nan)
        own = np.fmin.reduce(self._arrivals.points[numbers], axis=0)
        # A point with many parts comes in several messages: what the others had at it, or at the sample before, counts too.
        table, arrivals = self._intake.table, self._arrivals
        others = [
            column
            for name, column in table.columns.items()
            if ":" in name and name not in arrivals.number_of and whole_of(name) == metric
        ]
        if not others:
            return np.asarray(own)
        lowest = own
        for column in others:  # one by one: a message may have many points of one part
            is_later = table.times_ns[column, arrivals.rows] >= arrivals.newest_ns
            lowest = np.fmin(lowest, np.where(is_later, table.values[column, arrivals.rows], np.nan))
        return np.where(np.isnan(own), np.nan, lowest)

    def _value(self, metric: str) -> Floats:
        own = self._own(metric)
        missing = np.isnan(own)
        if not missing.any():
            return own
        before, before_ns = self._before(metric)
        fresh = self._arrivals.times_ns - before_ns <= self._fresh_ns
        return np.where(missing & fresh, before, own)

    def _age(self, metric: str) -> Floats:
        _, before_ns = self._before(metric)
        since = np.where(before_ns > 0, seconds(self._arrivals.times_ns - before_ns), np.nan)
        return np.where(np.isnan(self._own(metric)), since, 0.0)

    def _increase(self, metric: str) -> Floats:
        numbers = self._parts.get(metric)
        if not numbers:
            return np.full(len(self._arrivals), np.nan)
        now, before = self._arrivals.points[numbers], self._arrivals.before[numbers]
        grown = np.where(now >= RESET_BELOW * before, np.maximum(now - before, 0), now)
        grown[np.isnan(before)] = np.nan
        if len(numbers) == 1:
            return np.asarray(grown[0], np.float64)
        return np.where(np.isnan(grown).all(axis=0), np.nan, np.nansum(grown, axis=0))

    def _seconds(self, metric: str) -> Floats:
        numbers = self._parts.get(metric)
        if not numbers:
            return np.full(len(self._arrivals), np.nan)
        before_ns = self._arrivals.before_ns[numbers].max(axis=0)
        there = ~np.isnan(self._own(metric)) & (before_ns > 0)
        return np.where(there, seconds(self._arrivals.times_ns - before_ns), np.nan)
