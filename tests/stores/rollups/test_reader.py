"""Answers from roll-ups are those from raw readings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from readings.model import Gpu, PointBlock
from stores.aggregate.arrays import ReadingArrays
from stores.aggregate.buckets import Buckets
from stores.aggregate.functions import PERCENTILES
from stores.base import Aggregate, By, GroupSeries, SeriesQuery, TooMuch
from stores.memory import MemoryStore
from stores.rollups import reader
from stores.rollups.choice import NO_SNAP, FleetFacts, NoTier, Snap, TierPlan, TierRange, plan_for
from stores.rollups.reader import read_tier
from stores.rollups.windows import STEP_NS, Tier
from tests.stores.expecting import Readings
from tests.stores.making import MINUTE, SECOND
from tests.stores.rollups.plainly import PlainRollups

UTIL, MEMORY, POWER = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE"
ENERGY, XID, UNKNOWN = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_XID_ERRORS", "not_in_the_catalogue"
METRICS = (UTIL, MEMORY, POWER, ENERGY, XID, UNKNOWN)
HOUR = 60 * MINUTE
DAY = 1_752_796_800 * SECOND  # 2025-07-18
AGGREGATES: tuple[Aggregate, ...] = tuple(each for each in get_args(Aggregate) if each not in PERCENTILES)


def of(uuid: str, host: str, model: str = "A", mig_id: str = "") -> Gpu:
    return Gpu(uuid=uuid, mig_id=mig_id, hostname=host, model_name=model)


PLAIN = [
    of("GPU-0", "host-a"),
    of("GPU-1", "host-a"),
    of("GPU-2", "host-b"),
    of("GPU-3", "host-b", "B"),
    of("GPU-4", "host-c", "B"),
]
MOVED = [*PLAIN, of("GPU-0", "host-b"), of("GPU-4", "host-a", "B")]
CUT = [*PLAIN, *(of("GPU-2", "host-b", mig_id=str(number)) for number in range(2)), of("GPU-5", "host-c", "B", "7")]
FLEETS = {"plain": PLAIN, "moved": MOVED, "cut": CUT, "both": [*MOVED, *CUT[len(PLAIN) :]]}


class Question(NamedTuple):
    """A fleet, its readings, and what to ask."""

    gpus: Sequence[Gpu]
    readings: Readings
    query: SeriesQuery
    facts: FleetFacts
    snap: Snap


@st.composite
def questions(draw: st.DrawFn, aggregate: Aggregate, tier: Tier) -> Question:
    gpus = FLEETS[draw(st.sampled_from(sorted(FLEETS)))]
    metric = draw(st.sampled_from(METRICS if aggregate != "increase" else (ENERGY,)))
    # A GPU has one reading at a time, wherever it is.
    moments = st.integers(0, 4 * 60 * 3 - 1)
    where = draw(
        st.lists(
            st.tuples(st.integers(0, len(gpus) - 1), moments),
            max_size=50,
            unique_by=lambda each: (gpus[each[0]].id, each[1]),
        )
    )
    readings = {(place, DAY + moment * 20 * SECOND): float(draw(st.integers(0, 9))) for place, moment in where}
    every = draw(st.sampled_from((1, 1, 2, 3))) * STEP_NS[tier]
    by: By | None = draw(st.sampled_from((None, "host", "model", *(("gpu",) * (tier == "1h")))))
    grain = draw(st.sampled_from((HOUR, MINUTE, 7 * SECOND)))
    most = 4 * HOUR // grain
    start = draw(st.integers(0, most - 1))
    end = start + draw(st.integers(1, most - start))
    query = SeriesQuery(
        metric_name=metric,
        aggregate=aggregate,
        buckets=Buckets(DAY + start * grain, DAY + end * grain, every),
        by=by,
        gpus=draw(st.sampled_from(((), (), (), ("GPU-2",), ("GPU-0", "GPU-4"), ("GPU-2:1",)))) if tier == "1h" else (),
        hostnames=draw(st.sampled_from(((), (), ("host-b",), ("host-a", "host-b")))),
        models=draw(st.sampled_from(((), (), ("B",)))),
        mig=tier == "1h" and draw(st.sampled_from((False, False, True))),
        top=draw(st.sampled_from((None, None, 1, 2))),
    )
    ranges = {
        each: TierRange(DAY + low * HOUR, DAY + high * HOUR)
        for each, (low, high) in {
            "1m": draw(st.sampled_from(((0, 4), (1, 3), (2, 4)))),
            "1h": draw(st.sampled_from(((0, 4), (1, 4), (0, 3)))),
        }.items()
    }
    facts = FleetFacts(
        boards=len({each.uuid for each in gpus}),
        has_instances=any(each.mig_id for each in gpus),
        has_moved=lambda: len({each.id for each in gpus}) < len(gpus),
        instances_of=lambda uuids: [each.id for each in gpus if each.mig_id and each.uuid in uuids],
        raw_since_ns=None,
        tiers=ranges,  # type: ignore[arg-type]
    )
    return Question(gpus, readings, query, facts, Snap(*draw(st.tuples(st.booleans(), st.booleans()))))


class Raw(MemoryStore):
    """A store with these readings."""

    def __init__(self, metric: str, gpus: Sequence[Gpu], readings: Readings) -> None:
        super().__init__()
        self.parts: list[tuple[int, int]] = []
        self.write(
            [PointBlock(list(gpus), [metric], [(place, at, [value]) for (place, at), value in readings.items()])]
        )

    def readings(self, metric_name: str, start_ns: int, end_ns: int, **kwargs: Any) -> Iterator[ReadingArrays]:
        self.parts.append((start_ns, end_ns))
        return super().readings(metric_name, start_ns, end_ns, **kwargs)


def alike(found: list[GroupSeries], expected: list[GroupSeries]) -> None:
    assert [each.group for each in found] == [each.group for each in expected]
    for mine, theirs in zip(found, expected, strict=True):
        left, right = (np.array(each.values, np.float64) for each in (mine, theirs))
        np.testing.assert_allclose(left, right, rtol=1e-11, atol=0)


@pytest.mark.parametrize("tier", get_args(Tier))
@pytest.mark.parametrize("aggregate", AGGREGATES)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_a_tier_answers_is_what_raw_readings_answer(aggregate: Aggregate, tier: Tier, data: st.DataObject) -> None:
    gpus, readings, query, facts, snap = data.draw(questions(aggregate, tier))
    try:
        plan = plan_for(query, tier, facts, snap)
        store, rollups = Raw(query.metric_name, gpus, readings), PlainRollups(query.metric_name, gpus, readings)
        found = read_tier(plan, rollups, store)
    except NoTier:
        return
    event("answered" if found else "empty")
    alike(found, store.series(plan.query))


def regular(gpus: Sequence[Gpu] = PLAIN) -> Readings:
    """Each GPU every 20 s for four hours; it is on its last host from the third hour on."""
    places = {each.id: place for place, each in enumerate(gpus)}
    first = {each.id: place for place, each in reversed(list(enumerate(gpus)))}
    return {
        ((places if at >= 2 * HOUR else first)[gpu], DAY + at): float((at // SECOND + 7 * number) % 31)
        for number, gpu in enumerate(places)
        for at in range(0, 4 * HOUR, 20 * SECOND)
    }


def facts_of(gpus: Sequence[Gpu] = PLAIN, **changes: Any) -> FleetFacts:
    facts = FleetFacts(
        boards=len({each.uuid for each in gpus}),
        has_instances=any(each.mig_id for each in gpus),
        has_moved=lambda: len({each.id for each in gpus}) < len(gpus),
        instances_of=lambda uuids: [each.id for each in gpus if each.mig_id and each.uuid in uuids],
        raw_since_ns=None,
        tiers={tier: TierRange(DAY, DAY + 4 * HOUR) for tier in get_args(Tier)},
    )
    return replace(facts, **changes)


def asked(
    aggregate: Aggregate, every: int, *, start: int = 0, end: int = 4 * HOUR, metric: str = UTIL, **query: Any
) -> SeriesQuery:
    return SeriesQuery(metric_name=metric, aggregate=aggregate, buckets=Buckets(DAY + start, DAY + end, every), **query)


# Questions that the tiers must not leave to raw readings.
ANSWERED: list[tuple[Tier, SeriesQuery]] = [
    *(("1m", asked(agg, every * MINUTE, by=by)) for agg in ("mean", "count", "max", "min") for every in (1, 5) for by in (None, "host", "model")),
    *(("1h", asked(agg, HOUR, by=by, top=2)) for agg in ("mean", "count", "max", "min") for by in ("gpu", "host", "model")),
    *(("1h", asked("sum", every * HOUR, by=by)) for every in (1, 2) for by in (None, "gpu", "host", "model")),
    ("1h", asked("sum", HOUR, by="host", top=1)),
    ("1m", asked("sum", MINUTE)),
    ("1m", asked("last", 10 * MINUTE)),
    ("1m", asked("last", MINUTE, by="model", metric=XID)),
    ("1h", asked("last", 2 * HOUR, by="gpu", top=3)),
    *(("1h", asked("increase", HOUR, by=by, metric=ENERGY)) for by in (None, "gpu", "host", "model")),
    ("1h", asked("increase", HOUR, by="host", metric=ENERGY, start=13 * SECOND, end=3 * HOUR + 7 * MINUTE)),
    ("1h", asked("mean", HOUR, by="host", start=13 * SECOND, end=3 * HOUR + 7 * MINUTE)),
    ("1h", asked("max", HOUR, by="gpu", gpus=("GPU-1", "GPU-3"))),
    ("1m", asked("mean", MINUTE, hostnames=("host-a", "host-b"))),
    ("1m", asked("sum", MINUTE, hostnames=("host-a", "host-b"), start=21 * SECOND)),
    ("1m", asked("mean", MINUTE, by="host", models=("B",))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tier", "query"), ANSWERED, ids=[f"{tier}-{number}" for number, (tier, _) in enumerate(ANSWERED)]
)
def test_common_questions_are_answered_by_a_tier(tier: Tier, query: SeriesQuery) -> None:
    readings = regular()
    store, rollups = Raw(query.metric_name, PLAIN, readings), PlainRollups(query.metric_name, PLAIN, readings)
    found = read_tier(plan_for(query, tier, facts_of()), rollups, store)
    assert found
    assert rollups.asked
    alike(found, store.series(query))


@pytest.mark.parametrize(
    "query",
    [
        asked("mean", HOUR, by="host"),
        asked("increase", HOUR, by="model", metric=ENERGY),
        asked("sum", 2 * HOUR, by="gpu"),
    ],
)
def test_boards_with_instances_and_gpus_that_moved_are_answered_from_single_gpus(query: SeriesQuery) -> None:
    gpus = FLEETS["both"]
    readings = regular(gpus)
    store, rollups = Raw(query.metric_name, gpus, readings), PlainRollups(query.metric_name, gpus, readings)
    query = replace(query, top=3)
    found = read_tier(plan_for(query, "1h", facts_of(gpus)), rollups, store)
    assert {level for _, level, *_ in rollups.asked} == {"gpu"}
    alike(found, store.series(query))


def test_the_edges_come_from_raw_readings_and_from_minutes() -> None:
    query = asked("mean", HOUR, by="host", start=13 * SECOND, end=3 * HOUR + 7 * MINUTE + SECOND)
    readings = regular()
    store, rollups = Raw(UTIL, PLAIN, readings), PlainRollups(UTIL, PLAIN, readings)
    read_tier(plan_for(query, "1h", facts_of()), rollups, store)
    assert store.parts == [
        (DAY + 13 * SECOND, DAY + MINUTE),
        (DAY + 3 * HOUR + 7 * MINUTE, DAY + 3 * HOUR + 7 * MINUTE + SECOND),
    ]
    assert rollups.asked == [
        ("1m", "host", DAY + MINUTE, DAY + HOUR),
        ("1h", "host", DAY + HOUR, DAY + 3 * HOUR),
        ("1m", "host", DAY + 3 * HOUR, DAY + 3 * HOUR + 7 * MINUTE),
    ]


def test_many_windows_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_ROWS_AT_ONCE", 30)
    readings = regular()
    heavy: list[bool] = []
    for aggregate, metric in (("mean", UTIL), ("increase", ENERGY), ("max", POWER)):
        query = asked(aggregate, HOUR, by="gpu", metric=metric, start=SECOND)  # type: ignore[arg-type]
        store, rollups = Raw(metric, PLAIN, readings), PlainRollups(metric, PLAIN, readings)
        found = read_tier(plan_for(query, "1h", facts_of(boards=20)), rollups, store)
        assert len(rollups.asked) > 1
        alike(found, store.series(query))
    query = asked("mean", MINUTE, by="host", heavy=lambda: heavy.append(True))
    monkeypatch.setattr(reader, "LIGHT_READINGS", 100)
    store, rollups = Raw(UTIL, PLAIN, readings), PlainRollups(UTIL, PLAIN, readings)
    alike(read_tier(plan_for(query, "1m", facts_of()), rollups, store), store.series(asked("mean", MINUTE, by="host")))
    assert len(rollups.asked) > 10
    assert heavy == [True]


def test_too_many_groups_values_or_seconds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = regular()
    store, rollups = Raw(UTIL, PLAIN, readings), PlainRollups(UTIL, PLAIN, readings)

    def ask(**changes: Any) -> list[GroupSeries]:
        return read_tier(plan_for(asked("mean", HOUR, by="host", **changes), "1h", facts_of()), rollups, store)

    assert len(ask(most_groups=3)) == 3
    with pytest.raises(TooMuch, match="more than 2 groups"):
        ask(most_groups=2)
    assert len(ask(most_groups=2, top=2)) == 2
    with pytest.raises(TooMuch, match="values would have to be gathered"):
        ask(memory=200)
    monkeypatch.setattr(reader, "LONGEST_SECONDS", -1.0)
    with pytest.raises(TooMuch, match="takes longer"):
        ask()


def test_the_last_reading_of_several_models_is_left_to_raw_readings() -> None:
    readings = regular()
    store, rollups = Raw(UTIL, PLAIN, readings), PlainRollups(UTIL, PLAIN, readings)
    plan: TierPlan = plan_for(asked("last", HOUR, by="host"), "1h", facts_of(), NO_SNAP)
    with pytest.raises(NoTier, match="agg last"):
        read_tier(plan, rollups, store)
    assert STEP_NS[plan.tier] == HOUR
