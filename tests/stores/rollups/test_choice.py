"""Which tier answers, from which parts of the range, and what is said where none can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stores.aggregate.buckets import Buckets
from stores.base import PodAssignment, SeriesQuery
from stores.rollups.choice import (
    NO_SNAP,
    FleetFacts,
    NoTier,
    RangePart,
    Snap,
    TierRange,
    choose_tier,
    level_of,
    plan_for,
)
from stores.rollups.windows import STEP_NS, Tier
from tests.stores.making import MINUTE, SECOND, UTIL

HOUR, DAY = 60 * MINUTE, 1440 * MINUTE
T0 = 1_752_796_800 * SECOND  # 2025-07-18T00:00:00Z
ENERGY, XID = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_XID_ERRORS"
FACTS = FleetFacts(
    boards=10_000,
    has_instances=False,
    has_moved=lambda: False,
    instances_of=lambda uuids: [f"{uuid}:1" for uuid in uuids],
    raw_since_ns=T0,
    tiers={
        "1m": TierRange(T0 - 90 * DAY, T0 + 12 * HOUR + 7 * MINUTE),
        "1h": TierRange(T0 - 365 * DAY, T0 + 12 * HOUR),
    },
)


def asked(start: int = 0, end: int = 12 * HOUR, every: int = HOUR, **query: Any) -> SeriesQuery:
    return SeriesQuery(**({"metric_name": UTIL} | query), buckets=Buckets(T0 + start, T0 + end, every))


@pytest.mark.parametrize(
    ("query", "level"),
    [
        ({}, "fleet"),
        ({"by": "model"}, "model"),
        ({"models": ("A",)}, "model"),
        ({"by": "host"}, "host"),
        ({"by": "model", "hostnames": ("host-a",)}, "host"),
        ({"by": "gpu"}, "gpu"),
        ({"by": "host", "gpus": ("GPU-1",)}, "gpu"),
        ({"by": "gpu", "mig": True}, "gpu"),
    ],
)
def test_the_level_is_the_coarsest_that_has_what_is_asked(query: dict[str, Any], level: str) -> None:
    assert level_of(asked(**query)) == level


@pytest.mark.parametrize(
    ("every", "tier"),
    [(MINUTE, "1m"), (5 * MINUTE, "1m"), (90 * MINUTE, "1m"), (HOUR, "1h"), (6 * HOUR, "1h"), (DAY, "1h")],
)
def test_the_coarsest_tier_whose_step_divides_the_windows_is_chosen(every: int, tier: Tier) -> None:
    assert choose_tier(asked(every=every), FACTS).tier == tier


@pytest.mark.parametrize("every", [10 * SECOND, 90 * SECOND])
def test_windows_that_are_no_whole_steps_are_left_to_raw_readings(every: int) -> None:
    with pytest.raises(NoTier, match="use every=1m or a multiple"):
        choose_tier(asked(every=every), FACTS)


def test_ends_that_may_move_are_the_last_whole_steps_that_are_complete() -> None:
    query = asked(start=-DAY + 3 * SECOND, end=12 * HOUR + 8 * MINUTE + 3 * SECOND, every=MINUTE)
    plan = plan_for(query, "1m", FACTS, Snap(start=True, end=True))
    assert plan.query.buckets == Buckets(T0 - DAY, T0 + 12 * HOUR + 7 * MINUTE, MINUTE)
    assert plan.parts == (RangePart("1m", T0 - DAY, T0 + 12 * HOUR + 7 * MINUTE),)
    plan = plan_for(
        replace(query, buckets=replace(query.buckets, every_ns=HOUR)), "1h", FACTS, Snap(start=True, end=True)
    )
    assert plan.parts == (RangePart("1h", T0 - DAY, T0 + 12 * HOUR),)
    with pytest.raises(NoTier, match="complete until 2025-07-18T12:00:00Z"):
        plan_for(asked(start=12 * HOUR + MINUTE, end=13 * HOUR), "1h", FACTS, Snap(start=True, end=True))


def test_while_roll_ups_are_behind_the_newest_part_comes_from_elsewhere() -> None:
    query = asked(end=12 * HOUR + 30 * MINUTE, every=MINUTE)
    plan = plan_for(query, "1m", FACTS, Snap(start=True, end=True))
    assert plan.query.buckets == query.buckets
    assert plan.parts == (
        RangePart("1m", T0, T0 + 12 * HOUR + 7 * MINUTE),
        RangePart("raw", T0 + 12 * HOUR + 7 * MINUTE, T0 + 12 * HOUR + 30 * MINUTE),
    )
    plan = plan_for(asked(end=13 * HOUR + 7 * MINUTE), "1h", FACTS, Snap(start=True, end=True))
    assert [part.source for part in plan.parts] == ["1h", "1m", "raw"]


def test_what_is_beside_whole_steps_comes_from_the_finer_tier_and_from_raw_readings() -> None:
    plan = plan_for(asked(start=HOUR + 30 * MINUTE + SECOND, end=12 * HOUR + 9 * MINUTE), "1h", FACTS, NO_SNAP)
    assert plan.query.buckets == asked(start=HOUR + 30 * MINUTE + SECOND, end=12 * HOUR + 9 * MINUTE).buckets
    assert plan.parts == (
        RangePart("raw", T0 + HOUR + 30 * MINUTE + SECOND, T0 + HOUR + 31 * MINUTE),
        RangePart("1m", T0 + HOUR + 31 * MINUTE, T0 + 2 * HOUR),
        RangePart("1h", T0 + 2 * HOUR, T0 + 12 * HOUR),
        RangePart("1m", T0 + 12 * HOUR, T0 + 12 * HOUR + 7 * MINUTE),
        RangePart("raw", T0 + 12 * HOUR + 7 * MINUTE, T0 + 12 * HOUR + 9 * MINUTE),
    )
    # A sum adds up means over the whole hour.
    plan = plan_for(asked(start=HOUR + 30 * MINUTE, aggregate="sum"), "1h", FACTS)
    assert plan.apart
    assert [part.source for part in plan.parts] == ["raw", "1h"]


def test_a_range_that_raw_readings_no_longer_have_must_be_whole_steps() -> None:
    plan = plan_for(asked(start=-30 * DAY, end=-DAY), "1h", FACTS)
    assert plan.parts == (RangePart("1h", T0 - 30 * DAY, T0 - DAY),)
    assert [part.source for part in plan_for(asked(start=-30 * DAY + MINUTE, end=0), "1h", FACTS).parts] == ["1m", "1h"]
    for start in (-30 * DAY + SECOND, -100 * DAY + MINUTE):
        with pytest.raises(NoTier, match=r"raw readings before 2025-07-18T00:00:00Z are gone: .* whole steps of 1h"):
            plan_for(asked(start=start, end=0), "1h", FACTS)


def test_before_the_first_window_there_is_what_raw_readings_have() -> None:
    young = replace(
        FACTS, tiers={"1m": TierRange(T0 + 11 * HOUR, T0 + 12 * HOUR), "1h": TierRange(T0 + 11 * HOUR, T0 + 12 * HOUR)}
    )
    plan = plan_for(asked(), "1h", young)
    assert plan.parts == (RangePart("raw", T0, T0 + 11 * HOUR), RangePart("1h", T0 + 11 * HOUR, T0 + 12 * HOUR))
    plan = plan_for(asked(start=-DAY), "1h", young)
    assert plan.parts[0] == RangePart("raw", T0, T0 + 11 * HOUR)
    gone = replace(young, raw_since_ns=T0 + 11 * HOUR)
    assert plan_for(asked(start=-DAY), "1h", gone).parts == (RangePart("1h", T0 + 11 * HOUR, T0 + 12 * HOUR),)


@pytest.mark.parametrize(
    ("query", "tier", "words"),
    [
        ({"aggregate": "p95"}, "1h", "no percentiles: agg p95"),
        (
            {"assignments": (PodAssignment("GPU-1", "ml", "p", "c", 0, None),), "by": "pod"},
            "1h",
            "no pods and namespaces",
        ),
        ({"metric_name": XID, "aggregate": "max"}, "1h", "only the last reading of codes"),
        ({"metric_name": ENERGY, "aggregate": "mean"}, "1h", "no sums of counters: agg mean"),
        ({"metric_name": ENERGY, "aggregate": "increase"}, "1m", "use every=1h"),
        ({"by": "gpu"}, "1m", "no single GPUs: use every=1h"),
        ({"aggregate": "sum"}, "1m", "use every=1m without top, or every=1h"),
        ({"aggregate": "sum", "every": MINUTE, "top": 3, "by": "host"}, "1m", "without top"),
        ({"end": 30 * MINUTE}, "1h", "no whole window of 1h is in that range"),
    ],
)
def test_what_a_tier_cannot_give_exactly_is_refused_with_what_works(
    query: dict[str, Any], tier: Tier, words: str
) -> None:
    with pytest.raises(NoTier, match=words):
        plan_for(asked(**query), tier, FACTS)


def test_boards_with_instances_need_windows_of_the_step_or_single_gpus() -> None:
    cut = replace(FACTS, has_instances=True)
    same = plan_for(asked(by="host"), "1h", cut)
    assert (same.level, same.by_source, same.apart, same.one_key) == ("host", False, True, True)
    longer = plan_for(asked(by="host", every=2 * HOUR), "1h", cut)
    assert (longer.level, longer.by_source) == ("gpu", True)
    with pytest.raises(NoTier, match="which MIG instances count"):
        plan_for(asked(by="host", every=5 * MINUTE), "1m", cut)


def test_gpus_that_moved_are_not_added_twice() -> None:
    moved = replace(FACTS, has_moved=lambda: True)
    of_two: dict[str, Any] = {"aggregate": "sum", "hostnames": ("host-a", "host-b")}
    assert plan_for(asked(**of_two), "1h", FACTS).level == "host"
    assert plan_for(asked(**of_two), "1h", moved).by_source
    assert plan_for(asked(**of_two, by="host"), "1h", moved).level == "host"
    with pytest.raises(NoTier, match="changed its host"):
        plan_for(asked(**of_two, every=MINUTE), "1m", moved)
    grown: dict[str, Any] = {"metric_name": ENERGY, "aggregate": "increase", "hostnames": ("host-a",)}
    assert plan_for(asked(**grown), "1h", FACTS).by_source
    with pytest.raises(NoTier, match="changed its host"):
        plan_for(asked(**grown), "1h", moved)


def test_a_tier_without_windows_answers_nothing() -> None:
    with pytest.raises(NoTier, match="no complete windows yet"):
        choose_tier(asked(), replace(FACTS, tiers={}))
    assert choose_tier(asked(), replace(FACTS, tiers={"1m": FACTS.tiers["1m"]})).tier == "1m"


def test_a_question_is_light_by_its_gpus_and_its_range() -> None:
    assert replace(FACTS, boards=1_000).is_light(asked(end=30 * MINUTE).buckets)
    assert not FACTS.is_light(asked(end=5 * MINUTE).buckets)
    assert FACTS.raw_has(T0 - MINUTE)
    assert not FACTS.raw_has(T0 - HOUR)
    assert replace(FACTS, raw_since_ns=None).raw_has(0)
    assert set(STEP_NS) == set(FACTS.tiers)


def test_raw_parts_are_of_the_gpus_and_their_instances() -> None:
    assert plan_for(asked(gpus=("GPU-1",)), "1h", FACTS).raw_gpus == ("GPU-1",)
    assert plan_for(asked(gpus=("GPU-1",)), "1h", replace(FACTS, has_instances=True)).raw_gpus == ("GPU-1", "GPU-1:1")
    assert plan_for(asked(), "1h", replace(FACTS, has_instances=True)).raw_gpus == ()
