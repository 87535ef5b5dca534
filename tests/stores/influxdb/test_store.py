from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from stores import influxdb
from stores.base import StoreUnavailable
from stores.influxdb import InfluxStore, split_writable
from stores.influxdb.client import InfluxConfig
from stores.influxdb.line_protocol import FIRST_NS, LAST_NS
from tests.influxd import Influxd
from tests.ports import free_port
from tests.stand_in import Answer, standing_in
from tests.stores.making import START, ask, fleet, gpu, held, keys, one, several


@pytest.fixture
def own_influxd(influxd: Influxd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A server that a test may kill."""
    server = Influxd(influxd.binary, tmp_path_factory.mktemp("own-influxd"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_its_own_names_and_times_are_refused_by_themselves(influx_store: InfluxStore) -> None:
    result = influx_store.write([one(gpu(), START, time=1.0, pod=2.0, U=3.0), several(gpu(1), [(1 - (1 << 63), 4.0)])])
    assert result.written == 1
    assert {(each.metric_name, each.reason) for each in result.refused} == {
        ("time", "InfluxDB cannot have a metric named 'time'"),
        ("pod", "InfluxDB cannot have a metric named 'pod'"),
        ("DCGM_FI_DEV_GPU_UTIL", "the time is one that InfluxDB cannot have"),
    }
    assert keys(ask(influx_store)) == [(START, "GPU-0000", "U")]


def test_the_outermost_times_that_it_can_have_are_kept(influx_store: InfluxStore) -> None:
    influx_store.write([several(gpu(), [(FIRST_NS, 1.0), (LAST_NS, 2.0)])])
    assert [row.time_ns for row in ask(influx_store)] == [LAST_NS, FIRST_NS]
    assert influx_store.apply_retention(LAST_NS) == 1
    assert [row.time_ns for row in ask(influx_store)] == [LAST_NS]


def test_what_can_be_written_is_left_as_it_is() -> None:
    block = fleet([gpu(1)], START)
    assert split_writable([block]) == ([block], [])


def test_old_readings_go_without_being_asked_for() -> None:
    assert InfluxStore.expires_by_itself


def test_size_and_series_are_what_the_server_says_and_the_rest_is_unknown(influx_store: InfluxStore) -> None:
    influx_store.ping()
    empty = influx_store.stats().bytes
    influx_store.write([fleet([gpu(number) for number in range(64)], START + step) for step in range(100)])
    stats = influx_store.stats()
    assert stats.bytes > empty + 10_000
    assert stats.series is not None  # the server counts anew every ten seconds
    assert (stats.readings, stats.shares, stats.oldest_ns, stats.newest_ns) == (None, None, None, None)


def test_it_is_ready_when_the_server_comes_up(own_influxd: Influxd) -> None:
    config = own_influxd.config()
    own_influxd.stop()
    store = InfluxStore(config)
    for call in (store.ping, store.stats, lambda: ask(store), lambda: store.write([one(gpu(), START, U=1.0)])):
        with pytest.raises(StoreUnavailable, match="does not answer: connection refused"):
            call()
    own_influxd.start()
    assert store.write([one(gpu(), START, U=1.0)]).written == 1
    assert len(ask(store)) == 1
    store.close()


def test_what_was_written_outlives_a_kill_of_the_server(own_influxd: Influxd) -> None:
    store = InfluxStore(own_influxd.config())
    for step in range(20):
        store.write([fleet([gpu(number) for number in range(8)], START + step)])
    own_influxd.kill()
    with pytest.raises(StoreUnavailable):
        ask(store)
    own_influxd.start()
    assert held(store).readings == 320
    store.close()


def test_figures_are_those_of_the_bucket_and_none_without_metrics(
    influxd: Influxd, influx_config: InfluxConfig
) -> None:
    with standing_in(influxd.port) as door:
        store = InfluxStore(replace(influx_config, url=door.url))
        store.ping()
        door.away = Answer(404, "no metrics here")
        assert influxdb.bucket_figures(store._connection, "x") == (0, None)
        labels = 'bucket="x",id="1"'
        door.away = Answer(
            200,
            f'storage_bucket_series_num{{bucket="x"}} 64\nstorage_bucket_series_num{{bucket="y"}} 3\n'
            f"storage_wal_size{{{labels}}} 5e3\nstorage_shard_disk_size{{{labels}}} 1.5e+06\n",
        )
        assert influxdb.bucket_figures(store._connection, "x") == (1_505_000, 64)
        store.close()


def test_an_address_with_nothing_behind_it_is_told_by_ping() -> None:
    store = InfluxStore(InfluxConfig(f"http://127.0.0.1:{free_port()}", "t", "o", "b"))
    with pytest.raises(StoreUnavailable):
        store.ping()
    store.close()
