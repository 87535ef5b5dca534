"""Answers who held GPUs and used them, from what the meter counted.

A range consists of whole hours, of whole days where hours were folded, and may end now. A GPU counts in it from its first sample of all on
to its end; a GPU that is no part of the fleet any more (retired, replaced in its slot, taken out of the inventory), to its last sample.
So held + free + unknown time is the time of all GPUs, exactly.

Held time belongs to its holder, on the host where it was spent. Free time and unknown time have no holder; unknown time belongs to the host
where the GPU was last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple

import numpy as np
from django.conf import settings
from django.db.models import DateTimeField, PositiveSmallIntegerField, Value
from numpy.typing import NDArray

from health.models import UsagePeriod, WatchState
from health.usage.meter import MeterStateError, SeenBoard, UsageMeter
from health.usage.packing import DAY_HOURS, FIGURES, FREE, GAP, HOUR_NS, BoardPlace, Figure, Holder, Ints, Period
from health.usage.rows import RowSums, UsageRow, Whose, sum_exactly
from health.usage.saving import load_meter, logger, read_period
from inventory.fleet import fleet_now
from inventory.models import GPU, Host
from readings.times import to_datetime, to_ns

UsageBy = Literal["gpu", "host", "model", "namespace", "pod", "owner", "tag"]
# The groups whose free and unknown time belongs to none of them.
HOLDER_GROUPS = ("namespace", "pod")
DAY_NS = DAY_HOURS * HOUR_NS
DEFAULT_RANGE_NS = 7 * DAY_NS
MOST_ROWS = 200_000
_LATEST_NS = (1 << 63) - 2 * DAY_NS

_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """What to answer. Times in ns; empty filters take everything. ``tag`` names the tag of by=tag."""

    start_ns: int
    end_ns: int
    by: UsageBy = "namespace"
    tag: str = ""
    per_day: bool = False
    hostnames: Collection[str] = ()
    models: Collection[str] = ()
    namespaces: Collection[str] = ()
    pods: Collection[str] = ()

    @property
    def has_holder_filter(self) -> bool:
        """Whether only the time of some holders is asked for."""
        return bool(self.namespaces or self.pods)


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The answer. ``start_ns`` to ``end_ns`` is the range that was used. ``rows`` come with the most idle time first, days in order.

    ``expected_ns`` is the time of all GPUs by itself: their number x the range, less the time before each one's first sample. ``newest_ns`` is
    the newest sample of all, 0 without any.
    """

    start_ns: int
    end_ns: int
    newest_ns: int
    rows: list[UsageRow]
    total: UsageRow
    expected_ns: int

    @property
    def is_exact(self) -> bool:
        """Whether held + free + unknown = all the time of the GPUs."""
        return self.total.total_ns == self.expected_ns


class _LoadedUsage(NamedTuple):
    periods: list[Period]
    boards: list[SeenBoard]
    newest_ns: int


