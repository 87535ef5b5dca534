"""From the samples of boards to the intervals between them, and the energy that each took."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from health.usage.packing import GAP, HOUR_NS, Ints
from health.usage.spans import Spans, changes, share_of, whole_numbers
from health.usage.units import Floats, Mask, MeterUnits
from readings.times import SECOND

UTILISATION, ENGINE, SM, POWER, ENERGY, LIMIT = range(6)
WANTED = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_SM_ACTIVE",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
)

# A sample counts for at most this many usual steps.
MOST_STEPS = 3
# No sample says anything of more than a day.
MOST_KNOWN_NS = 24 * HOUR_NS
# Mean power x time is an estimate of energy only between samples that are this close.
ESTIMATE_NS = 60 * SECOND
# Energy is counted over gaps up to this long.
MOST_SPAN_NS = 24 * HOUR_NS
# More than any board can draw, in W.
MOST_WATTS = 10_000

_MJ_PER_WATT_NS = 1e-6


class UnitPoints(NamedTuple):
    """Readings of units, one point each, as they came. ``values`` is WANTED x points; ``order`` numbers the blocks they came with."""

    unit: Ints
    time: Ints
    order: Ints
    step: Ints
    holder: Ints
    place: Ints
    values: Floats

    def where(self, kept: Mask) -> UnitPoints:
        """Some of the points."""
        return UnitPoints._make(column[..., kept] for column in self)


class _CounterReadings(NamedTuple):
    """Readings of energy counters, by board and time. ``sample`` is the one that each came with."""

    sample: Ints
    unit: Ints
    value: Floats
    time: Ints


class BoardSamples(NamedTuple):
    """Samples by board and time. ``values`` are the newest readings up to each one, of ``value_times``.

    Readings of the same time that came with another block make a sample of their own, after an interval without length.
    """

    unit: Ints
    time: Ints
    step: Ints
    holder: Ints
    place: Ints
    values: Floats
    value_times: Ints
    is_first: Mask  # a board's first one here, which is its last one of before if it had any
    counters: _CounterReadings

    @property
    def is_last(self) -> Mask:
        """A board's last one."""
        last = np.ones(len(self.unit), np.bool_)
        last[:-1] = self.is_first[1:]
        return last


class Intervals(NamedTuple):
    """What is known of the time between samples, the gaps in which energy went on, and how much of each interval may be known."""

    known: Spans
    gaps: Spans
    cap: Ints


def utilisation(values: Floats) -> Floats:
    """The larger of GPU_UTIL and the engine's activity, in %."""
    found: Floats = np.fmax(values[UTILISATION], 100 * values[ENGINE])
    return found


def effective_share(values: Floats) -> tuple[Floats, Mask]:
    """The share of SMs that were active, and where it is only known to be no more than GPU_UTIL."""
    sm, util = values[SM], values[UTILISATION]
    return np.clip(np.where(np.isnan(sm), util / 100, sm), 0, 1), np.isnan(sm) & ~np.isnan(util)


def samples_of(points: UnitPoints, units: MeterUnits) -> BoardSamples:
    """The samples of these boards' points, each board's last one of before in front. ``units`` remembers the last ones."""
    seen = np.unique(points.unit)
    seen = seen[units.last[seen] > 0]
    none = np.zeros(len(seen), np.int64)
    unit = np.concatenate([seen, points.unit])
    time = np.concatenate([units.last[seen], points.time])
    came = np.concatenate([none - 1, points.order])
    order = np.lexsort((came, time, unit))
    unit, time, came = unit[order], time[order], came[order]
    values = np.concatenate([units.values[:, seen], points.values], axis=1)[:, order]
    own_times = np.broadcast_to(points.time, points.values.shape)
    times = np.concatenate([units.value_times[:, seen], own_times], axis=1)[:, order]
    is_first = changes(unit)
    # The newest reading of each metric up to each sample.
    places = np.arange(len(unit))
    starts = np.maximum.accumulate(np.where(is_first, places, 0))
    there = ~np.isnan(values)
    newest = np.maximum.accumulate(np.where(there, places, -1), axis=1)
    is_known = newest >= starts
    newest = np.maximum(newest, 0)
    read = np.flatnonzero(there[ENERGY])
    samples = BoardSamples(
        unit,
        time,
        np.concatenate([none, points.step])[order],
        np.concatenate([units.last_holder[seen], points.holder])[order],
        np.concatenate([units.last_place[seen], points.place])[order],
        np.where(is_known, np.take_along_axis(values, newest, axis=1), np.nan),
        np.where(is_known, np.take_along_axis(times, newest, axis=1), 0),
        is_first,
        _CounterReadings(read, unit[read], values[ENERGY, read], times[ENERGY, read]),
    )
    _remember(samples, units)
    return samples


