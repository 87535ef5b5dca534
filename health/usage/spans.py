"""Stretches of time in which a GPU's state does not change, cut at full hours and into the parts of those who share the GPU."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from health.usage.packing import HOUR_NS, Figure, Ints
from health.usage.units import Floats, Mask

# What a span has amounts of, in the order of ``Spans.amounts``.
AMOUNTS = (Figure.COUNTED_MJ, Figure.ESTIMATED_MJ, Figure.ENERGY_KNOWN, Figure.DRAWN_MJ, Figure.LIMIT_MJ)


class Spans(NamedTuple):
    """Spans of units, one each. ``lane`` is where the idle run is kept: the unit, or a part of it.

    ``util`` is in % and ``effective`` a share of 1, NaN where unknown; ``is_bound``: the utilisation stands in for the share of active SMs.
    The span is part number ``part`` of ``parts`` equal parts: ``length`` and ``amounts`` (AMOUNTS x spans) are those of the
    whole until it is cut.
    """

    unit: Ints
    lane: Ints
    start: Ints
    length: Ints
    place: Ints
    holder: Ints
    util: Floats
    effective: Floats
    is_bound: Mask
    part: Ints
    parts: Ints
    amounts: Ints

    def where(self, kept: Mask | Ints) -> Spans:
        """Some of the spans."""
        return Spans._make(column[..., kept] for column in self)

    def plus(self, other: Spans) -> Spans:
        """These spans, and the others after them."""
        return Spans._make(np.concatenate(pair, axis=-1) for pair in zip(self, other, strict=True))


def cut(spans: Spans) -> Spans:
    """The spans, cut at full hours and into their parts. What is cut adds up to what was there."""
    end = spans.start + spans.length
    first = spans.start // HOUR_NS
    count = np.maximum((end - 1) // HOUR_NS - first, 0) + 1
    if len(count) and (count.max() > 1 or spans.parts.max() > 1):
        of = np.repeat(np.arange(len(count)), count)
        number = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
        hour = first[of] + number
        begin, until = np.maximum(spans.start[of], hour * HOUR_NS), np.minimum(end[of], (hour + 1) * HOUR_NS)
        whole, length = spans.amounts[:, of], spans.length[of]
        before = np.where(number > 0, share_of(whole, begin - spans.start[of], length), 0)
        amounts = share_of(whole, until - spans.start[of], length) - before
        pieces = spans.where(of)
        spans = pieces._replace(
            start=begin,
            length=_part_of(until - begin, pieces.part, pieces.parts),
            amounts=_part_of(amounts, pieces.part, pieces.parts),
        )
    there = (spans.length > 0) | spans.amounts.any(axis=0)
    return spans if there.all() else spans.where(there)


def share_of(amounts: Ints, part: Ints, whole: Ints) -> Ints:
    """What of each amount falls into ``part`` of ``whole``, rounded down; all of it where they are equal."""
    share = np.floor(amounts * (part / np.maximum(whole, 1))).astype(np.int64)
    return np.where(part == whole, amounts, share)


def whole_numbers(values: Floats) -> Ints:
    """The nearest whole numbers, 0 for NaN."""
    return np.rint(np.nan_to_num(values)).astype(np.int64)


def changes(values: Ints) -> Mask:
    """Where a value differs from the one before; the first one does."""
    changed = np.ones(len(values), np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed


def _part_of(amounts: Ints, part: Ints, parts: Ints) -> Ints:
    """Part number ``part`` of ``parts`` parts, which differ by 1 at most and add up to the whole."""
    return amounts * (part + 1) // parts - amounts * part // parts
