"""A reading that was written with two descriptions is in two series, and is read once."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

import pytest

from stores.aggregate.buckets import Buckets
from stores.base import HostAssignment, HostLookup, ReadingsQuery, SeriesQuery
from stores.influxdb import InfluxStore
from stores.influxdb.reader import hosts_at
from tests.stores.making import MINUTE, SECOND, START, UTIL, ask, gpu, one, rows, several, values

HERE, THERE = gpu(1), gpu(1, hostname="host-099", gpu_id=7)


def lookup(*assignments: HostAssignment) -> HostLookup:
    def find(gpus: Set[str], start_ns: int, end_ns: int) -> Iterable[HostAssignment]:
        return [each for each in assignments if each[0] in gpus]

    return find


WAS_HERE = lookup(("GPU-0001", "host-000", START - MINUTE, None))
WAS_THERE = lookup(("GPU-0001", "host-099", START - MINUTE, START + MINUTE))


@pytest.fixture
def twice(influx_store: InfluxStore) -> InfluxStore:
    """A point in two series, with a metric that only the first one has, and a later point in the first one alone."""
    influx_store.write([one(HERE, START, a=1.0, b=2.0, c=3.0), one(HERE, START + 1, a=5.0)])
    influx_store.write([one(THERE, START, a=6.0, b=7.0)])
    return influx_store


@pytest.mark.parametrize(
    ("hosts", "expected"), [(None, [6.0, 7.0, 3.0]), (WAS_THERE, [6.0, 7.0, 3.0]), (WAS_HERE, [1.0, 2.0, 3.0])]
)
def test_a_reading_of_two_series_is_read_once(
    twice: InfluxStore, hosts: HostLookup | None, expected: list[float]
) -> None:
    options: dict[str, Any]
    for options in ({}, {"gpus": ("GPU-0001",)}, {"metric_names": ("a", "b", "c")}):
        whole = ask(twice, hosts=hosts, **options)
        assert values(whole) == [5.0, *expected]
        streamed = twice.stream(ReadingsQuery(hosts=hosts, **options))
        assert [row for batch in streamed for row in rows(batch)] == whole
        assert ask(twice, hosts=hosts, limit=2, offset=1, **options) == whole[1:3]


def test_a_host_filter_reads_the_series_of_that_host(twice: InfluxStore) -> None:
    assert values(ask(twice, hostnames=("host-000",), metric_names=("a",))) == [5.0, 1.0]
    assert values(ask(twice, hostnames=("host-099",), metric_names=("a",))) == [6.0]


def test_a_lookup_is_called_only_for_readings_of_two_series(influx_store: InfluxStore) -> None:
    asked: list[Any] = []
    influx_store.write([several(HERE, [(START, 1.0), (START + 1, 2.0)]), several(gpu(2), [(START, 1.0)])])

    def find(*values: Any) -> tuple[HostAssignment, ...]:
        asked.append(values)
        return ()

    ask(influx_store, hosts=find)
    assert asked == []
    influx_store.write([several(THERE, [(START, 3.0)])])
    ask(influx_store, hosts=find)
    assert asked == [({"GPU-0001"}, START, START + 1)]


@pytest.mark.parametrize(("hosts", "grown"), [(None, 20.0), (WAS_HERE, 2.0)])
def test_an_increase_takes_each_reading_once(influx_store: InfluxStore, hosts: HostLookup | None, grown: float) -> None:
    times = [START + step * SECOND for step in range(3)]
    influx_store.write([several(HERE, [(time_ns, 100.0 + step) for step, time_ns in enumerate(times)])])
    influx_store.write([several(THERE, [(time_ns, 1000.0 + 10 * step) for step, time_ns in enumerate(times)])])
    query = SeriesQuery(
        metric_name=UTIL, buckets=Buckets(START, START + SECOND * 5, MINUTE), aggregate="increase", hosts=hosts
    )
    assert influx_store.series(query)[0].values[0] == grown


def test_a_sum_over_gpus_counts_a_reading_of_two_series_once(influx_store: InfluxStore) -> None:
    for of in (HERE, THERE):
        influx_store.write([several(of, [(START, 40.0), (START + SECOND, 60.0)])])
    query = SeriesQuery(metric_name=UTIL, buckets=Buckets(START, START + SECOND * 2, MINUTE), aggregate="sum")
    assert influx_store.series(query)[0].values[0] == 50.0


def test_a_mig_instance_does_not_move_with_its_board(influx_store: InfluxStore) -> None:
    influx_store.write([one(gpu(1, mig_id="3"), START, U=1.0), one(HERE, START, U=2.0)])
    influx_store.write([one(THERE, START, U=3.0)])
    assert [(row.gpu, row.hostname, row.value) for row in ask(influx_store)] == [
        ("GPU-0001", "host-099", 3.0),
        ("GPU-0001:3", "host-000", 1.0),
    ]


def test_the_assignment_that_started_last_names_the_host() -> None:
    found = lookup(("g", "a", 0, None), ("g", "b", 5, 8), ("h", "c", 0, 3))
    moments = [("g", 4), ("g", 5), ("g", 7), ("g", 8), ("h", 2), ("h", 3), ("i", 1)]
    assert hosts_at(found, moments) == {
        ("g", 4): "a", ("g", 5): "b", ("g", 7): "b", ("g", 8): "a", ("h", 2): "c",
    }  # fmt: skip
    assert hosts_at(None, moments) == {}
