"""Blocks of points as the engine judges them: by GPU and time, without late and repeated readings, with times that can be true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from health.engine.registry import Ints, KnownGpu, Mask, Registry, Rows
from readings.catalogue import canonical_name, is_of_board, whole_of
from readings.model import Gpu, PointBlock
from readings.times import SECOND

Floats = NDArray[np.float64]

# A live reading this far ahead of its message comes from a clock that is wrong: the message's time counts.
AHEAD_NS = 60 * SECOND
HEALTH = "DCGM_EXP_GPU_HEALTH_STATUS"
# DCGM's watches of power and heat warn of every throttled clock, as most busy GPUs have: other rules judge that.
_LEFT_OUT = {f"{HEALTH}:health_watch:{watch}" for watch in ("POWER", "THERMAL")}
# Parts (links, XIDs, watches) that make one metric; the engine adds up the growth of each, or takes the worst.
MOST_PARTS = 128
# Parts of all metrics: each has room for every GPU. A metric without parts always has its place.
MOST_PART_COLUMNS = 512
# Of a block with more points the earlier ones of GPUs that come again and again are left out: a streamer's largest batch has 20,000
# readings, and messages that are judged together 4,000 more.
MOST_POINTS = 25_000
MOST_GPUS = 500_000
_MOST_NAMES_KEPT = 2000
# Why points are left out.
TOO_MANY_TIMES, TOO_MANY_SHARES = "too_many_times", "too_many_shares"


class NewestTable:
    """The newest value and its time of each metric (a row here) and GPU (a column), NaN and 0 where there is none."""

    def __init__(self) -> None:
        self.columns: dict[str, int] = {}
        self.parts: Counter[str] = Counter()  # how many parts of each metric have a column
        self.values = np.full((0, 0), np.nan)
        self.times_ns = np.zeros((0, 0), np.int64)

    def column(self, name: str) -> int | None:
        """The number of the metric's column, made if need be; None for one of too many parts."""
        number = self.columns.get(name)
        if number is None:
            if ":" in name:
                whole = whole_of(name)
                if self.parts[whole] >= MOST_PARTS or self.parts.total() >= MOST_PART_COLUMNS:
                    return None
                self.parts[whole] += 1
            number = self.columns[name] = len(self.columns)
        return number

    def restore(self, names: Iterable[str]) -> None:
        """Give these metrics their columns, in order."""
        self.columns = {name: number for number, name in enumerate(names)}
        self.parts = Counter(whole_of(name) for name in self.columns if ":" in name)

    def fit(self, capacity: int) -> None:
        """Make room for all columns and for ``capacity`` GPUs."""
        have = self.values.shape
        if have[0] >= len(self.columns) and have[1] >= capacity:
            return
        shape = max(have[0], len(self.columns) + 8), max(have[1], capacity)
        values, times = np.full(shape, np.nan), np.zeros(shape, np.int64)
        values[: have[0], : have[1]], times[: have[0], : have[1]] = self.values, self.times_ns
        self.values, self.times_ns = values, times


class Arrivals(NamedTuple):
    """The new readings of one block, sorted by GPU and time: one point for each row and time.

    ``points`` (metrics x points) has NaN where there is no new reading; ``before`` and ``before_ns`` have the metric's reading
    before that one, NaN and 0 if there is none. ``newest_ns`` has the newest sample of each point's GPU before this block, and
    ``last`` marks the last point of each GPU. ``ahead_ns`` is by how much the clock of a host was ahead, by host. ``described`` has the
    GPUs that the block describes in several ways, as when their pod changes: the row, from when on, and how.
    """

    rows: Rows
    times_ns: Ints
    names: tuple[str, ...]
    number_of: dict[str, int]
    columns: Rows
    points: Floats
    before: Floats
    before_ns: Ints
    newest_ns: Ints
    last: Mask
    shares: list[tuple[int, Gpu, int]]
    ahead_ns: dict[str, int]
    described: list[tuple[int, int, KnownGpu]]

    def __len__(self) -> int:
        return len(self.rows)

    def value(self, name: str) -> Floats:
        """The new readings of a metric, one for each point; NaN where there is none."""
        at = self.number_of.get(name)
        return np.full(len(self.rows), np.nan) if at is None else self.points[at]


