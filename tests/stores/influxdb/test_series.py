"""Windows from InfluxDB: how much is asked for at once."""

from __future__ import annotations

from typing import Any

import pytest

from stores.aggregate.buckets import Buckets
from stores.base import PodAssignment, SeriesQuery
from stores.influxdb import InfluxStore, arrays, series
from stores.influxdb.client import InfluxConnection
from stores.influxdb.influxql import select_fields
from tests.stores.aggregate.test_aggregator import small_memory
from tests.stores.making import MINUTE, SECOND, START, UTIL, fleet, gpu


def test_points_are_asked_for_in_bounded_parts(influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    influx_store.write([fleet([gpu(number) for number in range(4)], START + i * 10 * SECOND) for i in range(360)])
    small_memory(monkeypatch, readings=200)
    monkeypatch.setattr(series, "FIRST_RANGE_NS", MINUTE)
    sizes: list[int] = []
    original = arrays.arrays_of

    def counting(*values: Any) -> Any:
        columns = original(*values)
        sizes.append(len(columns.times))
        return columns

    monkeypatch.setattr(arrays, "arrays_of", counting)
    asked = SeriesQuery(
        metric_name=UTIL, buckets=Buckets(START, START + 60 * MINUTE, MINUTE), aggregate="increase", by="gpu"
    )
    assert len(influx_store.series(asked)) == 4
    assert sum(sizes) == 4 * 360
    assert max(sizes) <= 200


def test_only_gpus_that_change_hands_are_looked_at_point_by_point(
    influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx_store.write([fleet([gpu(number) for number in range(4)], START + i * 10 * SECOND) for i in range(360)])
    looked_at: list[str] = []
    original = arrays.arrays_of

    def spying(*values: Any) -> Any:
        columns = original(*values)
        looked_at.extend(source.gpu for source in columns.sources)
        return columns

    monkeypatch.setattr(arrays, "arrays_of", spying)
    half = START + 30 * MINUTE
    occupied = (
        *(PodAssignment(f"GPU-{number:04d}", "ml", "a", "", START, None) for number in range(3)),
        PodAssignment("GPU-0003", "ml", "a", "", START, half),
        PodAssignment("GPU-0003", "ml", "b", "", half, None),
    )
    query = SeriesQuery(
        metric_name=UTIL, buckets=Buckets(START, START + 60 * MINUTE, 60 * MINUTE), by="pod", aggregate="sum",
        assignments=occupied, top=2,
    )  # fmt: skip
    assert [each.group for each in influx_store.series(query)] == [("ml", "a"), ("ml", "b")]
    assert set(looked_at) == {"GPU-0003"}


def test_gpus_that_are_too_many_to_name_are_left_out_of_the_answer(
    influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx_store.write([fleet([gpu(number) for number in range(4)], START)])
    asked: list[str] = []
    original = select_fields

    def spying(*values: Any, **options: Any) -> str:
        asked.append(original(*values, **options))
        return asked[-1]

    monkeypatch.setattr(arrays, "select_fields", spying)
    occupied = tuple(PodAssignment(f"GPU-{number:04d}", "ml", "a", "", START, None) for number in range(2))
    query = SeriesQuery(
        metric_name=UTIL, buckets=Buckets(START, START + MINUTE, MINUTE), by="pod", aggregate="last",
        assignments=occupied,
    )  # fmt: skip
    named = influx_store.series(query)
    assert "uuid" in asked[0].split("WHERE")[1].split("GROUP")[0]
    monkeypatch.setattr(series, "MOST_NAMED", 1)
    asked.clear()
    assert influx_store.series(query) == named
    assert "uuid" not in asked[0].split("WHERE")[1].split("GROUP")[0]
    assert [each.values for each in named] == [[100.0, None]]


def test_a_window_that_holds_more_than_memory_should_is_read_in_parts(
    influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx_store.write([fleet([gpu(number) for number in range(4)], START + i * 10 * SECOND) for i in range(60)])
    query = SeriesQuery(
        metric_name=UTIL, buckets=Buckets(START, START + MINUTE * 10, 60 * MINUTE), aggregate="increase"
    )
    answer = influx_store.series(query)
    small_memory(monkeypatch, readings=100)
    assert influx_store.series(query) == answer


def test_what_the_server_computes_comes_in_answers_of_bounded_length(
    influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx_store.write([fleet([gpu(number) for number in range(4)], START + i * 10 * SECOND) for i in range(60)])
    query = SeriesQuery(
        metric_name=UTIL, buckets=Buckets(START, START + MINUTE * 10, 10 * SECOND), aggregate="mean", by="gpu"
    )
    answer = influx_store.series(query)
    rows: list[int] = []
    original = InfluxConnection.query_each

    def counting(self: InfluxConnection, *values: Any) -> Any:
        answers = original(self, *values)
        rows.append(sum(len(each.values) for answer in answers for each in answer if "time" in each.columns))
        return answers

    monkeypatch.setattr(InfluxConnection, "query_each", counting)
    small_memory(monkeypatch, rows=50)
    assert influx_store.series(query) == answer
    assert sum(rows) >= 240
    assert max(rows) <= 50
