"""What the usage meter must come to, reckoned sample by sample with Python's own numbers. It shares no code with the meter."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from health.engine.intake import Arrivals
from health.engine.registry import Registry
from health.usage.packing import FIGURES, FREE, GAP, Figure, Period

SECOND = 10**9
HOUR = 3600 * SECOND
UTIL, ENGINE, SM, POWER, ENERGY, LIMIT = NAMES = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_SM_ACTIVE",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
)
# A cell: hour, (uuid, host, model), and (namespace, pod), FREE or GAP.
Cell = tuple[int, tuple[str, str, str], Any]
Cells = dict[Cell, list[int]]


@dataclass
class Sample:
    time: int
    step: int
    holder: tuple[str, str] | None
    place: tuple[str, str, str]
    values: dict[str, float]


@dataclass
class Sight:
    time: int
    unit: str
    sharer: tuple[str, str] | None
    holder: tuple[str, str] | None
    values: dict[str, float] = field(default_factory=dict)


@dataclass
class Lane:
    seen: int = 0
    holder: tuple[str, str] | None = None
    newest: dict[str, tuple[float, int]] = field(default_factory=dict)
    pieces: list[Any] = field(default_factory=list)


class Reckoning:
    """Gathers what came, and reckons it all at the end."""

    def __init__(self, idle_percent: float = 5.0) -> None:
        self.idle_percent = idle_percent
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self.sights: dict[str, list[Sight]] = defaultdict(list)
        self.newest: dict[str, int] = defaultdict(int)
        self.steps: dict[str, int] = {}
        self.numbers: dict[object, int] = {}

    def take(self, arrivals: Arrivals, registry: Registry) -> None:
        newest = dict(self.newest)
        for row in arrivals.rows.tolist():
            known = registry.gpus[row]
            self.number(known.id)
            self.number((known.namespace, known.pod))
        for row, gpu, _ in arrivals.shares:
            self.number(registry.gpus[row].id)
            self.number((registry.gpus[row].namespace, registry.gpus[row].pod))
            self.number((gpu.namespace, gpu.pod))
        for _, _, described in arrivals.described:
            self.number((described.namespace, described.pod))
        for row, gpu, time in arrivals.shares:
            board = registry.gpus[int(registry.board[row])].id
            if time >= newest.get(board, 0):
                guest = (gpu.namespace, gpu.pod)
                self.sights[board].append(Sight(time, registry.gpus[row].id, guest, guest))
        values = {name: arrivals.value(name).tolist() for name in NAMES}
        before = dict(self.steps)
        for at, (row, time) in enumerate(zip(arrivals.rows.tolist(), arrivals.times_ns.tolist(), strict=True)):
            described_as = registry.gpus[row]
            board = registry.gpus[int(registry.board[row])].id
            now = int(registry.step_ns[row])
            step = before.get(described_as.id, 0) or now
            self.steps[described_as.id] = now
            self.newest[board] = max(self.newest[board], time)
            if time < newest.get(board, 0):
                continue
            read = {name: column[at] for name, column in values.items() if not math.isnan(column[at])}
            holder = (described_as.namespace, described_as.pod) if described_as.pod else None
            for described_row, from_ns, described in arrivals.described:
                if described_row == row and time >= from_ns:
                    described_as = described
                    holder = (described_as.namespace, described_as.pod) if described_as.pod else None
            if board == described_as.id:
                place = (described_as.uuid, described_as.hostname, described_as.model)
                self.samples[board].append(Sample(time, step, holder, place, read))
            else:
                self.sights[board].append(Sight(time, described_as.id, None, holder, read))

    def number(self, name: object) -> int:
        """In which order units and holders were first seen."""
        return self.numbers.setdefault(name, len(self.numbers))

    def cells(self) -> Cells:
        """Every cell that has a figure."""
        found: Cells = defaultdict(lambda: [0] * FIGURES)
        for board, samples in self.samples.items():
            samples.sort(key=lambda sample: sample.time)
            self._board(found, samples, sorted(self.sights[board], key=lambda sight: sight.time))
        return {cell: figures for cell, figures in found.items() if any(figures)}

    def _board(self, found: Cells, samples: list[Sample], sights: list[Sight]) -> None:
        newest: dict[str, tuple[float, int]] = {}
        counter: tuple[float, int] | None = None
        estimated_since = [0, 0]
        whole = Lane()
        all_lanes = [whole]
        lanes: dict[Any, Lane] = {}
        by_instance: dict[str, Lane] = {}
        for a, b in itertools.pairwise(samples):
            newest |= {name: (value, a.time) for name, value in a.values.items()}
            if counter is None and ENERGY in a.values:
                counter = (a.values[ENERGY], a.time)
            length, cap = b.time - a.time, min(3 * b.step, 24 * HOUR)
            known = min(length, cap)
            values = {name: value for name, (value, time) in newest.items() if a.time - time <= cap}
            after = {**newest, **{name: (value, b.time) for name, value in b.values.items()}}.get(POWER)
            counted, estimated, energy_ns = 0, 0, 0
            is_counted = False
            if ENERGY in b.values:
                if counter is not None:
                    growth, span = round(b.values[ENERGY]) - round(counter[0]), b.time - counter[1]
                    is_counted = 0 < span <= 24 * HOUR and 0 <= growth <= 10_000 * span / 1e6
                    if is_counted:
                        counted = max(0, growth - estimated_since[0])
                        energy_ns = max(0, span - estimated_since[1])
                counter = (b.values[ENERGY], b.time)
            if not is_counted and length <= 60 * SECOND and POWER in values and after and b.time - after[1] <= cap:
                estimated = round((values[POWER] + after[0]) / 2 * length * 1e-6)
                energy_ns = length
            if ENERGY in b.values:
                estimated_since = [0, 0]
            elif estimated or energy_ns:
                estimated_since = [estimated_since[0] + estimated, estimated_since[1] + energy_ns]
            in_known = [part(amount, known, length) for amount in (counted, estimated, energy_ns)]
            in_gap = [amount - taken for amount, taken in zip((counted, estimated, energy_ns), in_known, strict=True)]
            drawn, limit = 0, 0
            if POWER in values and LIMIT in values:
                drawn, limit = round(values[POWER] * known * 1e-6), round(values[LIMIT] * known * 1e-6)
            while sights and sights[0].time <= a.time:
                see(lanes, by_instance, all_lanes, sights.pop(0))
            for key in [key for key, lane in lanes.items() if lane.seen < a.time - cap]:
                del lanes[key]
            holders = self._holders(lanes, whole, a, values, cap)
            pieces = cut(a.time, known, [*in_known, drawn, limit])
            for number, (lane, holder, util, share, is_bound) in enumerate(holders):
                for start, duration, amounts in pieces:
                    n = len(holders)
                    split = [x * (number + 1) // n - x * number // n for x in (duration, *amounts)]
                    lane.pieces.append((start // HOUR, a.place, holder, split[0], util, share, is_bound, split[1:]))
            if length > known:
                for start, _, amounts in cut(a.time + known, length - known, in_gap):
                    figures = found[start // HOUR, a.place, GAP]
                    for figure, amount in zip(
                        (Figure.COUNTED_MJ, Figure.ESTIMATED_MJ, Figure.ENERGY_KNOWN), amounts, strict=True
                    ):
                        figures[figure] += amount
        for lane in all_lanes:
            self._lane(found, lane)

    def _holders(
        self, lanes: dict[Any, Lane], whole: Lane, a: Sample, values: dict[str, float], cap: int
    ) -> list[tuple[Lane, Any, float | None, float | None, bool]]:
        util, share, is_bound = worked(values)
        instances = {unit for unit, sharer in lanes if sharer is None}
        shared = {unit for unit, sharer in lanes if sharer is not None}

        def own(lane: Lane) -> tuple[float | None, float | None, bool]:
            values = {name: value for name, (value, time) in lane.newest.items() if a.time - time <= cap}
            return worked(values)

        found: list[tuple[Lane, Any, float | None, float | None, bool]] = []
        for unit, sharer in sorted(lanes, key=lambda key: (self.number(key[0]), self.number(key[1]) if key[1] else -1)):
            lane = lanes[unit, sharer]
            if sharer is None:
                if lane.holder and unit not in shared:
                    found.append((lane, lane.holder, *own(lane)))
            elif unit in instances:
                found.append((lane, lane.holder, *own(lanes[unit, None])))
            elif not instances:
                found.append((lane, lane.holder, util, share, is_bound))
        if found:
            return found
        if not instances:
            return [(whole, a.holder or FREE, util, share, is_bound)]
        each = [(util, share), *(own(lane)[:2] for lane in lanes.values())]
        known = [
            max((value for value in column if value is not None), default=None) for column in zip(*each, strict=True)
        ]
        return [(whole, FREE, known[0], known[1], False)]

    def _lane(self, found: Cells, lane: Lane) -> None:
        for hour, place, holder, duration, util, share, is_bound, amounts in lane.pieces:
            figures = found[hour, place, holder]
            figures[Figure.KNOWN] += duration
            for figure, amount in zip(
                (Figure.COUNTED_MJ, Figure.ESTIMATED_MJ, Figure.ENERGY_KNOWN, Figure.DRAWN_MJ, Figure.LIMIT_MJ),
                amounts,
                strict=True,
            ):
                figures[figure] += amount
            if util is not None:
                figures[Figure.MEASURED] += duration
                figures[Figure.ACTIVE] += duration if util >= self.idle_percent else 0
                figures[Figure.ACTIVE_SECOND] += duration if util >= 2 * self.idle_percent else 0
                if holder == FREE and util < self.idle_percent:
                    figures[Figure.IDLE_MJ] += amounts[0] + amounts[1]
            if share is not None:
                figures[Figure.EFFECTIVE] += round(duration * share)
                figures[Figure.EFFECTIVE_KNOWN] += duration
                figures[Figure.UPPER_BOUND] += duration if is_bound else 0
        for threshold, figure in ((self.idle_percent, Figure.IDLE), (2 * self.idle_percent, Figure.IDLE_SECOND)):
            run: list[Any] = []
            last: Any = FREE
            for piece in [*lane.pieces, (0, None, FREE, 0, None, None, False, [0] * 5)]:
                hour, place, holder, duration, util, _, _, amounts = piece
                if holder == FREE or holder != last or (util is not None and util >= threshold):
                    if sum(each[3] for each in run) >= 900 * SECOND:
                        for hour_of, place_of, holder_of, idle, _, _, _, spent in run:
                            figures = found[hour_of, place_of, holder_of]
                            figures[figure] += idle
                            if figure is Figure.IDLE:
                                figures[Figure.IDLE_MJ] += spent[0] + spent[1]
                    run = []
                if holder != FREE and util is not None and util < threshold:
                    run.append(piece)
                last = holder


def see(lanes: dict[Any, Lane], by_instance: dict[str, Lane], all_lanes: list[Lane], sight: Sight) -> None:
    key = (sight.unit, sight.sharer)
    if key not in lanes:
        lane = by_instance.get(sight.unit) if sight.sharer is None else None
        if lane is None:
            lane = Lane()
            all_lanes.append(lane)
            if sight.sharer is None:
                by_instance[sight.unit] = lane
        lane.newest = {}
        lanes[key] = lane
    lane = lanes[key]
    lane.seen, lane.holder = sight.time, sight.holder
    lane.newest |= {name: (value, sight.time) for name, value in sight.values.items()}


def worked(values: dict[str, float]) -> tuple[float | None, float | None, bool]:
    """Utilisation, effective share, and whether that is only an upper bound."""
    known = [
        value for value in (values.get(UTIL), 100 * values[ENGINE] if ENGINE in values else None) if value is not None
    ]
    share, is_bound = values.get(SM), False
    if share is None and UTIL in values:
        share, is_bound = values[UTIL] / 100, True
    return max(known, default=None), None if share is None else min(max(share, 0), 1), is_bound


def part(amount: int, length: int, whole: int) -> int:
    return amount if length == whole else math.floor(amount * (length / whole))


def cut(start: int, length: int, amounts: list[int]) -> list[tuple[int, int, list[int]]]:
    """Pieces within one hour each."""
    if not length:
        return [(start, 0, amounts)] if any(amounts) else []
    found, begin, before = [], start, [0] * len(amounts)
    while begin < start + length:
        end = min(start + length, (begin // HOUR + 1) * HOUR)
        upto = [part(amount, end - start, length) for amount in amounts]
        found.append((begin, end - begin, [x - y for x, y in zip(upto, before, strict=True)]))
        begin, before = end, upto
    return found


def cells_of(periods: list[Period]) -> Cells:
    """The cells of hours."""
    found: Cells = defaultdict(lambda: [0] * FIGURES)
    for period in periods:
        for at, (place, holder) in enumerate(zip(period.place.tolist(), period.holder.tolist(), strict=True)):
            who = tuple(period.holders[holder]) if holder >= 0 else holder
            cell = found[period.start_ns // HOUR, tuple(period.places[place]), who]
            for figure in Figure:
                cell[figure] += int(period.figures[figure, at])
    return {cell: figures for cell, figures in found.items() if any(figures)}
