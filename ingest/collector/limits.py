"""Limits on what clients may make new: GPUs, hosts and metric names, in all and in an hour.

Each of them stays for long: as a series, a row of the inventory, an entry of a list. No honest fleet meets the defaults.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from operator import attrgetter

from readings.checks import TOO_MANY_GPUS, TOO_MANY_METRICS, Refusal, Refusals
from readings.model import Point, PointBlock

logger = logging.getLogger(__name__)

HOUR_SECONDS = 3600.0
_identity = attrgetter("uuid", "mig_id")
_hostname = attrgetter("hostname")
_NO_HOST = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """How many GPUs (with MIG instances; as many hosts) and metric names there may be, and may be new in an hour."""

    gpus: int = 500_000
    new_gpus: int = 250_000
    metrics: int = 20_000
    new_metrics: int = 10_000


@dataclass(frozen=True, slots=True)
class Known:
    """What is there already: (uuid, MIG id) of each GPU, host names, canonical metric names."""

    gpus: set[tuple[str, str]]
    hosts: set[str]
    metrics: set[str]


class IntakeLimit:
    """One kind of thing. ``settings`` are the names of those that raise its two bounds."""

    def __init__(self, what: str, settings: tuple[str, str], most: int, most_new: int) -> None:
        self.known: set[Hashable] = set()
        self._what = what
        self._settings = settings
        self._most = most
        self._most_new = most_new
        self._new: set[Hashable] = set()
        self._hour_began = 0.0
        self._told = False

    def load(self, known: Iterable[Hashable]) -> None:
        """Replace what is known, but for what was new in this hour and may not be saved yet."""
        self.known = {*known, *self._new}

    def refuse(self, things: Iterable[Hashable], now: float) -> dict[Hashable, str]:
        """Those of the things that are not known and cannot become so, each with the limit that says so. Others are known then."""
        refused: dict[Hashable, str] = {}
        for thing in things:
            if thing in self.known:
                continue
            if now - self._hour_began >= HOUR_SECONDS:
                self._hour_began, self._new, self._told = now, set(), False
            if len(self.known) >= self._most:
                refused[thing] = f"there are {len(self.known)} {self._what} already: {self._settings[0]} allows no more"
            elif len(self._new) >= self._most_new:
                new = f"there were {len(self._new)} new {self._what} within an hour"
                refused[thing] = f"{new}: {self._settings[1]} allows no more"
            else:
                self.known.add(thing)
                self._new.add(thing)
        if refused and not self._told:
            self._told = True
            logger.warning("refusing what is new for up to an hour: %s", next(iter(refused.values())))
        return refused


class IntakeLimits:
    """Takes out of blocks what is beyond the limits. ``clock`` gives monotonic seconds."""

    def __init__(self, config: LimitsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        gpus, metrics = ("MAX_GPUS", "MAX_NEW_GPUS"), ("MAX_METRICS", "MAX_NEW_METRICS")
        self._gpus = IntakeLimit("GPUs", gpus, config.gpus, config.new_gpus)
        self._hosts = IntakeLimit("hosts", gpus, config.gpus + 1, config.new_gpus)
        self._hosts.load([_NO_HOST])
        self._metrics = IntakeLimit("metric names", metrics, config.metrics, config.new_metrics)
        self._clock = clock
        self._loaded_at = -HOUR_SECONDS
        self._refused_since = True

    @property
    def is_due(self) -> bool:
        """Whether ``load`` should be called: something was refused since the last time, which is a minute ago."""
        return self._refused_since and self._clock() - self._loaded_at >= 60.0

    def load(self, known: Known) -> None:
        """Takes over what store and inventory hold now."""
        self._gpus.load(known.gpus)
        self._hosts.load({_NO_HOST, *known.hosts})
        self._metrics.load(known.metrics)
        self._loaded_at, self._refused_since = self._clock(), False

    def check(self, block: PointBlock) -> tuple[PointBlock, Refusals | None]:
        """The block without the readings beyond the limits, and their refusals, if there are any."""
        gpus = block.gpus
        if (
            self._gpus.known.issuperset(map(_identity, gpus))
            and self._metrics.known.issuperset(block.metric_names)
            and self._hosts.known.issuperset(map(_hostname, gpus))
        ):
            return block, None
        return self._sift(block)

    def _sift(self, block: PointBlock) -> tuple[PointBlock, Refusals | None]:
        now = self._clock()
        used = {index: block.gpus[index] for index, _, _ in block.points}
        columns = set(range(len(block.metric_names)))
        empty = columns.copy()
        for _, _, values in block.points:
            if not empty:
                break
            empty = {column for column in empty if values[column] is None}
        bad_names = self._metrics.refuse([block.metric_names[column] for column in sorted(columns - empty)], now)
        bad_gpus = self._gpus.refuse(map(_identity, used.values()), now)
        good = [gpu for gpu in used.values() if _identity(gpu) not in bad_gpus]
        bad_hosts = self._hosts.refuse(map(_hostname, good), now)
        if not (bad_names or bad_gpus or bad_hosts):
            return block, None
        self._refused_since = True
        why_not = {
            index: why
            for index, gpu in used.items()
            if (why := bad_gpus.get(_identity(gpu)) or bad_hosts.get(gpu.hostname))
        }
        refused_columns = {
            column: why for column, name in enumerate(block.metric_names) if (why := bad_names.get(name))
        }
        return _without(block, why_not, refused_columns)


def _without(block: PointBlock, gpus: dict[int, str], columns: dict[int, str]) -> tuple[PointBlock, Refusals]:
    """The block without these GPUs and columns, and the refusals of their readings, with the reasons given."""
    refusals = Refusals()
    kept = [column for column in range(len(block.metric_names)) if column not in columns]
    points: list[Point] = []
    for point in block.points:
        index, time_ns, values = point
        why = gpus.get(index)
        refused = range(len(values)) if why else columns
        for column in refused:
            value = values[column]
            if value is None:
                continue
            reason = TOO_MANY_GPUS if why else TOO_MANY_METRICS
            if refusals.full:
                refusals.counts[reason] += 1
                continue
            gpu, name = block.gpus[index], block.metric_names[column]
            detail = f"{gpu.id} {name}: {why or columns[column]}"
            refusals.refuse(Refusal(reason, detail, PointBlock([gpu], [name], [(0, time_ns, [value])])))
        if why:
            continue
        left = [values[column] for column in kept] if columns else values
        if left.count(None) < len(left):
            points.append((index, time_ns, left))
    return PointBlock(block.gpus, [block.metric_names[column] for column in kept], points), refusals
