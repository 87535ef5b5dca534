"""Reads a range part by part, so that a question stays within its memory, and as often as its answer needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from stores.aggregate.aggregator import PartReadings, WindowAggregator
from stores.aggregate.buckets import Buckets
from stores.aggregate.limits import LIGHT_READINGS, LIGHT_SECONDS, Limits, PartTooLarge, limits_of
from stores.base import GroupSeries, SeriesQuery

T = TypeVar("T")

_GROWTH = 8
# How full a part should be; the rest is for parts that are fuller than those before.
_FILL = 0.75

# Reads all readings, and all shares where the query has assignments, of a part of the range. Raises PartTooLarge as soon as it
# finds more than the second argument says.
ReadPart = Callable[[Buckets, int], PartReadings]


class Effort:
    """What a question has cost so far. Once it is no longer light, the query's ``heavy`` is called."""

    def __init__(self, query: SeriesQuery) -> None:
        self._heavy = query.heavy
        self._began = time.monotonic()
        self._readings = 0
        self.is_light = True

    def add(self, readings: int) -> None:
        """Count what was read. Raises TooBusy."""
        self._readings += readings
        if self._readings > LIGHT_READINGS or time.monotonic() - self._began > LIGHT_SECONDS:
            self.is_heavy()

    def is_heavy(self) -> None:
        """The question is heavy. Raises TooBusy."""
        if self.is_light:
            self._heavy()
            self.is_light = False


def windows_at_once(query: SeriesQuery, readings: float, sources: int) -> int:
    """How many windows the first part should have when the range holds about this many readings and sources."""
    limits, count = limits_of(query.memory), query.buckets.count
    by_readings = count * min(limits.readings, LIGHT_READINGS) * _FILL / max(readings, 1.0)
    return max(1, int(min(by_readings, limits.partials / max(sources, 1), count)))


class Passes:
    """Answers one query. ``windows`` is how many the first part should have; the next ones follow from what was found.

    Where they can, parts end at multiples of ``block_ns``, so that the store reads none of its blocks twice.
    """

    def __init__(self, query: SeriesQuery, read: ReadPart, windows: int, *, block_ns: int = 1) -> None:
        self._query = query
        self._read_part = read
        self._windows = max(1, windows)
        self._block_ns = block_ns
        self._limits: Limits = limits_of(query.memory)
        self._aggregator = WindowAggregator(query)
        self._effort = Effort(query)

    def answer(self) -> list[GroupSeries]:
        """The groups that have readings in the range. Raises TooMuch, TooBusy, and what the reader raises."""
        self._pass()
        while not self._aggregator.is_settled():
            self._pass()
        return self._aggregator.answer()

    def _pass(self) -> None:
        buckets, aggregator = self._query.buckets, self._aggregator
        start, windows = buckets.origin_ns, self._windows
        while start < buckets.end_ns:
            windows = max(1, min(windows, self._limits.partials // max(1, aggregator.member_count)))
            if buckets.part(start, windows).end_ns < buckets.end_ns:
                whole = (start + windows * buckets.every_ns) // self._block_ns * self._block_ns - start
                windows = max(whole // buckets.every_ns, 0) or windows
            batch = buckets.part(start, windows)
            try:
                found = self._read(batch)
                # A member for each source, in every window.
                if windows > 1 and windows * _sources(found) > self._limits.partials:
                    raise PartTooLarge
            except PartTooLarge:
                if windows > 1:
                    windows //= 4
                    continue
                aggregator.add_window(batch, self._slices(batch))
                start += buckets.every_ns
                continue
            aggregator.add(batch, *found)
            start += windows * buckets.every_ns
            windows = int(windows * min(_GROWTH, self._limits.readings * _FILL / max(1, _count(found))))

    def _slices(self, window: Buckets) -> Callable[[], Iterator[PartReadings]]:
        """Reads the readings of one window, in parts that fit."""

        def read(start_ns: int, end_ns: int, whole: bool) -> PartReadings:
            return self._read(Buckets(start_ns, end_ns, window.every_ns), whole=whole)

        length = (window.end_ns - window.start_ns) // 4
        return lambda: slices(window.start_ns, window.end_ns, length, read, _count, self._limits.readings)

    def _read(self, part: Buckets, *, whole: bool = False) -> PartReadings:
        effort, most = self._effort, 1 << 62 if whole else self._limits.readings
        try:
            found = self._read_part(part, min(most, LIGHT_READINGS) if effort.is_light else most)
        except PartTooLarge:
            if not effort.is_light:
                raise
            effort.is_heavy()
            return self._read(part, whole=whole)
        effort.add(_count(found))
        return found


def slices(
    start_ns: int,
    end_ns: int,
    length_ns: int,
    read: Callable[[int, int, bool], T],
    size: Callable[[T], int],
    most: int,
    *,
    block_ns: int = 1,
) -> Iterator[T]:
    """What ``read`` finds in [start, end), in parts of at most ``most``, in order of time.

    ``length_ns`` is for the first part; each next one follows from what was found. ``read`` raises PartTooLarge for a part that
    is too large, unless its third argument is true: what is of one instant belongs together. See Passes for ``block_ns``.
    """
    start, length = start_ns, max(1, length_ns)
    while start < end_ns:
        end = min(start + length, end_ns)
        if end < end_ns:
            whole_blocks = end // block_ns * block_ns
            end = whole_blocks if whole_blocks > start else end
        try:
            found = read(start, end, end - start == 1)
        except PartTooLarge:
            length = max(1, (end - start) // 4)
            continue
        yield found
        length = max(1, int((end - start) * min(_GROWTH, most * _FILL / max(1, size(found)))))
        start = end


def _count(found: PartReadings) -> int:
    readings, shares = found
    return len(readings.times) + (0 if shares is None else len(shares.times))


def _sources(found: PartReadings) -> int:
    readings, shares = found
    return len(readings.sources) + (0 if shares is None else len(shares.sources))
