from __future__ import annotations

from typing import Any

import pytest

from stores.base import ReadingsQuery
from stores.influxdb import InfluxStore
from stores.influxdb import reader as influx_reader
from tests.influxd import Influxd
from tests.stores.making import MINUTE, START, ask, fleet, gpu, keys, one, several, values


def test_a_page_takes_one_question(influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    influx_store.write([several(gpu(), [(START + i, i) for i in range(250)])])
    asked = _count_questions(influx_store, monkeypatch)
    assert values(ask(influx_store, gpus=("GPU-0000",), limit=100)) == list(range(249, 149, -1))
    assert len(asked) == 1


def test_a_query_far_into_the_past_asks_for_bounded_parts(
    influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx_store.write([fleet([gpu(number) for number in range(4)], START + i * MINUTE) for i in range(100)])
    whole = ask(influx_store, limit=1000)
    monkeypatch.setattr(influx_reader, "_MOST_POINTS", 50)
    asked = _count_questions(influx_store, monkeypatch)
    assert ask(influx_store, limit=10, offset=700) == whole[700:710]
    assert all(" LIMIT 50" in each or "time >= " in each for each in asked)
    for newest_first in (True, False):
        parts = ask(influx_store, limit=1000, newest_first=newest_first)
        assert sorted(keys(parts)) == sorted(keys(whole))
        assert ask(influx_store, gpus=("GPU-0001", "GPU-0003"), limit=1000, newest_first=newest_first) == [
            row for row in parts if row.uuid in {"GPU-0001", "GPU-0003"}
        ]


def test_a_metric_that_few_points_have_is_found_among_many(influx_store: InfluxStore) -> None:
    influx_store.write([several(gpu(), [(START + i, i) for i in range(3000)])])
    influx_store.write([several(gpu(), [(START + 5, 7.0), (START + 9, 8.0)], "rare")])
    assert values(ask(influx_store, metric_names=("rare",), limit=1)) == [8.0]
    assert values(ask(influx_store, metric_names=("rare",), limit=10)) == [8.0, 7.0]


def test_what_others_write_into_the_measurement_is_left_alone(influxd: Influxd, influx_store: InfluxStore) -> None:
    influx_store.write([one(gpu(), START, U=1.0)])
    influxd.write(
        influx_store.config.bucket,
        f'gpu,uuid=GPU-9999,rack=r1 note="text",flag=true,whole=5i,U=2 {START}\ncpu,host=a U=3 {START}',
    )
    assert [(row.uuid, row.metric_name, row.value) for row in ask(influx_store)] == [
        ("GPU-0000", "U", 1.0), ("GPU-9999", "U", 2.0), ("GPU-9999", "whole", 5.0),
    ]  # fmt: skip
    assert influx_store.metric_names() == ["U", "whole"]


def _count_questions(store: InfluxStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    original = store._connection.query

    def query(statement: str, params: Any) -> Any:
        asked.append(statement)
        return original(statement, params)

    monkeypatch.setattr(store._connection, "query", query)
    return asked


def test_nothing_is_asked_for_what_cannot_be(influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    influx_store.ping()
    asked = _count_questions(influx_store, monkeypatch)
    for query in (
        ReadingsQuery(limit=0), ReadingsQuery(start_ns=5, end_ns=5), ReadingsQuery(metric_names=("time",)),
        ReadingsQuery(pods=("\ud800",)),
    ):  # fmt: skip
        assert len(influx_store.page(query)) == 0
    assert asked == []
