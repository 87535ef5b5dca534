"""Who has a board that is cut into MIG instances, or that pods share: its time is split evenly over those who hold a part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from health.usage.intervals import UnitPoints, effective_share, utilisation
from health.usage.packing import FREE, Ints
from health.usage.spans import Spans
from health.usage.units import MeterUnits

_NAN = float("nan")
# In place of the holder in a lane's key: the lane is a MIG instance.
_INSTANCE = -1
# Instances and pods of one board, at most. NVIDIA's MIG has 7 instances, its MPS 60 clients.
MOST_LANES = 64
# Utilisation, engine and SM activity: the first of WANTED.
_OF_INSTANCES = 3


class Lane(msgspec.Struct, array_like=True):
    """A MIG instance, or a pod's part of a shared GPU, as it was last seen. ``unit`` is where its idle run is kept.

    ``values`` are a MIG instance's newest readings of the first metrics of WANTED, and ``times`` theirs.
    """

    unit: int
    seen: int
    holder: int
    values: list[float] = msgspec.field(default_factory=lambda: [_NAN] * _OF_INSTANCES)
    times: list[int] = msgspec.field(default_factory=lambda: [0] * _OF_INSTANCES)

    def take(self, sight: _Sight) -> None:
        """It was seen."""
        self.seen, self.holder = sight.time, sight.holder
        for at, value in enumerate(sight.values):
            if value == value:
                self.values[at], self.times[at] = value, sight.time

    def known(self, time_ns: int, cap_ns: int) -> list[float]:
        """The readings that are not older than ``cap_ns``, NaN in place of others."""
        return [value if time_ns - at <= cap_ns else _NAN for value, at in zip(self.values, self.times, strict=True)]


class Sharer(NamedTuple):
    """A pod was seen to share a unit."""

    board: int
    unit: int
    time: int
    holder: int


class _Sight(NamedTuple):
    """A MIG instance was seen, or a pod that shares a unit (``key`` is the unit, and the pod or _INSTANCE)."""

    time: int
    key: tuple[int, int]
    holder: int
    values: tuple[float, ...] = ()


class _BoardPart(NamedTuple):
    lane: int
    holder: int
    util: float
    effective: float
    is_bound: bool


class SharedBoards:
    """The lanes of each board that is cut or shared, by unit and holder."""

    def __init__(self, units: MeterUnits) -> None:
        self._units = units
        self.lanes: dict[int, dict[tuple[int, int], Lane]] = {}
        self.ended: list[int] = []  # units of runs that end with what was split last

    def split(self, spans: Spans, cap: Ints, instances: UnitPoints, sharers: Iterable[Sharer]) -> Spans:
        """The spans, those of shared boards once for each of their holders. ``instances`` are the points of MIG instances."""
        sights = self._sights(instances, sharers)
        shared = np.flatnonzero(self._units.is_shared[spans.unit])
        of_board: dict[int, list[int]] = {}
        for place, board in zip(shared.tolist(), spans.unit[shared].tolist(), strict=True):
            of_board.setdefault(board, []).append(place)
        places: list[int] = []
        parts: list[_BoardPart] = []
        numbers: list[tuple[int, int]] = []
        for board in sorted({*of_board, *sights}):
            lanes = self.lanes.setdefault(board, {})
            waiting = sorted(sights.get(board, ()), key=lambda sight: sight.time)
            seen = 0
            for place in of_board.get(board, ()):
                start = int(spans.start[place])
                while seen < len(waiting) and waiting[seen].time <= start:
                    self._see(lanes, waiting[seen])
                    seen += 1
                whole = _BoardPart(
                    board,
                    int(spans.holder[place]),
                    float(spans.util[place]),
                    float(spans.effective[place]),
                    bool(spans.is_bound[place]),
                )
                found = self._parts(lanes, whole, start, int(cap[place]))
                places += [place] * len(found)
                parts += found
                numbers += [(number, len(found)) for number in range(len(found))]
            for sight in waiting[seen:]:
                self._see(lanes, sight)
        if not places:
            return spans
        lane, holder, util, effective, is_bound = zip(*parts, strict=True)
        part, count = np.array(numbers, np.int64).T
        split = spans.where(np.array(places, np.int64))
        split = split._replace(
            lane=np.array(lane, np.int64),
            holder=np.array(holder, np.int64),
            util=np.array(util, np.float64),
            effective=np.array(effective, np.float64),
            is_bound=np.array(is_bound, np.bool_),
            part=part,
            parts=count,
        )
        return spans.where(~self._units.is_shared[spans.unit]).plus(split)

    def _sights(self, instances: UnitPoints, sharers: Iterable[Sharer]) -> dict[int, list[_Sight]]:
        found: dict[int, list[_Sight]] = {}
        columns = (self._units.board[instances.unit], instances.unit, instances.time, instances.holder)
        values = instances.values[:_OF_INSTANCES].T.tolist()
        for board, unit, time, holder, read in zip(*(column.tolist() for column in columns), values, strict=True):
            found.setdefault(board, []).append(_Sight(time, (unit, _INSTANCE), holder, tuple(read)))
        for sharer in sharers:
            sight = _Sight(sharer.time, (sharer.unit, sharer.holder), sharer.holder)
            found.setdefault(sharer.board, []).append(sight)
        return found

    def _see(self, lanes: dict[tuple[int, int], Lane], sight: _Sight) -> None:
        lane = lanes.get(sight.key)
        if lane is None:
            if len(lanes) >= MOST_LANES:
                return
            unit, sharer = sight.key
            lane = lanes[sight.key] = Lane(
                unit if sharer == _INSTANCE else self._units.add_run(), sight.time, sight.holder
            )
        lane.take(sight)

    def _parts(
        self, lanes: dict[tuple[int, int], Lane], whole: _BoardPart, time_ns: int, cap_ns: int
    ) -> list[_BoardPart]:
        """Who holds the board from ``time_ns`` on: one part each, else the whole board."""
        for key, lane in [(key, lane) for key, lane in lanes.items() if lane.seen < time_ns - cap_ns]:
            del lanes[key]
            if key[1] != _INSTANCE:
                self.ended.append(lane.unit)
        is_cut = any(sharer == _INSTANCE for _, sharer in lanes)
        shared = {unit for unit, sharer in lanes if sharer != _INSTANCE}
        found = []
        for (unit, sharer), lane in sorted(lanes.items(), key=_key):
            if sharer == _INSTANCE:
                if lane.holder != FREE and unit not in shared:
                    found.append(_BoardPart(lane.unit, lane.holder, *_figures(lane, time_ns, cap_ns)))
            elif (instance := lanes.get((unit, _INSTANCE))) is not None:
                found.append(_BoardPart(lane.unit, lane.holder, *_figures(instance, time_ns, cap_ns)))
            elif not is_cut:
                found.append(whole._replace(lane=lane.unit, holder=lane.holder))
        if found or not is_cut:
            return found or [whole]
        # No instance is held: the board is as busy as its busiest one.
        figures = [(whole.util, whole.effective, False), *(_figures(lane, time_ns, cap_ns) for lane in lanes.values())]
        util, effective, _ = zip(*figures, strict=True)
        return [_BoardPart(whole.lane, FREE, _largest(util), _largest(effective), is_bound=False)]


def _key(item: tuple[tuple[int, int], Lane]) -> tuple[int, int]:
    return item[0]


def _figures(instance: Lane, time_ns: int, cap_ns: int) -> tuple[float, float, bool]:
    """Utilisation, effective share, and whether the utilisation stands in for it."""
    values = np.array(instance.known(time_ns, cap_ns))
    effective, is_bound = effective_share(values)
    return float(utilisation(values)), float(effective), bool(is_bound)


def _largest(values: Iterable[float]) -> float:
    return max((value for value in values if value == value), default=_NAN)
