from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from stores.influxdb import InfluxStore
from stores.influxdb.client import InfluxConfig
from tests.influxd import Influxd
from tests.stand_in import Answer, StandIn, standing_in
from tests.stores.making import START, ask, gpu, one, several, values

HERE, THERE = gpu(1), gpu(1, hostname="host-099")


@pytest.fixture
def door(influxd: Influxd) -> Iterator[StandIn]:
    with standing_in(influxd.port) as door:
        yield door


def again(store: InfluxStore) -> InfluxStore:
    """A store of another process, that knows nothing."""
    return InfluxStore(store.config)


def test_another_process_knows_of_the_series_from_the_server(influx_store: InfluxStore) -> None:
    odd = gpu(1, hostname="a b,c=d\\e\nf", device="", gpu_id=None)
    influx_store.write([several(odd, [(START, 1.0), (START + 1, 2.0)])])
    other = again(influx_store)
    other.write([several(THERE, [(START, 3.0)])])
    assert [(row.hostname, row.value) for row in ask(other)] == [(odd.hostname, 2.0), ("host-099", 3.0)]
    assert ask(other) == ask(influx_store)
    other.close()


def test_a_gpu_that_moved_and_goes_on_in_time_is_asked_for_once(influxd: Influxd, influx_config: InfluxConfig) -> None:
    with standing_in(influxd.port) as door:
        store = InfluxStore(replace(influx_config, url=door.url))
        store.write([several(HERE, [(START, 1.0)])])
        store.write([several(THERE, [(START + 1, 2.0)])])
        asked: list[str] = []
        original = store._connection.query
        store._connection.query = lambda *args: asked.append(args[0]) or original(*args)  # type: ignore
        for step in range(2, 6):
            store.write([several(THERE, [(START + step, 2.0)])])
        assert asked == []
        assert [len(seen.lines) for seen in door.seen] == [1] * 6
        store.close()


def test_what_is_marked_on_the_server_is_the_old_point_alone(influxd: Influxd, influx_store: InfluxStore) -> None:
    influx_store.write([several(HERE, [(START, 1.0), (START + 1, 2.0)])])
    influx_store.write([several(THERE, [(START, 3.0)])])
    rows = influxd.query(influx_store.config.bucket, 'SELECT "superseded", "hostname" FROM "gpu"')
    assert rows == [[START, True, "host-000"]]


def test_a_gpu_that_moves_within_one_call_has_each_time_once(influx_store: InfluxStore) -> None:
    influx_store.write([several(HERE, [(START, 1.0), (START + 1, 2.0)]), several(THERE, [(START, 3.0)])])
    assert [(row.hostname, row.value) for row in ask(influx_store)] == [("host-000", 2.0), ("host-099", 3.0)]
    influx_store.write([several(HERE, [(START, 4.0)])])
    assert values(ask(influx_store)) == [2.0, 4.0]


def test_a_mig_instance_does_not_move_with_its_board(influx_store: InfluxStore) -> None:
    influx_store.write([one(gpu(1, mig_id="3"), START, U=1.0), one(HERE, START, U=2.0)])
    influx_store.write([one(THERE, START, U=3.0)])
    assert [(row.gpu, row.hostname, row.value) for row in ask(influx_store)] == [
        ("GPU-0001", "host-099", 3.0),
        ("GPU-0001:3", "host-000", 1.0),
    ]


def test_a_call_that_failed_between_its_lines_and_its_marks_is_mended_by_the_next(
    influxd: Influxd, influx_config: InfluxConfig, door: StandIn
) -> None:
    store = InfluxStore(replace(influx_config, url=door.url))
    store.write([several(HERE, [(START, 1.0)])])
    door.script += [Answer(204, forward=True), Answer(503)]
    with pytest.raises(Exception, match="503"):
        store.write([several(THERE, [(START, 2.0)])])
    # Meanwhile, readers find it once.
    assert len(ask(store)) == 1
    store.write([several(THERE, [(START, 2.0)])])
    assert [(row.hostname, row.value) for row in ask(store)] == [("host-099", 2.0)]
    assert store.stats().readings == 1
    store.close()
