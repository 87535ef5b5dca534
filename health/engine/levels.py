"""Rules with conditions: so many samples, for so long, to open; the same to close. What is unknown changes nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from health.engine.book import Book, Values
from health.engine.events import Entity, Key
from health.engine.intake import Arrivals
from health.engine.places import around, place_of
from health.engine.registry import GAP_STEPS, Ints, Mask, Registry
from health.engine.view import PointView
from health.rules.model import Level, Rule
from readings.times import SECOND

_MOST_IN_WINDOW = 4096
_FIRST_STEP_NS = 60_000_000_000


class Streak(msgspec.Struct):
    """Samples in a row: how many, the time that they span without its gaps, and the time of the last."""

    samples: int = 0
    spans_ns: int = 0
    last_ns: int = 0
    # Of a level that looks at a window: the samples in it that were so, and the time that each stands for.
    window: list[tuple[int, int]] = []

    def grow_within(self, at_ns: int, step_ns: int, within_ns: int) -> None:
        """One more sample in a window, which stands for one usual step."""
        if not self.window or self.window[-1][0] < at_ns:
            self.window.append((at_ns, step_ns))
            self.spans_ns += step_ns
        self.pass_by(at_ns, within_ns)

    def pass_by(self, at_ns: int, within_ns: int) -> None:
        """The window moves on: what left it counts no more."""
        over = bisect_right(self.window, at_ns - within_ns, key=_time_of)
        over = max(over, len(self.window) - _MOST_IN_WINDOW)
        if over:
            self.spans_ns -= sum(step for _, step in self.window[:over])
            del self.window[:over]
        self.samples = len(self.window)

    def grow(self, at_ns: int, longest_ns: int) -> None:
        """One more sample. A step longer than ``longest_ns`` is a gap, during which nothing is known."""
        if self.samples and at_ns == self.last_ns:
            return  # another part of the same point
        if self.samples and at_ns - self.last_ns <= longest_ns:
            self.spans_ns += at_ns - self.last_ns
        self.samples += 1
        self.last_ns = at_ns

    def end(self) -> None:
        """Start anew."""
        self.samples = self.spans_ns = 0

    def is_enough(self, samples: int, for_ns: int) -> bool:
        """Whether it is long enough."""
        return self.samples >= samples and self.spans_ns >= for_ns


def _time_of(sample: tuple[int, int]) -> int:
    return sample[0]


class Standing(msgspec.Struct):
    """How a GPU stands with a rule: a streak for each level of severity, and one of good samples while an event is open."""

    levels: list[Streak]
    good: Streak
    judged_ns: int = 0
    worst: int = -1  # the level of the open event, -1 without one


class _Judged(NamedTuple):
    """Where a level's condition holds, where it does not, and where the GPU is well again."""

    is_true: Mask
    is_false: Mask
    is_good: Mask

    def at(self, places: Ints) -> list[_Verdict]:
        """The verdicts at some points."""
        return list(map(_Verdict, *(mask[places].tolist() for mask in self)))


class _Verdict(NamedTuple):
    """The same of one point."""

    is_true: bool
    is_false: bool
    is_good: bool


class _JudgedPoint(NamedTuple):
    """A point that is judged: its place in the block, its GPU and time, and the usual step between its GPU's samples."""

    at: int
    row: int
    at_ns: int
    step_ns: int


def _judged(level: Level, view: PointView) -> _Judged:
    is_true, is_false = level.when.judge(view)
    return _Judged(is_true, is_false, is_false if level.until is None else level.until.judge(view)[0] & ~is_true)


def _since(holds: Mask, last: Mask) -> Mask:
    """Which points hold, or come after one of the same GPU that does. ``last`` marks the last point of each GPU."""
    if last.all():
        return holds
    places = np.arange(len(holds))
    starts = np.maximum.accumulate(np.where(np.concatenate([[True], last[:-1]]), places, 0))
    return np.asarray(np.maximum.accumulate(np.where(holds, places, -1)) >= starts, np.bool_)