class Intake:
    """Takes blocks in, and remembers the newest readings. ``wanted`` names the metrics that anyone asks for; others are dropped."""

    def __init__(self, wanted: Iterable[str], ahead_ns: int = AHEAD_NS, most_gpus: int = MOST_GPUS) -> None:
        self._ahead_ns = ahead_ns
        self.registry = Registry(most_gpus)
        self.table = NewestTable()
        self._wanted = frozenset(wanted)
        self._names_of = lru_cache(256)(self._chosen)
        # Points that were left out, by reason.
        self.left_out: Counter[str] = Counter()

    def wants(self, metric: str) -> bool:
        """Whether anyone asks for the metric, by its canonical name."""
        return whole_of(metric) in self._wanted and metric not in _LEFT_OUT

    def _chosen(self, metric_names: tuple[str, ...]) -> _Chosen:
        """The wanted ones among the block's metrics, by their places in it."""
        places: list[int] = []
        columns: dict[str, int] = {}
        for place, name in enumerate(metric_names):
            canonical = canonical_name(name)
            if not self.wants(canonical):
                continue
            column = self.table.column(canonical)
            if column is not None and canonical not in columns:
                places.append(place)
                columns[canonical] = column
        return _Chosen(
            np.array(places, np.int32),
            tuple(columns),
            {name: number for number, name in enumerate(columns)},
            np.array(list(columns.values()), np.int32),
            np.array([is_of_board(name) for name in columns], np.bool_),
        )

    def take(self, block: PointBlock, *, source: str, live: bool, received_ns: int) -> Arrivals | None:
        """The block's new readings, or None if there are none. ``keep`` them once they are judged."""
        if not block.points:
            return None
        names = tuple(block.metric_names)
        # A message may name any number of metrics: such lists are not kept.
        chosen = self._names_of(names) if len(names) <= _MOST_NAMES_KEPT else self._chosen(names)
        registry = self.registry
        rows_of: list[int] = []
        boards: list[int] = []
        known: list[KnownGpu | None] = []
        for gpu in block.gpus:
            rows_of.append(-1 if gpu.share else registry.row(gpu, source, live))
            known.append(registry.gpus[rows_of[-1]] if rows_of[-1] >= 0 else None)
            boards.append(registry.board_row(gpu, source, live) if gpu.mig_id else -1)
        gpu_at, times, lists = zip(*block.points, strict=True)
        times_ns = np.array(times, np.int64)
        ahead: dict[str, int] = {}
        late = np.zeros(len(times_ns), np.bool_)
        if live:
            late = times_ns > received_ns + self._ahead_ns
            if late.any():
                for at in np.flatnonzero(late).tolist():
                    host = block.gpus[gpu_at[at]].hostname
                    ahead[host] = max(ahead.get(host, 0), int(times_ns[at]) - received_ns)
                times_ns[late] = received_ns
        rows = np.array(rows_of, np.int32)[np.array(gpu_at, np.int64)]
        for at in np.flatnonzero(late).tolist() if ahead else ():
            times_ns[at] = registry.time_ahead(int(rows[at]), times[at], received_ns)
        shares = self._shares(block, rows, gpu_at, times_ns) if -1 in rows_of else []
        described = _descriptions(rows_of, known, gpu_at, times_ns)
        self.table.fit(registry.capacity)
        points = np.array(lists, np.float64).reshape(len(lists), -1)[:, chosen.places].T
        # No counter, code or temperature is infinite: such a reading is none.
        points[np.isinf(points)] = np.nan
        if max(boards) >= 0:
            rows, times_ns, points = _split_boards(
                rows, np.array(boards, np.int32)[np.array(gpu_at)], times_ns, points, chosen.of_board
            )
        if -1 in rows_of:
            own = rows >= 0
            rows, times_ns, points = rows[own], times_ns[own], points[:, own]
            if not len(rows):
                return self._arrivals(chosen, rows, times_ns, points, shares, ahead, described)
        order = np.lexsort((times_ns, rows))
        rows, times_ns, points = _merged(rows[order], times_ns[order], points[:, order])
        if len(rows) > MOST_POINTS:
            newest = _newest(rows, MOST_POINTS)
            self.left_out[TOO_MANY_TIMES] += len(rows) - int(newest.sum())
            rows, times_ns, points = rows[newest], times_ns[newest], points[:, newest]
        return self._arrivals(chosen, rows, times_ns, points, shares, ahead, described)

    def _shares(
        self, block: PointBlock, rows: Rows, gpu_at: Sequence[int], times_ns: Ints
    ) -> list[tuple[int, Gpu, int]]:
        found = []
        for at in np.flatnonzero(rows < 0).tolist():
            gpu = block.gpus[gpu_at[at]]
            row = self.registry.row_of.get(gpu.id)
            if row is not None:
                if self.registry.share(row, gpu, int(times_ns[at])):
                    found.append((row, gpu, int(times_ns[at])))
                else:
                    self.left_out[TOO_MANY_SHARES] += 1
        return found

    def _arrivals(
        self,
        chosen: _Chosen,
        rows: Rows,
        times_ns: Ints,
        points: Floats,
        shares: list[tuple[int, Gpu, int]],
        ahead: dict[str, int],
        described: list[tuple[int, int, KnownGpu]],
    ) -> Arrivals | None:
        table, columns = self.table, chosen.columns
        at = np.ix_(columns, rows)
        before, before_ns = table.values[at], table.times_ns[at]
        first = np.ones(len(rows), np.bool_)
        first[1:] = rows[1:] != rows[:-1]
        points = np.where(times_ns > before_ns, points, np.nan)
        if not first.all():
            _fill_before(points, times_ns, before, before_ns, first)
        there = ~np.isnan(points)
        kept = there.any(axis=0)
        # A sample without any wanted metric is a sample all the same, if it is newer than all before.
        newest = self.registry.last_ns[rows] if len(rows) else times_ns
        kept |= times_ns > newest
        if not kept.all():
            rows, times_ns, newest = rows[kept], times_ns[kept], newest[kept]
            points, before, before_ns = points[:, kept], before[:, kept], before_ns[:, kept]
        if not len(rows) and not shares:
            return None
        last = np.ones(len(rows), np.bool_)
        last[:-1] = rows[1:] != rows[:-1]
        return Arrivals(
            rows,
            times_ns,
            chosen.names,
            chosen.number_of,
            columns,
            points,
            before,
            before_ns,
            newest,
            last,
            shares,
            ahead,
            described,
        )

    def keep(self, arrivals: Arrivals, received_ns: int | None = None) -> None:
        """Remember these readings as the newest. ``received_ns``: when they arrived; without it, at their own times."""
        table = self.table
        rows, points, times = arrivals.rows, arrivals.points, arrivals.times_ns
        if not len(rows):
            return
        if arrivals.last.all():
            metric, point = np.nonzero(~np.isnan(points))
            place = arrivals.columns[metric], rows[point]
            table.values[place] = points[metric, point]
            table.times_ns[place] = times[point]
        else:
            for number, column in enumerate(arrivals.columns.tolist()):
                there = np.flatnonzero(~np.isnan(points[number]))
                # Of several to one place the last one stays: times of a GPU rise.
                table.values[column, rows[there]] = points[number, there]
                table.times_ns[column, rows[there]] = times[there]
        self._note_samples(rows, times, arrivals.newest_ns, received_ns)

    def _note_samples(self, rows: Rows, times: Ints, newest: Ints, received_ns: int | None) -> None:
        newer = times > newest
        self.registry.sample_all(rows[newer], times[newer], received_ns)


