"""Answers questions about windows from raw readings or from roll-ups, whichever is quicker and right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

from django.conf import settings

from api.errors import BadRequest
from inventory.queries import count_boards, has_moved, instances_of
from inventory.rollup_state import complete
from readings.times import SECOND
from stores.aggregate.buckets import Buckets
from stores.base import GroupSeries, SeriesQuery
from stores.open import get_store, store_key
from stores.rollups.choice import (
    FleetFacts,
    NoTier,
    NotTold,
    Snap,
    TierPlan,
    TierRange,
    check_kept,
    choose_tier,
    plan_for,
)
from stores.rollups.open import get_rollups, retention_of, why_no_rollups
from stores.rollups.reader import read_tier
from stores.rollups.windows import STEP_NS, RollupStore, Tier

TierName = Literal["raw", "1m", "1h"]
RAW: Literal["raw"] = "raw"
# The same question in other windows, with the limits that go with them.
WithBuckets = Callable[[SeriesQuery, Buckets], SeriesQuery]
# Without ``every``, a day has at least this many windows.
_FEWEST_WINDOWS = 24


class TieredSeries(NamedTuple):
    """An answer: from which tier, to which question (its range and windows may have been fitted to the tier), and the groups."""

    tier: TierName
    query: SeriesQuery
    series: list[GroupSeries]


class StepChoice(NamedTuple):
    """The length of windows, and whether the client chose it; else longer ones will do, of which ``most`` make a good answer."""

    every_ns: int
    is_given: bool
    most: int


def answer_series(
    query: SeriesQuery, with_buckets: WithBuckets, step: StepChoice, snap: Snap, tier: TierName | None
) -> TieredSeries:
    """Answer a question from the tier that is asked for, or from the one that suits it.

    Raises BadRequest for what the tier cannot give exactly, saying what works, and what the stores raise.
    """
    if tier == RAW or (tier is None and not _may_be_kept(query)):
        return _from_raw(query)
    rollups = get_rollups()
    if rollups is None:
        if tier is not None:
            raise BadRequest(f"tier {tier} cannot be: {why_no_rollups()}, so there are no roll-ups; leave it out")
        return _from_raw(query)
    buckets = query.buckets
    counts = count_boards(
        hostnames=query.hostnames, models=query.models, uuids=[each.partition(":")[0] for each in query.gpus]
    )
    facts = FleetFacts(
        boards=counts.boards,
        has_instances=counts.instances > 0,
        has_moved=lambda: has_moved(buckets.start_ns, buckets.end_ns, query.hostnames),
        instances_of=instances_of,
        raw_since_ns=_oldest(settings.RETENTION_PERIOD),
        tiers={},
    )
    if tier is None and facts.is_light(buckets) and facts.raw_has(buckets.start_ns):
        return _from_raw(query)
    facts = replace(facts, tiers=_ranges())
    if tier is None and not facts.tiers:
        return _from_raw(query)
    wanted = _Wanted(query, with_buckets, step, snap, facts)
    try:
        return _from_tier(wanted, rollups, tier)
    except NoTier as reason:
        if tier is not None:
            hint = wanted.raw_hint() if isinstance(reason, NotTold) else wanted.hint(tier) or wanted.raw_hint()
            raise BadRequest(f"tier {tier} cannot answer this: {reason}{hint}") from None
        if not facts.raw_has(buckets.end_ns - 1) and (hint := wanted.hint(None)):
            raise BadRequest(f"raw readings of that time are gone, and {reason}{hint}") from None
    return _from_raw(query)


def _may_be_kept(query: SeriesQuery) -> bool:
    try:
        check_kept(query)
    except NoTier:
        return False
    return True


def _from_raw(query: SeriesQuery) -> TieredSeries:
    return TieredSeries(RAW, query, get_store().series(query))


class _Wanted(NamedTuple):
    """A question that a tier should answer."""

    query: SeriesQuery
    with_buckets: WithBuckets
    step: StepChoice
    snap: Snap
    facts: FleetFacts

    def plan(self, every_ns: int, tier: Tier | None) -> TierPlan:
        """How the tier, or the coarsest that can, answers with windows of this length. Raises NoTier."""
        query = self.with_buckets(self.query, replace(self.query.buckets, every_ns=every_ns))
        return (
            choose_tier(query, self.facts, self.snap) if tier is None else plan_for(query, tier, self.facts, self.snap)
        )

    def steps(self, tier: Tier | None) -> Iterator[int]:
        """The lengths of windows that may be, best first."""
        every = self.step.every_ns
        if self.step.is_given:
            yield every
            return
        shortest = STEP_NS[tier or "1m"]
        yield max(every, shortest)
        for step in STEP_NS.values():
            count = replace(self.query.buckets, every_ns=step).count
            is_fine = (
                tier is not None or count >= _FEWEST_WINDOWS or not self.facts.raw_has(self.query.buckets.start_ns)
            )
            if step >= shortest and is_fine and count <= self.step.most:
                yield step

    def hint(self, tier: Tier | None) -> str:
        """Which length of windows works, for the end of a message; empty if none does."""
        for name, step in STEP_NS.items():
            try:
                self.plan(step, tier)
            except NoTier:
                continue
            if replace(self.query.buckets, every_ns=step).count <= self.step.most:
                return f"; every={name} works"
        return ""

    def raw_hint(self) -> str:
        """The same for raw readings."""
        return "; tier=raw works" if self.facts.raw_has(self.query.buckets.start_ns) else ""


def _from_tier(wanted: _Wanted, rollups: RollupStore, tier: Tier | None) -> TieredSeries:
    """The answer from roll-ups. Raises NoTier, of several reasons the one for the windows that come first."""
    reasons: list[NoTier] = []
    for every_ns in dict.fromkeys(wanted.steps(tier)):
        try:
            plan = wanted.plan(every_ns, tier)
            return TieredSeries(plan.tier, plan.query, read_tier(plan, rollups, get_store()))
        except NoTier as reason:
            reasons.append(reason)
    raise reasons[0]


def _ranges() -> dict[Tier, TierRange]:
    """What is complete of each tier and not yet dropped. Two queries."""
    found: dict[Tier, TierRange] = {}
    for tier, step in STEP_NS.items():
        whole = complete(store_key(), tier)
        if whole is None:
            continue
        since_ns = max(whole.start_ns, -(-(_oldest(retention_of(tier)) or 0) // step) * step)
        if since_ns < whole.end_ns:
            found[tier] = TierRange(since_ns, whole.end_ns)
    return found


def _oldest(retention: float) -> int | None:
    """The time from which something with this retention in seconds (0: for ever) is kept."""
    return time.time_ns() - int(retention * SECOND) if retention else None
