"""Idle runs: time in which a GPU is held and idle counts once the run has lasted 15 minutes, and then from the run's start."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from health.usage.packing import FREE, HOUR_NS, Ints
from health.usage.spans import Spans, changes
from health.usage.units import Mask, MeterUnits
from readings.times import SECOND

IDLE_RUN_NS = 15 * 60 * SECOND


class Pieces(NamedTuple):
    """Idle time of one hour each, with its energy in mJ."""

    lane: Ints
    hour: Ints
    unit: Ints
    place: Ints
    holder: Ints
    length: Ints
    energy: Ints

    @classmethod
    def none(cls) -> Pieces:
        """No pieces."""
        return cls._make(np.zeros(0, np.int64) for _ in cls._fields)

    @classmethod
    def of(cls, spans: Spans, energy: Ints) -> Pieces:
        """The pieces of spans that are cut at full hours."""
        hour = spans.start // HOUR_NS
        return cls(spans.lane, hour, spans.unit, spans.place, spans.holder, spans.length, energy)

    def where(self, kept: Mask) -> Pieces:
        """Some of the pieces."""
        return Pieces._make(column[kept] for column in self)

    def plus(self, other: Pieces) -> Pieces:
        """These pieces, and the others after them."""
        return Pieces._make(np.concatenate(pair) for pair in zip(self, other, strict=True))


class IdleRuns:
    """The runs of one threshold, its number in ``units.run``. ``pending`` is the idle time of runs that are shorter than 15 minutes so far."""

    def __init__(self, number: int, units: MeterUnits) -> None:
        self.pending = Pieces.none()
        self._number = number
        self._units = units

    def forget(self, lanes: list[int]) -> None:
        """The runs of these lanes are over."""
        self.pending = self.pending.where(~np.isin(self.pending.lane, lanes))

    def take(self, pieces: Pieces, is_idle: Mask, is_busy: Mask) -> tuple[Mask, Pieces]:
        """Which pieces count, and what of the pending time counts now. Pieces come by lane and time.

        Where a piece is neither idle nor busy, its utilisation is not known: it does not count, and ends no run.
        """
        counts = np.zeros(len(pieces.lane), np.bool_)
        if not len(counts):
            return counts, Pieces.none()
        held = pieces.holder >= 0
        idle = held & is_idle
        is_first = changes(pieces.lane)
        before = np.concatenate([[FREE], pieces.holder[:-1]])
        before[is_first] = self._units.run_holder[pieces.lane[is_first]]
        breaks = ~held | is_busy | (pieces.holder != before)
        run = np.cumsum(is_first | breaks) - 1
        lengths = np.add.reduceat(np.where(idle, pieces.length, 0), np.flatnonzero(is_first | breaks))
        firsts = np.flatnonzero(is_first)
        lanes, goes_on = pieces.lane[firsts], ~breaks[firsts]
        first_run, last_run = run[firsts], run[np.append(firsts[1:], len(run)) - 1]
        lengths[first_run] += np.where(goes_on, self._units.run[self._number, lanes], 0)
        self._units.run[self._number, lanes] = lengths[last_run]
        is_long = lengths >= IDLE_RUN_NS
        counts = idle & is_long[run]
        # Pending time counts if its run went on and is long by now, waits if it still goes on, and is dropped otherwise.
        verdict = np.zeros(len(self._units), np.int8)
        verdict[lanes] = np.where(goes_on & is_long[first_run], 1, np.where(goes_on & (first_run == last_run), 0, -1))
        of_pending = verdict[self.pending.lane]
        settled = self.pending.where(of_pending == 1)
        is_open = np.zeros(len(lengths), np.bool_)
        is_open[last_run] = True
        waiting = pieces.where(idle & (~is_long & is_open)[run])
        self.pending = self.pending.where(of_pending == 0).plus(waiting)
        return counts, settled
