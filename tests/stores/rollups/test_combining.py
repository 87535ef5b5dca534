"""Windows of every level, against a plain reckoning and against what the store answers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings.catalogue import combine_of, is_counter
from stores.aggregate.buckets import Buckets
from stores.base import Aggregate, By, SeriesQuery
from stores.memory import MemoryStore
from stores.rollups.combining import combine
from stores.rollups.partials import SourcePartials
from stores.rollups.windows import LEVELS, STEP_NS, Level, Tier, WindowKey
from tests.stores.rollups.reckoning import (
    ENERGY,
    MEMORY,
    MINUTE,
    NAMES,
    POWER,
    SECOND,
    UNTIMED,
    UTIL,
    XID,
    Cell,
    Given,
    blocks_of,
    flat,
    gpu,
    held,
    partials,
    points,
    reckoned,
)

FLEET = WindowKey()


def windows(readings: list[Given], tier: Tier = "1m", start_ns: int = 0) -> dict[Cell, float]:
    return held(combine(partials(readings, start_ns, start_ns + STEP_NS[tier]), tier, start_ns))


def fleet(readings: list[Given], name: str, start_ns: int = 0) -> Mapping[str, float]:
    return {
        stat: value
        for (level, _, of, stat), value in windows(readings, start_ns=start_ns).items()
        if level == "fleet" and of == name
    }


@pytest.mark.parametrize("tier", ["1m", "1h"])
@UNTIMED
@given(found=points(minutes=3), data=st.data())
def test_windows_are_what_their_readings_say(tier: Tier, found: list[list[Given]], data: st.DataObject) -> None:
    readings = data.draw(st.permutations(flat(found)))
    start_ns = MINUTE if tier == "1m" else 0
    assert windows(readings, tier, start_ns) == pytest.approx(reckoned(readings, tier, start_ns), rel=1e-12, abs=1e-12)


@UNTIMED
@given(found=points(minutes=2))
def test_the_store_answers_the_same(found: list[list[Given]]) -> None:
    store = MemoryStore()
    readings = flat(found)
    store.write(blocks_of(readings))
    cells = windows(readings, start_ns=MINUTE)
    asked: tuple[tuple[Level, By | None], ...] = (("fleet", None), ("model", "model"), ("host", "host"))
    aggregates: dict[Aggregate, str] = {"count": "count", "min": "low", "max": "high", "last": "last", "sum": "means"}
    for name in NAMES:
        wanted: dict[Aggregate, str] = dict(aggregates)
        if is_counter(name):
            wanted = {"count": "count", "min": "low", "max": "high", "last": "last", "increase": "increase"}
        if combine_of(name) == "never":
            wanted = {"last": "last"}
        for level, by in asked:
            for aggregate, stat in wanted.items():
                # From 0 on, so that counters have the readings before the window.
                query = SeriesQuery(
                    metric_name=name, buckets=Buckets(0, 2 * MINUTE, MINUTE), aggregate=aggregate, by=by
                )
                answer = {one.group: one.values[1] for one in store.series(query) if one.values[1] is not None}
                mine: dict[tuple[str, ...], list[float]] = {}
                for (at, key, of, kept), value in cells.items():
                    if (at, of, kept) == (level, name, stat):
                        group = {"fleet": (), "model": (key.model,), "host": (key.hostname,)}[level]
                        mine.setdefault(group, []).append(value)
                for group, values in mine.items():
                    if len(values) == 1:  # a host with two models has two windows
                        assert answer[group] == pytest.approx(values[0], rel=1e-11), (name, level, aggregate)
                assert answer.keys() == mine.keys()


def test_a_board_counts_once() -> None:
    board, one, two = gpu("U"), gpu("U", "1"), gpu("U", "2")
    parts = [Given(one, UTIL, 0, 10.0), Given(two, UTIL, 0, 30.0), Given(two, UTIL, 9, 50.0)]
    of_parts = fleet(parts, UTIL)
    assert of_parts == {
        "count": 3, "total": 90, "low": 10, "high": 50, "last": 50, "means": 25, "p5": 25, "p50": 25, "p95": 25
    }  # fmt: skip
    of_board = fleet([*parts, Given(board, UTIL, 5, 7.0)], UTIL)
    assert (of_board["count"], of_board["means"], of_board["last"]) == (1, 7, 7)
    for name, means in ((MEMORY, 50.0), (POWER, 40.0)):
        of_parts = fleet([each._replace(name=name) for each in parts], name)
        assert of_parts["means"] == means


def test_an_increase_counts_from_the_reading_before_the_window() -> None:
    of = gpu("U")
    readings = [Given(of, ENERGY, 0, 100.0), Given(of, ENERGY, MINUTE, 150.0), Given(of, ENERGY, MINUTE + SECOND, 20.0)]
    first, second = fleet(readings, ENERGY), fleet(readings, ENERGY, MINUTE)
    assert "increase" not in first
    assert (second["increase"], second["carried"]) == (70, 50)
    # Nothing grew within the window itself.
    alone = fleet(readings[:2], ENERGY, MINUTE)
    assert alone["increase"] == 50
    assert "carried" not in alone


def test_a_gpu_that_moves_keeps_its_count() -> None:
    readings = [Given(gpu("U", host=0), ENERGY, 1, 100.0), Given(gpu("U", host=1), ENERGY, 2, 130.0)]
    cells = windows(readings)
    hosts = {
        key.hostname: value for (level, key, _, stat), value in cells.items() if (level, stat) == ("host", "increase")
    }
    assert hosts == {"host-1": 30.0}


def test_percentiles_are_over_boards() -> None:
    readings = [Given(gpu(f"U{number}"), UTIL, time, number + time) for number in range(20) for time in (0, 2)]
    assert {stat: value for stat, value in fleet(readings, UTIL).items() if stat.startswith("p")} == {
        "p5": 1.0, "p50": 10.0, "p95": 19.0
    }  # fmt: skip


def test_a_level_has_one_window_for_each_of_its_keys() -> None:
    readings = [
        Given(gpu(uuid, host=host, model=model), XID, 0, float(host))
        for uuid, host, model in (("U", 0, "A"), ("V", 0, "B"), ("W", 1, "B"))
    ]
    tables = combine(partials(readings, 0, STEP_NS["1h"]), "1h", 0)
    assert [(table.tier, table.level, len(table)) for table in tables] == [
        ("1h", level, count) for level, count in zip(LEVELS["1h"], (3, 3, 2, 1), strict=True)
    ]
    assert all(list(table.stats) == ["last"] and set(table.starts_ns.tolist()) == {0} for table in tables)
    assert {key.hostname for key in tables[1].keys} == {"host-0", "host-1"}


def test_nothing_gives_no_windows() -> None:
    for nothing in (SourcePartials.empty(0, MINUTE), partials([], 0, MINUTE)):
        assert [len(table) for table in combine(nothing, "1m", 0)] == [0, 0, 0]
    late = partials([Given(gpu("U"), UTIL, 2 * MINUTE, 1.0)], 0, MINUTE)
    assert [len(table) for table in combine(late, "1m", 0)] == [0, 0, 0]