class LevelJudge:
    """One rule with conditions. Keeps a standing only for GPUs that are not simply well."""

    def __init__(self, rule: Rule, registry: Registry, book: Book, resets: Mapping[int, int]) -> None:
        self.rule = rule
        self.standings: dict[int, Standing] = {}
        self._registry = registry
        self._book = book
        self._resets = resets
        self._settling_ns = int(rule.settings.get("after_reset_s", 0) * SECOND)
        self._active = np.zeros(registry.capacity, np.bool_)
        conditions = [each for level in rule.levels for each in (level.when, level.until) if each is not None]
        self._metrics = tuple(dict.fromkeys(name for each in conditions for name in each.metrics))

    def take(self, arrivals: Arrivals, view: PointView, most: int) -> tuple[int, int]:
        """Judge the new points. Returns how many were looked at one by one, ``most`` at the most, and how many more should have been."""
        if not any(view.has(metric) for metric in self._metrics):
            return 0, 0
        if len(self._active) < self._registry.capacity:
            self._active = np.concatenate(
                [self._active, np.zeros(self._registry.capacity - len(self._active), np.bool_)]
            )
        view = view.of(self.rule)
        judged = [_judged(level, view) for level in self.rule.levels]
        holds = np.zeros(len(arrivals), np.bool_)
        for each in judged:
            holds |= each.is_true
        # From a GPU's first point on that holds its later ones count too: they may end what began.
        looked_at = self._active[arrivals.rows] | _since(holds, arrivals.last)
        looked_at &= view.is_new(self._metrics)
        places = np.flatnonzero(looked_at)
        taken, left_out = places[:most], len(places) - min(len(places), most)
        rows = arrivals.rows[taken]
        columns = taken, rows, arrivals.times_ns[taken], self._registry.step_ns[rows]
        samples = map(_JudgedPoint, *(column.tolist() for column in columns))
        verdicts = zip(*(each.at(taken) for each in judged), strict=True)
        for sample, of_levels in zip(samples, verdicts, strict=True):
            self._step(sample, of_levels, view)
        return len(taken), left_out

    def _step(self, sample: _JudgedPoint, verdicts: tuple[_Verdict, ...], view: PointView) -> None:
        row, at_ns = sample.row, sample.at_ns
        standing = self.standings.get(row)
        if standing is None:
            standing = self.standings[row] = Standing([Streak() for _ in self.rule.levels], Streak())
            self._active[row] = True
        if at_ns < standing.judged_ns:
            return
        standing.judged_ns = at_ns
        longest_ns = GAP_STEPS * sample.step_ns or _FIRST_STEP_NS
        reached, holds, good, known = -1, False, True, False
        for number, (level, verdict) in enumerate(zip(self.rule.levels, verdicts, strict=True)):
            streak = standing.levels[number]
            if verdict.is_true:
                holds = True
                if level.within_ns:
                    streak.grow_within(at_ns, sample.step_ns, level.within_ns)
                else:
                    streak.grow(at_ns, longest_ns)
                if streak.is_enough(level.samples, level.for_ns):
                    reached = number
            elif level.within_ns:
                streak.pass_by(at_ns, level.within_ns)
            elif verdict.is_false:
                streak.end()
            good &= verdict.is_good
            known |= True in verdict
        if good and not holds:
            standing.good.grow(at_ns, longest_ns)
        elif known:
            standing.good.end()
        self._conclude(sample, standing, reached, holds, view)

    def _conclude(self, sample: _JudgedPoint, standing: Standing, reached: int, holds: bool, view: PointView) -> None:
        at, row, at_ns, _ = sample
        key = self.key(row)
        levels = self.rule.levels
        if key in self._book.events:
            standing.worst = max(standing.worst, 0)
            if holds:
                self._book.hold(key, at_ns)
                if reached > standing.worst:
                    standing.worst = reached
                    self._book.raise_to(key, at_ns, levels[reached].severity, self._values(view, at, reached))
            elif self._may_close(row, key) and standing.good.is_enough(
                levels[standing.worst].clear_samples, levels[standing.worst].clear_ns
            ):
                self._book.close(key, at_ns, "the condition is over")
                if key not in self._book.events:
                    self._end(row)
        elif key in self._book.dismissed:
            if not holds and standing.good.is_enough(levels[0].clear_samples, levels[0].clear_ns):
                self._book.close(key, at_ns, "")
                self._end(row)
        elif reached >= 0:
            is_settling = row in self._resets and at_ns < self._resets[row] + self._settling_ns
            if not is_settling and not self._book.is_inhibited(self.rule, around(self._registry, row)):
                standing.worst = reached
                self._book.open(
                    key, at_ns, levels[reached].severity, place_of(self._registry, row), self._values(view, at, reached)
                )
        elif not holds and not any(streak.samples for streak in standing.levels):
            self._end(row)

    def _may_close(self, row: int, key: Key) -> bool:
        """A rule that latches closes only after a reset, or when a person closes its event."""
        return not self.rule.latch or (
            self.rule.latch == "reset" and self._resets.get(row, 0) > self._book.events[key].opened_ns
        )

    def key(self, row: int) -> Key:
        """The key of this rule's event of a GPU."""
        return Key(self.rule.name, Entity("gpu", self._registry.gpus[row].id))

    def _values(self, view: PointView, at: int, level: int) -> Values:
        """The figures behind an event."""
        return dict(self.rule.levels[level].when.figures(view.of(self.rule), at))

    def _end(self, row: int) -> None:
        self.standings.pop(row, None)
        self._active[row] = False

    def forget(self, row: int) -> None:
        """The event of this GPU was closed from outside: begin anew."""
        standing = self.standings.get(row)
        if standing is not None:
            standing.worst = -1
            standing.good.end()

    def restore(self, standings: dict[int, Standing]) -> None:
        """Take over the standings of another judge of the same rule, as far as they fit."""
        levels = len(self.rule.levels)
        self.standings = {row: each for row, each in standings.items() if len(each.levels) == levels}
        self._active = np.zeros(self._registry.capacity, np.bool_)
        self._active[list(self.standings)] = True
