"""Windows from InfluxDB: how much is asked for at once."""

from __future__ import annotations

from typing import Any

import pytest

from stores import influx_series
from stores.base import Occupancy, SeriesQuery
from stores.influx import InfluxStore
from tests.stores.making import MINUTE, SECOND, START, UTIL, fleet, gpu
from tests.stores.test_influx_reader import _count_questions


def test_points_are_asked_for_in_bounded_parts(influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    influx_store.write([fleet([gpu(number) for number in range(4)], START + i * 10 * SECOND) for i in range(360)])
    monkeypatch.setattr(influx_series, "_POINTS_AT_ONCE", 200)
    monkeypatch.setattr(influx_series, "_FIRST_RANGE_NS", MINUTE)
    sizes: list[int] = []
    original = influx_series._columns

    def counting(*values: Any) -> Any:
        columns = original(*values)
        sizes.append(len(columns.times))
        return columns

    monkeypatch.setattr(influx_series, "_columns", counting)
    asked = SeriesQuery(
        metric_name=UTIL, every_ns=MINUTE, start_ns=START, end_ns=START + 60 * MINUTE, aggregate="increase", by="gpu"
    )
    assert len(influx_store.series(asked)) == 4
    assert sum(sizes) == 4 * 360
    assert max(sizes) <= 200


def test_gpus_that_are_too_many_to_name_are_left_out_of_the_answer(
    influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx_store.write([fleet([gpu(number) for number in range(4)], START)])
    asked = _count_questions(influx_store, monkeypatch)
    occupied = tuple(Occupancy(f"GPU-{number:04d}", "ml", "a", "", START, None) for number in range(2))
    query = SeriesQuery(
        metric_name=UTIL, every_ns=MINUTE, start_ns=START, end_ns=START + MINUTE, by="pod", aggregate="count",
        occupancies=occupied,
    )  # fmt: skip
    named = influx_store.series(query)
    assert "uuid" in asked[0].split("WHERE")[1].split("GROUP")[0]
    monkeypatch.setattr(influx_series, "_MOST_NAMED", 1)
    asked.clear()
    assert influx_store.series(query) == named
    assert "uuid" not in asked[0].split("WHERE")[1].split("GROUP")[0]
    assert [each.values for each in named] == [[2.0, None]]
