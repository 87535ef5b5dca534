from __future__ import annotations

import itertools
from itertools import pairwise
from typing import Any

import pytest

from stores.base import ReadingsQuery
from stores.influxdb import InfluxStore
from stores.influxdb import reader as influx_reader
from tests.influxd import Influxd
from tests.stores.making import MINUTE, START, ask, fleet, gpu, keys, one, several, values


def test_a_page_takes_one_question(influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    influx_store.write([several(gpu(), [(START + i, i) for i in range(250)])])
    monkeypatch.setattr(influx_reader, "clock_ns", lambda: START + MINUTE)
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


def test_ranges_follow_each_other_and_leave_nothing_out() -> None:
    now, hours = 10**6, 24 * 60
    for start, end in itertools.product((None, now - hours, now - 7, now + 5), (None, now - 5, now + 9)):
        for newest_first in (True, False):
            bounds = [None if each is None else each * MINUTE for each in (start, end)]
            found = list(influx_reader.ranges(*bounds, newest_first=newest_first, now_ns=now * MINUTE))
            in_time = found[::-1] if newest_first else found
            assert (in_time[0][0], in_time[-1][1]) == tuple(bounds)
            assert all(one[1] == other[0] for one, other in pairwise(in_time))
            assert len(found) <= 5
    first, *_ = influx_reader.ranges(None, None, newest_first=True, now_ns=0)
    assert first == (-influx_reader._FIRST_RANGE_NS, None)
    assert list(influx_reader.ranges(None, None, newest_first=False, now_ns=0)) == [(None, None)]


def test_the_newest_are_looked_for_where_they_probably_are(
    influx_store: InfluxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [-1.0, 0.0, 0.3, 0.7, 1.9, 3, 9, 30, 50, 500]  # before now; the first is in the future
    now = START + 600 * 60 * MINUTE
    times = [now - int(each * 60) * MINUTE for each in hours]
    influx_store.write([fleet([gpu(0), gpu(1)], each) for each in times])
    monkeypatch.setattr(influx_reader, "clock_ns", lambda: now)
    asked = _count_questions(influx_store, monkeypatch)
    newest = ask(influx_store, limit=4, metric_names=("DCGM_FI_DEV_GPU_UTIL",))
    assert [row.time_ns for row in newest] == [times[0], times[0], times[1], times[1]]
    assert len(asked) == 1
    assert "WHERE time >= $p0" in asked[0]
    whole = ask(influx_store, limit=1000)
    assert [row.time_ns for row in whole] == sorted((row.time_ns for row in whole), reverse=True)
    assert {row.time_ns for row in whole} == set(times)
    for limit, offset in itertools.product((1, 3, 7, 1000), (0, 1, 5, 12)):
        assert ask(influx_store, limit=limit, offset=offset) == whole[offset : offset + limit]
        for start in (None, times[-1], times[4]):
            oldest = ask(influx_store, limit=limit, offset=offset, start_ns=start, newest_first=False)
            expected = [row for row in whole if start is None or row.time_ns >= start]
            expected.sort(key=lambda row: (row.time_ns, row.uuid, row.metric_name))
            assert oldest == expected[offset : offset + limit]


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