def _remember(samples: BoardSamples, units: MeterUnits) -> None:
    first, last = np.flatnonzero(samples.is_first), np.flatnonzero(samples.is_last)
    unit = samples.unit[last]
    units.first[unit] = np.where(units.first[unit] == 0, samples.time[first], units.first[unit])
    units.last[unit] = samples.time[last]
    units.last_holder[unit] = samples.holder[last]
    units.last_place[unit] = samples.place[last]
    units.values[:, unit] = samples.values[:, last]
    units.value_times[:, unit] = samples.value_times[:, last]


def intervals_of(samples: BoardSamples, units: MeterUnits) -> Intervals:
    """The intervals between the samples. ``units`` remembers what was estimated since each energy counter was read."""
    at = np.flatnonzero(~samples.is_first)
    before = at - 1
    start, length = samples.time[before], samples.time[at] - samples.time[before]
    cap = np.minimum(MOST_STEPS * samples.step[at], MOST_KNOWN_NS)
    known = np.minimum(length, cap)
    values = np.where(start - samples.value_times[:, before] <= cap, samples.values[:, before], np.nan)
    util, (effective, is_bound) = utilisation(values), effective_share(values)
    power, limit = values[POWER], values[LIMIT]
    counted, estimated, energy_ns = _energy(samples, at, power, cap, units)
    both = ~np.isnan(power) & ~np.isnan(limit)
    drawn = np.where(both, whole_numbers(power * known * _MJ_PER_WATT_NS), 0)
    limits = np.where(both, whole_numbers(limit * known * _MJ_PER_WATT_NS), 0)
    unit, place = samples.unit[at], samples.place[before]
    whole = np.stack([counted, estimated, energy_ns])
    in_known = share_of(whole, known, length)
    one, none = np.ones(len(at), np.int64), np.zeros(len(at), np.int64)
    holder, amounts = samples.holder[before], np.concatenate([in_known, [drawn, limits]])
    spans = Spans(
        unit, unit, start, known, place, holder, util, effective, is_bound, none, one, amounts
    )  # fmt: skip
    unknown, nothing = np.full(len(at), np.nan), np.zeros(len(at), np.bool_)
    in_gap = np.concatenate([whole - in_known, [none, none]])
    gaps = Spans(
        unit, unit, start + known, length - known, place, none + GAP, unknown, unknown, nothing, none, one, in_gap
    )  # fmt: skip
    return Intervals(spans, gaps.where((length > known) & in_gap.any(axis=0)), cap)


def _energy(samples: BoardSamples, at: Ints, power: Floats, cap: Ints, units: MeterUnits) -> tuple[Ints, Ints, Ints]:
    """Of the intervals that end at samples ``at``: energy by the counter, estimated energy (both mJ), and for how long it is known."""
    count = len(samples.unit)
    read = samples.counters
    span = read.time[1:] - read.time[:-1]
    value = np.rint(read.value)
    growth = value[1:] - value[:-1]
    valid = (read.unit[1:] == read.unit[:-1]) & (span > 0) & (span <= MOST_SPAN_NS)
    valid &= (growth >= 0) & (growth <= MOST_WATTS * _MJ_PER_WATT_NS * span)
    ends = read.sample[1:][valid]
    grown, spans = np.zeros(count, np.int64), np.zeros(count, np.int64)
    grown[ends], spans[ends] = growth[valid].astype(np.int64), span[valid]
    length = samples.time[at] - samples.time[at - 1]
    after = np.where(samples.time[at] - samples.value_times[POWER, at] <= cap, samples.values[POWER, at], np.nan)
    mean = (power + after) / 2
    is_estimated = (spans[at] == 0) & (length <= ESTIMATE_NS) & ~np.isnan(mean)
    estimated = np.zeros((2, count), np.int64)
    estimated[:, at] = np.where(is_estimated, [whole_numbers(mean * length * _MJ_PER_WATT_NS), length], 0)
    # The counter's growth includes what was estimated while it was not read.
    sums = np.cumsum(estimated, axis=1)
    firsts = np.flatnonzero(samples.is_first)
    of_units = samples.unit[firsts]
    sums[:, :] += np.repeat(
        units.estimated[:, of_units] - sums[:, firsts], np.diff(np.append(firsts, count)), axis=1
    )  # since each board's last reading of before
    at_read = sums[:, read.sample]
    at_read[:, samples.is_first[read.sample]] = 0
    between = (at_read[:, 1:] - at_read[:, :-1])[:, valid]
    grown[ends] = np.maximum(grown[ends] - between[0], 0)
    spans[ends] = np.maximum(spans[ends] - between[1], 0)
    left = sums[:, samples.is_last]
    last_read = np.flatnonzero(changes(read.unit[::-1])[::-1])
    left[:, np.searchsorted(of_units, read.unit[last_read])] -= at_read[:, last_read]
    units.estimated[:, of_units] = left
    return grown[at], estimated[0, at], spans[at] + estimated[1, at]