class TooManyRows(Exception):
    """The answer would have ``rows`` rows."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"{rows} rows")
        self.rows = rows


def usage_report(question: UsageQuestion, now_ns: int | None = None, *, most_rows: int = MOST_ROWS) -> UsageReport:
    """The answer to a question. Raises TooManyRows and DatabaseError."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    # Nothing is older than 1970, and whole days must fit 64 bits.
    start_ns = min(max(question.start_ns, 0), _LATEST_NS) // HOUR_NS * HOUR_NS
    asked_end_ns = -(-min(max(question.end_ns, 0), _LATEST_NS) // HOUR_NS) * HOUR_NS
    loaded = _load(start_ns, asked_end_ns)
    end_ns = asked_end_ns if asked_end_ns <= now_ns else min(max(now_ns, loaded.newest_ns), asked_end_ns)
    start_ns = min([start_ns, *(period.start_ns for period in loaded.periods)])
    end_ns = max([start_ns, end_ns, *(period.end_ns for period in loaded.periods if period.hours > 1)])
    return _Reckoner(question, loaded, start_ns, end_ns).report(most_rows)


def _load(start_ns: int, end_ns: int) -> _LoadedUsage:
    """What is kept of these hours, and what the meter has not given away yet, as they are at one moment."""
    kept = UsagePeriod.objects.filter(
        start__gt=to_datetime(max(start_ns, 0)) - timedelta(hours=DAY_HOURS), start__lt=to_datetime(max(end_ns, 0))
    )
    nothing = Value(None, output_field=DateTimeField(null=True))
    # One statement sees one moment: an hour that is being handed over is in one of the two.
    rows = kept.order_by().values_list("start", "hours", "data")
    state = WatchState.objects.filter(pk=1).values_list(
        nothing, Value(0, output_field=PositiveSmallIntegerField()), "usage"
    )
    periods, meter = [], UsageMeter()
    for begin, hours, content in rows.union(state, all=True):
        if not hours:
            meter = _meter(bytes(content))
        elif to_ns(begin) + hours * HOUR_NS > start_ns:
            periods.append(read_period(content, to_ns(begin), hours))
    periods += [period for period in meter.open_hours() if start_ns < period.end_ns and period.start_ns < end_ns]
    return _LoadedUsage(periods, meter.boards(), meter.newest_ns)


def _meter(state: bytes) -> UsageMeter:
    try:
        return load_meter(state)
    except MeterStateError as error:
        logger.error("usage of the newest hours is left out: %s", error)
        return UsageMeter()


class _UsageCells(NamedTuple):
    """The cells of all periods, one each; ``figures`` is Figure x cells."""

    place: Ints
    holder: Ints
    period: Ints
    day: Ints
    figures: Ints


class _RowFacts(NamedTuple):
    """What rows are made of: cells, and after them the unknown time of GPUs (``day`` and ``gpu`` are of both)."""

    day: Ints
    gpu: Ints
    owner: Ints
    figures: Ints
    unknown: Ints
    covered: NDArray[np.float64]
    models: tuple[tuple[str, ...], Ints] | None

    def rows(
        self, names: list[tuple[str, ...]], group: Ints, days: int, of_holders: bool
    ) -> list[tuple[int, UsageRow]]:
        """The rows by group and day. ``of_holders``: their coverage is that of what they held."""
        sums = RowSums(names, days)
        cells = len(self.owner)
        of_cells, day = group[:cells], self.day[:cells]
        sums.add_cells(of_cells, day, self.owner, self.figures)
        sums.add_unknown(group[cells:], self.day[cells:], self.unknown)
        sums.count_gpus(group, self.day, self.gpu)
        if of_holders:
            sums.weigh(of_cells, day, self.owner, self.figures[Figure.KNOWN], self.covered)
        if self.models is not None:
            sums.price(of_cells, day, self.owner, self.figures, self.models)
        return sums.all(of_holders)


class _Reckoner:
    """Works one answer out."""

    def __init__(self, question: UsageQuestion, loaded: _LoadedUsage, start_ns: int, end_ns: int) -> None:
        self._question = question
        self._start, self._end = start_ns, end_ns
        self._newest_ns = loaded.newest_ns
        self._places: dict[BoardPlace, int] = {}
        self._holders: dict[Holder, int] = {}
        self._gpus: dict[str, int] = {}
        self._cells = self._read(loaded)
        place_gpu = [self._gpus.setdefault(place.uuid, len(self._gpus)) for place in self._places]
        self._gpu_of = np.array(place_gpu, np.int64)
        self._find_times(loaded)
        self._bounds = self._days()

    def _read(self, loaded: _LoadedUsage) -> _UsageCells:
        place_parts, holder_parts, counts = [], [], []
        places, holders = self._places, self._holders
        self._place_times: list[tuple[Ints, Ints, Ints]] = []
        # Mostly the same objects in one period after the other.
        known_places: dict[int, Ints] = {}
        known_holders: dict[int, Ints] = {}
        for period in loaded.periods:
            of_place = known_places.get(id(period.places))
            if of_place is None:
                of_place = np.array([places.setdefault(place, len(places)) for place in period.places], np.int64)
                known_places[id(period.places)] = of_place
            of_holder = known_holders.get(id(period.holders))
            if of_holder is None:
                codes = [holders.setdefault(holder, len(holders)) for holder in period.holders]
                of_holder = known_holders[id(period.holders)] = np.array([*codes, GAP, FREE], np.int64)
            place_parts.append(of_place[period.place])
            holder_parts.append(of_holder[period.holder])
            counts.append(len(period.place))
            self._place_times.append((of_place, period.first_ns, period.last_ns))
        for board in loaded.boards:
            places.setdefault(board.place, len(places))
        period_of = np.repeat(np.arange(len(counts)), counts)
        starts = np.array([period.start_ns for period in loaded.periods], np.int64)
        self._period_bounds = starts, np.array([period.end_ns for period in loaded.periods], np.int64)
        days = starts // DAY_NS if self._question.per_day else np.zeros(len(starts), np.int64)
        self._first_day = int(days.min()) if len(days) else 0
        return _UsageCells(
            np.concatenate([*place_parts, np.zeros(0, np.int64)]),
            np.concatenate([*holder_parts, np.zeros(0, np.int64)]),
            period_of,
            (days - self._first_day)[period_of],
            np.concatenate([np.zeros((FIGURES, 0), np.int64), *(each.figures for each in loaded.periods)], axis=1),
        )

    def _find_times(self, loaded: _LoadedUsage) -> None:
        """From when on and until when each GPU counts, and where it was last."""
        count = len(self._gpus)
        first, last = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
        seen_last = np.zeros(len(self._places), np.int64)
        for of_place, first_ns, last_ns in self._place_times:
            np.minimum.at(first, self._gpu_of[of_place], first_ns)
            np.maximum.at(seen_last, of_place, last_ns)
        np.maximum.at(last, self._gpu_of, seen_last)
        order = np.argsort(seen_last, kind="stable")
        self._latest = np.zeros(count, np.int64)
        self._latest[self._gpu_of[order]] = order
        for board in loaded.boards:
            gpu = self._gpus[board.place.uuid]
            first[gpu], last[gpu] = min(first[gpu], board.first_ns), max(last[gpu], board.last_ns)
            if not seen_last[self._latest[gpu]]:
                self._latest[gpu] = self._places[board.place]
        fleet = set(fleet_now().ids)
        in_fleet = np.array([uuid in fleet for uuid in self._gpus], np.bool_)
        self._first, self._stop = first, np.where(in_fleet, np.iinfo(np.int64).max, last)

    def _days(self) -> tuple[Ints, Ints]:
        """The beginning and the end of each day, or of the range."""
        if not self._question.per_day:
            return np.array([self._start]), np.array([self._end])
        begin = int(self._first.min()) if len(self._first) else self._end
        first = max(self._start, min(begin, self._end)) // DAY_NS
        first = min(first, self._first_day) if len(self._cells.day) else first
        self._cells = self._cells._replace(day=self._cells.day + self._first_day - first)
        self._first_day = first
        starts = np.arange(first, -(-self._end // DAY_NS)) * DAY_NS
        return np.maximum(starts, self._start), np.minimum(starts + DAY_NS, self._end)

    def _time_of(self, gpu: Ints, start: Ints, end: Ints) -> Ints:
        """How much of [start, end) the GPUs count for."""
        counted: Ints = np.minimum(end, self._stop[gpu]) - np.maximum(start, self._first[gpu])
        return np.maximum(counted, 0)

    def report(self, most_rows: int) -> UsageReport:
        """The answer. Raises TooManyRows."""
        question, cells = self._question, self._cells
        gpu = self._gpu_of[cells.place]
        starts, ends = self._bounds
        days, gpus = len(starts), len(self._gpus)
        everyone = np.arange(gpus)
        known = np.zeros((gpus, days), np.int64)
        np.add.at(known, (gpu, cells.day), cells.figures[Figure.KNOWN])
        total = self._time_of(everyone[:, None], starts, ends)
        unknown = np.maximum(total - known, 0)
        wanted_place = self._wanted_places()
        wanted = wanted_place[cells.place]
        is_held = cells.holder >= 0
        if question.has_holder_filter:
            wanted = wanted & is_held & self._wanted_holders()[cells.holder]
            unknown = np.zeros_like(unknown)
        here = wanted_place[self._latest] if gpus else np.zeros(0, np.bool_)
        unknown[~here] = 0
        expected = sum_exactly(total[here]) + sum_exactly(known[~here])
        elsewhere = ~wanted_place[cells.place]
        expected -= sum_exactly(cells.figures[Figure.KNOWN][elsewhere])
        grouping = self._grouping()
        group = np.where(
            is_held & grouping.is_of_holder, grouping.of_holder[cells.holder], grouping.of_place[cells.place]
        )
        owner = np.where(is_held, Whose.HELD, np.where(cells.holder == GAP, Whose.GAP, Whose.FREE))
        chosen = slice(None) if wanted.all() else np.flatnonzero(wanted)
        kept = _UsageCells(*(column[..., chosen] for column in cells))
        of_holders = grouping.is_of_holder or question.has_holder_filter
        at, day = np.nonzero(unknown)
        unknown_group = grouping.of_place[self._latest[at]] if len(at) else at
        keys = np.concatenate([group[chosen] * days + kept.day, unknown_group * days + day])
        if (count := len(np.unique(keys))) > most_rows:
            raise TooManyRows(count)
        facts = _RowFacts(
            np.concatenate([kept.day, day]),
            np.concatenate([gpu[chosen], at]),
            owner[chosen],
            kept.figures,
            unknown[at, day],
            self._covered(gpu)[chosen] if of_holders else np.zeros(0),
            self._models(kept.place) if settings.USAGE_PRICES else None,
        )
        groups = np.concatenate([group[chosen], unknown_group])
        found = facts.rows(grouping.names, groups, days, of_holders)
        if question.per_day:
            for row_day, row in found:
                row.day_ns = (self._first_day + row_day) * DAY_NS
        everything = facts._replace(day=np.zeros_like(facts.day))
        of_all = everything.rows([()], np.zeros_like(groups), 1, question.has_holder_filter)
        whole = of_all[0][1] if of_all else UsageRow(())
        return UsageReport(
            self._start,
            self._end,
            self._newest_ns,
            [row for _, row in found],
            whole,
            whole.total_ns if question.has_holder_filter else expected,
        )

    def _covered(self, gpu: Ints) -> NDArray[np.float64]:
        """For each cell, the share of its period that is known of its GPU."""
        cells, periods = self._cells, len(self._period_bounds[0])
        pair = gpu * periods + cells.period
        shape = len(self._gpus), periods
        # Whole numbers below 2**53 are exact in a sum of floats.
        known = np.bincount(pair, weights=cells.figures[Figure.KNOWN], minlength=shape[0] * periods).reshape(shape)
        everyone = np.arange(len(self._gpus))[:, None]
        total = self._time_of(everyone, self._period_bounds[0], np.minimum(self._period_bounds[1], self._end))
        return np.asarray((known / np.maximum(total, 1)).reshape(-1)[pair])

    def _wanted_places(self) -> _Mask:
        hosts, models = set(self._question.hostnames), set(self._question.models)
        return np.array(
            [
                (not hosts or place.hostname in hosts) and (not models or place.model in models)
                for place in self._places
            ],
            np.bool_,
        )

    def _wanted_holders(self) -> _Mask:
        namespaces, pods = set(self._question.namespaces), set(self._question.pods)
        wanted = [
            (not namespaces or holder.namespace in namespaces) and (not pods or holder.pod in pods)
            for holder in self._holders
        ]
        return np.array([*wanted, False, False], np.bool_)

    def _models(self, place: Ints) -> tuple[tuple[str, ...], Ints]:
        codes: dict[str, int] = {}
        of_place = np.array([codes.setdefault(each.model, len(codes)) for each in self._places], np.int64)
        return tuple(codes), of_place[place] if len(place) else place

    def _grouping(self) -> _Grouping:
        codes: dict[tuple[str, ...], int] = {}
        by = self._question.by
        if by in HOLDER_GROUPS:
            is_pod = by == "pod"
            nobody = codes.setdefault(("", "") if is_pod else ("",), 0)
            names = [tuple(holder) if is_pod else (holder.namespace,) for holder in self._holders]
            of_holder = [codes.setdefault(name, len(codes)) for name in names]
            of_place = np.full(len(self._places), nobody)
            return _Grouping(list(codes), of_place, np.array([*of_holder, nobody, nobody], np.int64), True)
        name_of = self._name_of()
        of_place = np.array([codes.setdefault((name_of(place),), len(codes)) for place in self._places], np.int64)
        return _Grouping(list(codes), of_place, np.zeros(len(self._holders) + 2, np.int64), False)

    def _name_of(self) -> Callable[[BoardPlace], str]:
        match self._question.by:
            case "gpu":
                return lambda place: place.uuid
            case "host":
                return lambda place: place.hostname
            case "model":
                return lambda place: place.model
        # What people noted about the GPU counts before what they noted about its host.
        hosts, gpus = Host.objects.values_list("name", "owner", "tags"), GPU.objects.filter(mig_id="")
        of_host = {name: self._noted(owner, tags) for name, owner, tags in hosts}
        of_gpu = {
            uuid: self._noted(owner, tags)
            for uuid, owner, tags in gpus.exclude(owner="", tags={}).values_list("uuid", "owner", "tags")
        }
        return lambda place: of_gpu.get(place.uuid) or of_host.get(place.hostname, "")

    def _noted(self, owner: str, tags: Mapping[str, str]) -> str:
        return owner if self._question.by == "owner" else tags.get(self._question.tag, "")


class _Grouping(NamedTuple):
    """The group of each place, and of each holder where time that is held belongs to its holder."""

    names: list[tuple[str, ...]]
    of_place: Ints
    of_holder: Ints
    is_of_holder: bool
