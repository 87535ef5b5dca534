"""Which tier of roll-ups gives a question's answer exactly, and which parts of the range come from where.

Windows of a level add up to longer ones, with a few exceptions, which come from the windows of single GPUs (1h) or not at all:

- ``sum`` adds up means of boards, so it needs each board's mean over the whole window (and, with ``top``, over the range);
- ``increase`` leaves out what a GPU's first reading in the range adds, whenever that comes;
- where boards have MIG instances, the whole window decides which of them count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from readings.catalogue import combine_of, is_counter
from readings.times import SECOND, format_duration, format_time
from stores.aggregate.buckets import Buckets
from stores.aggregate.functions import PERCENTILES
from stores.aggregate.limits import LIGHT_READINGS
from stores.base import SeriesQuery
from stores.rollups.windows import (
    CARRIED,
    COUNT,
    HIGH,
    INCREASE,
    LAST,
    LEVELS,
    LOW,
    MEANS,
    STEP_NS,
    TOTAL,
    Level,
    Tier,
    stats_of,
)

# How often GPUs are read, for how much a question would read. Nothing depends on it but the choice.
INTERVAL_NS = 10 * SECOND
# Raw readings go in whole pieces of the store, and a question takes a while to arrive.
_RETENTION_SLACK_NS = 300 * SECOND
# A window is rolled up some time after its end.
_USUAL_LAG_NS = 300 * SECOND
_COARSEST_FIRST: tuple[Tier, ...] = ("1h", "1m")


class NoTier(Exception):
    """A tier cannot give the answer exactly. The text says why, and what works."""


class NotTold(NoTier):
    """The windows that were read do not tell the answer exactly: others of the tier would not either."""


class TierRange(NamedTuple):
    """Every window that begins in [since, until) is there, or had no reading. Both are whole steps."""

    since_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFacts:
    """What decides on the tier beside the question.

    ``boards`` is how many physical GPUs the question is about, ``has_instances`` whether any of them has MIG instances, ``has_moved``
    tells whether one of them changed its host in the range, and ``instances_of`` the ids of the MIG instances of boards. Raw readings are kept from ``raw_since_ns`` on; None: all of them.
    """

    boards: int
    has_instances: bool
    has_moved: Callable[[], bool]
    instances_of: Callable[[Sequence[str]], Sequence[str]]
    raw_since_ns: int | None
    tiers: Mapping[Tier, TierRange]

    def raw_has(self, start_ns: int) -> bool:
        """Whether raw readings are kept from this time on."""
        return self.raw_since_ns is None or start_ns >= self.raw_since_ns - _RETENTION_SLACK_NS

    def combine_instances(self, query: SeriesQuery) -> bool:
        """Whether boards of the answer may be made of MIG instances."""
        return self.has_instances and not query.mig

    def is_light(self, buckets: Buckets) -> bool:
        """Whether raw readings answer at once."""
        return self.boards * (buckets.end_ns - buckets.start_ns) <= LIGHT_READINGS * INTERVAL_NS


class Snap(NamedTuple):
    """Which ends of the range may move to whole steps that are complete: those that were told relative to now, or not at all."""

    start: bool
    end: bool


NO_SNAP = Snap(start=False, end=False)


class RangePart(NamedTuple):
    """A part of the range, [start, end), and where it comes from."""

    source: Tier | Literal["raw"]
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPlan:
    """How to answer ``query``, whose range is what the answer covers. ``parts`` are in order of time; between them nothing is kept.

    ``by_source``: each GPU's windows (level ``gpu``) are aggregated as readings are. Otherwise windows of the level add up, and
    with ``one_key`` a group's value in a step must come from one key. ``apart``: the windows of raw parts are in no other part.
    ``raw_gpus`` are the ids to read raw parts of; none: all.
    """

    query: SeriesQuery
    tier: Tier
    level: Level
    stats: tuple[str, ...]
    parts: tuple[RangePart, ...]
    by_source: bool
    one_key: bool
    apart: bool
    boards: int
    raw_gpus: tuple[str, ...]


def level_of(query: SeriesQuery) -> Level:
    """The coarsest level that has what the question is about."""
    if query.by == "gpu" or query.gpus or query.mig:
        return "gpu"
    if query.by == "host" or query.hostnames:
        return "host"
    return "model" if query.by == "model" or query.models else "fleet"


def plan_for(query: SeriesQuery, tier: Tier, facts: FleetFacts, snap: Snap = NO_SNAP) -> TierPlan:
    """How a tier answers the question. Raises NoTier."""
    step, every = STEP_NS[tier], query.buckets.every_ns
    if tier not in facts.tiers:
        raise NoTier(f"roll-ups of {tier} have no complete windows yet")
    check_kept(query)
    if every % step:
        raise NoTier(
            f"windows of {format_duration(every)} are not made of whole ones of {tier}: use every={tier} or a multiple of it"
        )
    level, by_source = _road(query, tier, facts)
    stats = _stats(query, by_source=by_source, at_gpu=level == "gpu")
    if not set(stats) <= set(stats_of(query.metric_name, level)):
        raise NoTier(f"roll-ups keep {_kept_of(query.metric_name)}: agg {query.aggregate} comes from raw readings")
    instances = facts.combine_instances(query)
    apart = not by_source and (instances or MEANS in stats)
    query = replace(query, buckets=_snapped(query.buckets, step, facts.tiers[tier], snap))
    fine: Tier | None = "1m" if tier == "1h" and not apart and not by_source and level in LEVELS["1m"] else None
    parts = _parts(query.buckets, tier, fine, facts)
    return TierPlan(
        query=query,
        tier=tier,
        level=level,
        stats=stats,
        parts=parts,
        by_source=by_source,
        one_key=instances or query.aggregate == "last",
        apart=apart,
        boards=facts.boards,
        raw_gpus=(*query.gpus, *facts.instances_of(query.gpus)) if query.gpus and facts.has_instances else query.gpus,
    )


def choose_tier(query: SeriesQuery, facts: FleetFacts, snap: Snap = NO_SNAP) -> TierPlan:
    """How the coarsest tier that can answers the question. Raises NoTier with the reason of the finest."""
    reason = NoTier("there are no roll-ups")
    for tier in _COARSEST_FIRST:
        try:
            return plan_for(query, tier, facts, snap)
        except NoTier as error:
            reason = error
    raise reason


def check_kept(query: SeriesQuery) -> None:
    """Raise NoTier for what no tier keeps, of whatever range."""
    if query.assignments is not None:
        raise NoTier("roll-ups keep no pods and namespaces: they come from raw readings")
    if query.aggregate in PERCENTILES:
        raise NoTier(f"roll-ups keep no percentiles: agg {query.aggregate} comes from raw readings")


def _kept_of(metric_name: str) -> str:
    if combine_of(metric_name) == "never":
        return "only the last reading of codes and bitmasks"
    return "no sums of counters" if is_counter(metric_name) else "only some aggregates"


def _road(query: SeriesQuery, tier: Tier, facts: FleetFacts) -> tuple[Level, bool]:
    """The level to read, and whether its windows are aggregated by GPU. Raises NoTier."""
    level = level_of(query)
    reason = _why_not_by_group(query, tier, level, facts)
    if reason is None:
        return level, False
    if tier == "1h" and query.aggregate != "last":
        if query.aggregate != "increase" or not (query.hostnames or query.models) or not facts.has_moved():
            return "gpu", True
        reason = "a GPU changed its host in that time, and what it counted on the way comes from raw readings"
    raise NoTier(reason)


def _why_not_by_group(query: SeriesQuery, tier: Tier, level: Level, facts: FleetFacts) -> str | None:
    """Why windows of the level do not add up to the answer; None: they do."""
    step = STEP_NS[tier]
    # The windows of the answer are windows of the tier, and nothing else is asked.
    same = query.buckets.every_ns == step and query.top is None
    if level not in LEVELS[tier]:
        return f"roll-ups of {tier} have no single GPUs: use every=1h or a multiple of it"
    if query.aggregate == "increase":
        return f"roll-ups of {tier} tell no increase of a range exactly: use every=1h or a multiple of it"
    instances = facts.combine_instances(query)
    if instances and not same:
        return f"which MIG instances count is decided for each window: use every={tier} without top, or every=1h or a multiple of it"
    if query.aggregate == "sum" and (instances or query.by != "gpu"):
        if not same or level == "gpu":
            return f"a sum adds up each GPU's mean in the window: use every={tier} without top, or every=1h or a multiple of it"
        if query.by != "host" and query.hostnames and facts.has_moved():
            return "a GPU changed its host in that time, and would be added twice"
    return None


def _stats(query: SeriesQuery, *, by_source: bool, at_gpu: bool) -> tuple[str, ...]:
    """The statistics that the answer is made of."""
    match query.aggregate:
        case "increase":
            return (COUNT, INCREASE, CARRIED, LAST)
        case "last":
            return (LAST,)
        case "max" | "min":
            extreme = HIGH if query.aggregate == "max" else LOW
            return (COUNT, TOTAL, extreme) if by_source else (extreme,)
        case "count":
            return (COUNT, TOTAL) if by_source else (COUNT,)
        case "sum":
            return (COUNT, TOTAL) if by_source or at_gpu else (MEANS,)
    return (COUNT, TOTAL)


def _snapped(buckets: Buckets, step: int, have: TierRange, snap: Snap) -> Buckets:
    start, end = buckets.start_ns, buckets.end_ns
    # Where roll-ups are behind, what is missing comes from elsewhere, as for fixed times.
    if snap.end and end - have.until_ns <= step + _USUAL_LAG_NS:
        end = min(end // step * step, have.until_ns)
    if snap.start:
        start = start // step * step
    if end <= start:
        raise NoTier(
            f"windows of {format_duration(step)} are complete until {format_time(have.until_ns)} so far: ask for an earlier range"
        )
    return Buckets(start, end, buckets.every_ns)


def _parts(buckets: Buckets, tier: Tier, fine: Tier | None, facts: FleetFacts) -> tuple[RangePart, ...]:
    """The parts of the range. Raises NoTier where one is gone, or where the tier has nothing of it."""
    start, end = buckets.start_ns, buckets.end_ns
    low, high = _inside(start, end, tier, facts.tiers[tier])
    if low >= high:
        have = facts.tiers[tier]
        raise NoTier(
            f"no whole window of {tier} is in that range: they reach from {format_time(have.since_ns)} to {format_time(have.until_ns)}"
        )
    parts = [*_edge(start, low, fine, facts), RangePart(tier, low, high), *_edge(high, end, fine, facts)]
    return tuple(_merged([part for part in parts if part is not None]))


def _inside(start: int, end: int, tier: Tier, have: TierRange) -> tuple[int, int]:
    step = STEP_NS[tier]
    return max(-(-start // step) * step, have.since_ns), min(end // step * step, have.until_ns)


def _edge(start: int, end: int, fine: Tier | None, facts: FleetFacts) -> list[RangePart | None]:
    """What is left of the range beside the tier's windows: from the finer tier where it has them, else from raw readings."""
    if start >= end:
        return []
    if fine is not None and fine in facts.tiers:
        low, high = _inside(start, end, fine, facts.tiers[fine])
        if low < high:
            return [*_edge(start, low, None, facts), RangePart(fine, low, high), *_edge(high, end, None, facts)]
    if facts.raw_has(start):
        return [RangePart("raw", start, end)]
    # Before the oldest window there may be some raw readings left, or none at all.
    oldest = min(have.since_ns for have in facts.tiers.values())
    if end <= oldest and facts.raw_since_ns is not None:
        return [RangePart("raw", facts.raw_since_ns, end) if facts.raw_since_ns < end else None]
    step = format_duration(max(STEP_NS[tier] for tier in facts.tiers))
    raise NoTier(
        f"raw readings before {format_time(facts.raw_since_ns or 0)} are gone: let start_time and end_time be whole steps of {step}"
    )


def _merged(parts: list[RangePart]) -> list[RangePart]:
    merged: list[RangePart] = []
    for part in parts:
        if merged and merged[-1].source == part.source and merged[-1].end_ns == part.start_ns:
            merged[-1] = merged[-1]._replace(end_ns=part.end_ns)
        else:
            merged.append(part)
    return merged