class _Chosen(NamedTuple):
    """The wanted metrics of a block: their places in it, their names, their columns of the table."""

    places: Rows
    names: tuple[str, ...]
    number_of: dict[str, int]
    columns: Rows
    of_board: Mask


def _descriptions(
    rows_of: Sequence[int], known: Sequence[KnownGpu | None], gpu_at: Sequence[int], times_ns: Ints
) -> list[tuple[int, int, KnownGpu]]:
    """When the descriptions of GPUs change that a block describes in several ways, from each one's first point on, by row and time."""
    own = [row for row in rows_of if row >= 0]
    if len(set(own)) == len(own):
        return []
    several = {row for row, count in Counter(own).items() if count > 1}
    points = sorted(
        (rows_of[at], time_ns, at)
        for at, time_ns in zip(gpu_at, times_ns.tolist(), strict=True)
        if rows_of[at] in several
    )
    found: list[tuple[int, int, KnownGpu]] = []
    for row, time_ns, at in points:
        gpu = known[at]
        if gpu is not None and (not found or found[-1][0] != row or found[-1][2] is not gpu):
            found.append((row, time_ns, gpu))
    return found


def _split_boards(
    rows: Rows, boards: Rows, times_ns: Ints, points: Floats, of_board: Mask
) -> tuple[Rows, Ints, Floats]:
    """A MIG instance repeats its board's metrics: those become points of the board."""
    parts = np.flatnonzero(boards >= 0)
    board_points = points[:, parts]
    board_points[~of_board] = np.nan
    own = points.copy()
    own[np.ix_(of_board, parts)] = np.nan
    return (
        np.concatenate([rows, boards[parts]]),
        np.concatenate([times_ns, times_ns[parts]]),
        np.concatenate([own, board_points], axis=1),
    )


def _merged(rows: Rows, times_ns: Ints, points: Floats) -> tuple[Rows, Ints, Floats]:
    """One point for each GPU and time. Where several have a value, the largest counts: they repeat a board's."""
    same = (rows[1:] == rows[:-1]) & (times_ns[1:] == times_ns[:-1])
    if not same.any():
        return rows, times_ns, points
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    return rows[starts], times_ns[starts], np.fmax.reduceat(points, starts, axis=1)


def _newest(rows: Rows, most: int) -> Mask:
    """Which points, sorted by row and time, are the newest of their GPUs: as many of each, ``most`` in all, and one of each at least."""
    starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
    counts = np.diff(starts, append=len(rows))
    enough, too_many = 1, int(counts.max()) + 1
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if int(np.minimum(counts, middle).sum()) <= most:
            enough = middle
        else:
            too_many = middle
    following = np.repeat(starts + counts, counts) - np.arange(len(rows))
    return np.asarray(following <= enough, np.bool_)


def _fill_before(points: Floats, times_ns: Ints, before: Floats, before_ns: Ints, first: Mask) -> None:
    """Set what came before to the GPU's earlier readings in the same block, where there are any. Changes ``before`` in place."""
    starts = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
    places = np.arange(len(first))
    for number in range(len(points)):
        there = ~np.isnan(points[number])
        newest = np.maximum.accumulate(np.where(there, places, -1))
        earlier = np.concatenate([[-1], newest[:-1]])
        within = earlier >= starts
        before[number, within] = points[number, earlier[within]]
        before_ns[number, within] = times_ns[earlier[within]]
