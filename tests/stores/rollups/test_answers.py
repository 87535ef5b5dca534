"""On the stores that keep roll-ups: questions are answered from windows as from the readings that these were made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from typing import NamedTuple, get_args

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from readings.model import Gpu, PointBlock
from stores.base import Store
from stores.rollups.choice import NoTier, TierRange, plan_for
from stores.rollups.combining import combine
from stores.rollups.raw import partials_from_raw
from stores.rollups.reader import read_tier
from stores.rollups.windows import STEP_NS, RollupStore, Tier
from tests.stores.conftest import STORES
from tests.stores.expecting import Readings
from tests.stores.rollups.conftest import ROLLUPS
from tests.stores.rollups.test_reader import AGGREGATES, HOUR, Question, alike, questions

DAY_NS = 24 * HOUR


class Kept(NamedTuple):
    """A store and the roll-ups beside it. Each example has days and boards of its own there."""

    store: Store
    rollups: RollupStore
    examples: Iterator[int]


@pytest.fixture(params=ROLLUPS)
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """Both of one kind, empty."""
    with closing(STORES[request.param](request)) as store, closing(ROLLUPS[request.param](request)) as rollups:
        yield Kept(store, rollups, count(1))


def elsewhere(question: Question, number: int) -> Question:
    """The same question of other boards, two days later for each number."""
    later = 2 * number * DAY_NS
    gpus = [replace_uuid(each, number) for each in question.gpus]
    buckets = question.query.buckets
    asked = tuple(f"{number}-{each}" for each in question.query.gpus)
    query = replace(
        question.query,
        gpus=asked,
        buckets=replace(buckets, start_ns=buckets.start_ns + later, end_ns=buckets.end_ns + later),
    )
    tiers = {tier: TierRange(low + later, high + later) for tier, (low, high) in question.facts.tiers.items()}
    facts = replace(
        question.facts,
        tiers=tiers,
        instances_of=lambda uuids: [each.id for each in gpus if each.mig_id and each.uuid in uuids],
    )
    readings: Readings = {(place, at + later): value for (place, at), value in question.readings.items()}
    return Question(gpus, readings, query, facts, question.snap)


def replace_uuid(gpu: Gpu, number: int) -> Gpu:
    return Gpu(uuid=f"{number}-{gpu.uuid}", mig_id=gpu.mig_id, hostname=gpu.hostname, model_name=gpu.model_name)


@pytest.mark.parametrize("tier", get_args(Tier))
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_store_answers_from_windows_as_from_readings(kept: Kept, tier: Tier, data: st.DataObject) -> None:
    aggregate = data.draw(st.sampled_from(AGGREGATES))
    question = data.draw(questions(aggregate, tier))
    gpus, readings, query, facts, snap = elsewhere(question, next(kept.examples))
    try:
        plan = plan_for(query, tier, facts, snap)
    except NoTier:
        return
    metric = query.metric_name
    points = [(place, at, [value]) for (place, at), value in readings.items()]
    kept.store.write([PointBlock(gpus, [metric], points)])  # type: ignore[arg-type]
    windows = {(each, at // STEP_NS[each] * STEP_NS[each]) for each in STEP_NS for _, at in readings}
    for each, start in sorted(windows):
        made = partials_from_raw(kept.store, start, start + STEP_NS[each], names=(metric,))
        kept.rollups.write(combine(made, each, start))
    try:
        found = read_tier(plan, kept.rollups, kept.store)
    except NoTier:
        return
    event("answered" if found else "empty")
    alike(found, kept.store.series(plan.query))
