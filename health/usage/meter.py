"""Measures what each GPU did in each hour and who held it, as readings arrive.

A GPU's board is the unit, also where it is cut into MIG instances. Between two samples of a GPU (t, u) the first one holds: its
holder, utilisation and limit count for u - t, but for at most three times the usual step between samples. The rest is a gap, in which
the GPU is neither idle nor busy: what it did is unknown. The last sample counts once the next one has come.

- held: the sample names a pod. Where MIG instances or pods share a board, its time is split evenly over those that hold a part, in whole
  nanoseconds and without remainder; each instance has its own utilisation. A part that is not seen for three steps is gone.
- utilisation: the larger of GPU_UTIL and 100 x PROF_GR_ENGINE_ACTIVE, so that profiling counters that are stuck at 0 make no idle GPU.
  A sample without it has the one of before, for up to three steps.
- idle and held: below the threshold in runs of 15 minutes or more. A run ends when the GPU is busy or changes hands; gaps and
  missing utilisation neither end it nor count. It counts from its start, also over the end of an hour.
- effective: time x PROF_SM_ACTIVE, or x GPU_UTIL as an upper bound.
- energy: growth of the board's counter, also over gaps of up to a day; a counter that fell, or grew faster than a board can draw,
  starts anew. Where that gives nothing: mean power x time between samples that are at most a minute apart, which is an estimate.

What comes out does not depend on when the meter is dumped and loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import zstandard

from health.engine.intake import Arrivals
from health.engine.registry import KnownGpu, Registry
from health.usage.books import HourBook, HourBooks
from health.usage.intervals import WANTED, UnitPoints, intervals_of, samples_of
from health.usage.packing import FIGURES, FREE, GAP, HOUR_NS, BoardPlace, Figure, Holder, Ints, Period
from health.usage.runs import IdleRuns, Pieces
from health.usage.sharing import Lane, SharedBoards, Sharer
from health.usage.spans import AMOUNTS, Spans, cut, whole_numbers
from health.usage.units import Mask, MeterUnits
from readings.times import SECOND

IDLE_PERCENT = 5.0
# The second threshold is this many times the first.
SECOND_FACTOR = 2
# An hour is over when readings this much later than its end have come.
GRACE_NS = 20 * 60 * SECOND

_WAITING_POINTS = 20_000
# Hours that what is worked out at once may lie in: a hundred days. Only readings that were made up lie in more.
MOST_HOURS = 2400
_UNUSED_HOLDERS = _UNUSED_PLACES = 1000
_VERSION = 1
_MOST_BYTES = 1 << 32
_THRESHOLDS = ((Figure.ACTIVE, Figure.IDLE), (Figure.ACTIVE_SECOND, Figure.IDLE_SECOND))


class MeterStateError(ValueError):
    """The bytes of a meter cannot be read."""


class SeenBoard(NamedTuple):
    """A GPU, where it was seen last, and its first and newest sample."""

    place: BoardPlace
    first_ns: int
    last_ns: int


class UsageMeter:
    """Takes new readings (``take``) and gives away the hours that are over (``closed``). Not thread-safe.

    ``idle_percent`` is the threshold below which a GPU is idle; it may be changed. Hours that begin before ``floor_ns`` were counted
    by another meter, and are left out. ``newest_ns`` is the newest sample.
    """

    WANTED = WANTED

    def __init__(self, idle_percent: float = IDLE_PERCENT) -> None:
        self.idle_percent = idle_percent
        self.floor_ns: int | None = None
        self.newest_ns = 0
        self._places: dict[BoardPlace, int] = {}
        self._holders: dict[Holder, int] = {}
        self._units = MeterUnits(len(WANTED))
        self._boards = SharedBoards(self._units)
        self._runs = [IdleRuns(number, self._units) for number in range(len(_THRESHOLDS))]
        self._books = HourBooks()
        # What is not worked out yet, and the descriptions that were seen, by row of the registry.
        self._waiting: list[UnitPoints] = []
        self._waiting_points = 0
        self._sharers: list[Sharer] = []
        self._described: list[KnownGpu | None] = []
        self._unit_of_row = np.zeros(64, np.int64)

    # Taking readings

    def take(self, arrivals: Arrivals, registry: Registry) -> None:
        """Take the new readings of one block. ``registry`` has the GPUs as they are after it."""
        units, rows = self._units, arrivals.rows
        for row in rows.tolist():
            self._see(row, registry)
        for row, gpu, time_ns in arrivals.shares:
            self._see(row, registry)
            unit = int(self._unit_of_row[row])
            board = int(units.board[unit])
            units.is_shared[board] = True
            if time_ns >= units.newest[board]:
                self._sharers.append(Sharer(board, unit, time_ns, self._holder(gpu.namespace, gpu.pod)))
        if not len(rows):
            return
        unit_of, time = self._unit_of_row[rows], arrivals.times_ns
        now, usual = registry.step_ns[rows], units.step[unit_of]
        holder, place = units.holder[unit_of], units.place[unit_of]
        if arrivals.described:
            self._describe(arrivals, holder, place)
        points = UnitPoints(
            unit_of,
            time,
            np.full(len(rows), self._waiting_points),
            np.where(usual > 0, usual, now),
            holder,
            place,
            np.stack([arrivals.value(name) for name in WANTED]),
        )
        units.step[unit_of] = now
        boards = units.board[unit_of]
        late = time < units.newest[boards]
        if late.any():
            points = points.where(~late)
        np.maximum.at(units.newest, boards, time)
        self._waiting.append(points)
        self._waiting_points += len(points.unit)
        if self._waiting_points >= _WAITING_POINTS:
            self._work_out()

    def _describe(self, arrivals: Arrivals, holder: Ints, place: Ints) -> None:
        """Set the holder and place of points whose GPUs the block describes in several ways, in place."""
        of_rows, from_ns, known = zip(*arrivals.described, strict=True)
        count = len(known)
        # By row and time, descriptions before points: that of a point is the last one up to it.
        rows = np.concatenate([np.array(of_rows, np.int64), arrivals.rows])
        times = np.concatenate([np.array(from_ns, np.int64), arrivals.times_ns])
        order = np.lexsort((np.arange(len(rows)) >= count, times, rows))
        is_point = order >= count
        places = np.arange(len(order))
        last = np.maximum.accumulate(np.where(is_point, -1, places))[is_point]
        points = order[is_point]
        applies = (last >= 0) & (rows[order[last]] == rows[points])
        points, last = points[applies] - count, order[last[applies]]
        holders = [self._holder(gpu.namespace, gpu.pod) for gpu in known]
        places_of = [self._place(BoardPlace(gpu.uuid, gpu.hostname, gpu.model)) for gpu in known]
        holder[points], place[points] = np.array(holders, np.int64)[last], np.array(places_of, np.int64)[last]

    def _see(self, row: int, registry: Registry) -> None:
        """Take over the description of a GPU, if it is new."""
        described, gpu = self._described, registry.gpus[row]
        if row >= len(described):
            described.extend([None] * (row + 1 - len(described)))
            if row >= len(self._unit_of_row):
                self._unit_of_row = np.concatenate([self._unit_of_row, np.zeros(row + 1, np.int64)])
        elif described[row] is gpu:
            return
        described[row] = gpu
        units = self._units
        unit = units.find(gpu.id)
        self._unit_of_row[row] = unit
        units.holder[unit] = self._holder(gpu.namespace, gpu.pod)
        units.place[unit] = self._place(BoardPlace(gpu.uuid, gpu.hostname, gpu.model))
        board_row = int(registry.board[row])
        if board_row != row:
            self._see(board_row, registry)
            board = int(self._unit_of_row[board_row])
            units.board[unit] = board
            units.is_shared[board] = True

    def _holder(self, namespace: str, pod: str) -> int:
        return self._holders.setdefault(Holder(namespace, pod), len(self._holders)) if pod else FREE

    def _place(self, place: BoardPlace) -> int:
        return self._places.setdefault(place, len(self._places))

    # Working out

    def _work_out(self) -> None:
        """Work out all readings that wait."""
        if not self._waiting:
            return
        taken = UnitPoints._make(np.concatenate(parts, axis=-1) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_points = [], 0
        if not len(taken.unit):
            return
        units = self._units
        self.newest_ns = max(self.newest_ns, int(taken.time.max()))
        is_board = units.board[taken.unit] == taken.unit
        intervals = intervals_of(samples_of(taken.where(is_board), units), units)
        kept = _of_newest_hours(intervals.known)
        known, cap = intervals.known.where(kept), intervals.cap[kept]
        if self._sharers or not is_board.all() or units.is_shared[known.unit].any():
            known = self._boards.split(known, cap, taken.where(~is_board), self._sharers)
            self._sharers = []
        self._count(known)
        if self._boards.ended:
            self._end_runs(self._boards.ended)
            self._boards.ended = []
        gaps = cut(intervals.gaps.where(_of_newest_hours(intervals.gaps)))
        figures = np.zeros((FIGURES, len(gaps.unit)), np.int64)
        figures[list(AMOUNTS)] = gaps.amounts
        self._books.add(gaps.start // HOUR_NS, gaps.unit, gaps.place, gaps.holder, figures)

    def _end_runs(self, lanes: list[int]) -> None:
        for runs in self._runs:
            runs.forget(lanes)
        for lane in lanes:
            self._units.drop_run(lane)

    def _count(self, known: Spans) -> None:
        spans = cut(known)
        # By lane and time, as the runs want them.
        order = np.lexsort((spans.start, spans.lane))
        spans = spans.where(order)
        length = spans.length
        has_share = ~np.isnan(spans.effective)
        is_measured = ~np.isnan(spans.util)
        figures = np.zeros((FIGURES, len(length)), np.int64)
        figures[Figure.KNOWN] = length
        figures[Figure.MEASURED] = np.where(is_measured, length, 0)
        figures[Figure.EFFECTIVE] = whole_numbers(length * spans.effective)
        figures[Figure.EFFECTIVE_KNOWN] = np.where(has_share, length, 0)
        figures[Figure.UPPER_BOUND] = np.where(has_share & spans.is_bound, length, 0)
        figures[list(AMOUNTS)] = spans.amounts
        energy = figures[Figure.COUNTED_MJ] + figures[Figure.ESTIMATED_MJ]
        pieces = Pieces.of(spans, energy)
        for (active, idle), runs, factor in zip(_THRESHOLDS, self._runs, (1, SECOND_FACTOR), strict=True):
            is_idle = spans.util < factor * self.idle_percent  # never of NaN
            figures[active] = np.where(is_measured & ~is_idle, length, 0)
            counts, settled = runs.take(pieces, is_idle, is_measured & ~is_idle)
            figures[idle] = np.where(counts, length, 0)
            late = np.zeros((FIGURES, len(settled.lane)), np.int64)
            late[idle] = settled.length
            if idle is Figure.IDLE:
                figures[Figure.IDLE_MJ] = np.where(counts | (is_idle & (spans.holder == FREE)), energy, 0)
                late[Figure.IDLE_MJ] = settled.energy
            self._books.add(settled.hour, settled.unit, settled.place, settled.holder, late)
        self._units.run_holder[spans.lane] = spans.holder  # the last one of each lane stays
        self._books.add(pieces.hour, spans.unit, spans.place, spans.holder, figures)

    # Giving away

    def closed(self) -> list[Period]:
        """The hours that are over, each piece once: what comes later for such an hour is given away as another piece."""
        self._work_out()
        over = (self.newest_ns - GRACE_NS) // HOUR_NS
        hours = [hour for hour in self._books if hour < over]
        found = [self._period(hour, self._books[hour]) for hour in hours if self._is_ours(hour)]
        for hour in hours:
            self._books.pop(hour)
        return found

    def give_back(self, periods: Sequence[Period]) -> None:
        """Take back hours that could not be kept."""
        for period in periods:
            unit = np.array([self._units.find(place.uuid) for place in period.places], np.int64)
            place = np.array([self._place(place) for place in period.places], np.int64)
            holder = np.array([*(self._holder(*each) for each in period.holders), GAP, FREE], np.int64)
            hour = np.full(len(period.place), period.start_ns // HOUR_NS)
            self._books.add(hour, unit[period.place], place[period.place], holder[period.holder], period.figures)

    def open_hours(self) -> list[Period]:
        """The hours that are not given away yet, in order."""
        self._work_out()
        return [self._period(hour, self._books[hour]) for hour in self._books if self._is_ours(hour)]

    def boards(self) -> list[SeenBoard]:
        """Every GPU that was ever seen."""
        self._work_out()
        units, places = self._units, list(self._places)
        seen = units.boards()
        columns = (units.last_place[seen].tolist(), units.first[seen].tolist(), units.last[seen].tolist())
        return [SeenBoard(places[place], first, last) for place, first, last in zip(*columns, strict=True)]

    def _is_ours(self, hour: int) -> bool:
        return hour * HOUR_NS >= (self.floor_ns or 0)

    def _period(self, hour: int, book: HourBook) -> Period:
        unit, place, holder = book.keys.T
        used, place_at = np.unique(place, return_inverse=True)
        of_place = np.zeros(len(used), np.int64)
        of_place[place_at] = unit
        is_held = holder >= 0
        holders, holder_at = np.unique(holder[is_held], return_inverse=True)
        code = holder.copy()
        code[is_held] = holder_at
        all_places, all_holders = list(self._places), list(self._holders)
        return Period(
            hour * HOUR_NS,
            1,
            tuple(all_places[at] for at in used.tolist()),
            self._units.first[of_place],
            np.minimum(self._units.last[of_place], (hour + 1) * HOUR_NS),
            tuple(all_holders[at] for at in holders.tolist()),
            place_at.astype(np.int32),
            code.astype(np.int32),
            book.figures.copy(),
        )

    # State

    def dump(self) -> bytes:
        """Everything, for ``load``."""
        self._work_out()
        self._drop_unused_holders()
        self._drop_unused_places()
        state = _encode(
            _MeterState(
                _VERSION,
                self.floor_ns,
                self.newest_ns,
                list(self._places),
                list(self._holders),
                self._units.ids,
                self._units.spare,
                self._units.state(),
                [
                    (board, unit, sharer, lane)
                    for board, lanes in self._boards.lanes.items()
                    for (unit, sharer), lane in lanes.items()
                ],
                [[column.tobytes() for column in runs.pending] for runs in self._runs],
                self._books.state(),
            )
        )
        return zstandard.ZstdCompressor(level=1).compress(state)

    @classmethod
    def load(cls, data: bytes, idle_percent: float = IDLE_PERCENT) -> UsageMeter:
        """The meter of these bytes; of no bytes a new one. Raises MeterStateError."""
        made = cls(idle_percent)
        if data:
            try:
                state = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MOST_BYTES)
                made._restore(_decode(state))
            except (zstandard.ZstdError, msgspec.MsgspecError, ValueError, KeyError, IndexError) as error:
                raise MeterStateError(f"the state of the usage meter cannot be read: {error}") from error
        return made

    def _restore(self, state: _MeterState) -> None:
        if state.version != _VERSION:
            raise ValueError(f"its version is {state.version}, and {_VERSION} is known here")
        self.floor_ns, self.newest_ns = state.floor_ns, state.newest_ns
        self._places = {place: code for code, place in enumerate(state.places)}
        self._holders = {holder: code for code, holder in enumerate(state.holders)}
        self._units.restore(state.ids, state.spare, state.units)
        for board, unit, sharer, lane in state.lanes:
            self._boards.lanes.setdefault(board, {})[unit, sharer] = lane
        for runs, columns in zip(self._runs, state.pending, strict=True):
            runs.pending = Pieces._make(np.frombuffer(column, np.int64) for column in columns)
        self._books.restore(state.books)

    def _drop_unused_places(self) -> None:
        """Forget where GPUs are no more, so that hosts and names of models that come and go do not add up."""
        if len(self._places) < _UNUSED_PLACES:
            return
        units, count = self._units, len(self._units)
        used = np.unique(
            np.concatenate(
                [
                    units.place[:count],
                    units.last_place[:count],
                    *(runs.pending.place for runs in self._runs),
                    *(self._books[hour].keys[:, 1] for hour in self._books),
                ]
            )
        )
        if 2 * len(used) > len(self._places):
            return
        new = np.zeros(len(self._places), np.int64)
        new[used] = np.arange(len(used))
        units.place[:count], units.last_place[:count] = new[units.place[:count]], new[units.last_place[:count]]
        for runs in self._runs:
            runs.pending = runs.pending._replace(place=new[runs.pending.place])
        self._books.renumber_places(new)
        places = list(self._places)
        self._places = {places[code]: at for at, code in enumerate(used.tolist())}

    def _drop_unused_holders(self) -> None:
        """Forget pods that nothing refers to any more, so that pods that come and go do not add up."""
        if len(self._holders) < _UNUSED_HOLDERS:
            return
        count = len(self._units)
        lanes = [lane for lanes in self._boards.lanes.values() for lane in lanes.values()]
        used = np.unique(
            np.concatenate(
                [
                    self._units.holder[:count],
                    self._units.last_holder[:count],
                    self._units.run_holder[:count],
                    np.array([lane.holder for lane in lanes], np.int64),
                    *(runs.pending.holder for runs in self._runs),
                    *(self._books[hour].keys[:, 2] for hour in self._books),
                ]
            )
        )
        used = used[used >= 0]
        if 2 * len(used) > len(self._holders):
            return
        new = np.full(len(self._holders) + 2, FREE, np.int64)
        new[used], new[GAP] = np.arange(len(used)), GAP
        self._units.renumber_holders(new)
        self._books.renumber_holders(new)
        for runs in self._runs:
            runs.pending = runs.pending._replace(holder=new[runs.pending.holder])
        for board, by_key in self._boards.lanes.items():
            for lane in by_key.values():
                lane.holder = int(new[lane.holder])
            self._boards.lanes[board] = {
                (unit, sharer if sharer < 0 else lane.holder): lane for (unit, sharer), lane in by_key.items()
            }
        holders = list(self._holders)
        self._holders = {holders[code]: at for at, code in enumerate(used.tolist())}


def _of_newest_hours(spans: Spans) -> Mask:
    """Which spans begin in the newest MOST_HOURS of the hours that they begin in: each hour becomes a row in the database."""
    hours, at = np.unique(spans.start // HOUR_NS, return_inverse=True)
    return np.asarray(at >= len(hours) - MOST_HOURS, np.bool_)


class _MeterState(msgspec.Struct, array_like=True):
    version: int
    floor_ns: int | None
    newest_ns: int
    places: list[BoardPlace]
    holders: list[Holder]
    ids: list[str]
    spare: list[int]
    units: dict[str, bytes]
    lanes: list[tuple[int, int, int, Lane]]
    pending: list[list[bytes]]
    books: list[tuple[int, bytes, bytes]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_MeterState).decode
