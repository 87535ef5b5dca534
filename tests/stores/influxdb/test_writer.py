from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from readings.model import PointBlock
from stores.base import StoreError, StoreUnavailable, WriteResult
from stores.influxdb import InfluxStore, writer
from stores.influxdb.client import InfluxConfig
from stores.influxdb.line_protocol import LineBuilder
from stores.influxdb.writer import requests_of
from tests.influxd import Influxd
from tests.stand_in import Answer, StandIn
from tests.stores.making import MINUTE, SECOND, START, ask, fleet, gpu, held, one, several, values

DAY = 86400 * SECOND


@pytest.fixture
def store(door: StandIn, influx_config: InfluxConfig) -> Iterator[InfluxStore]:
    """A store that speaks to the real server through the stand-in."""
    opened = InfluxStore(replace(influx_config, url=door.url))
    yield opened
    opened.close()


def refused(result: WriteResult) -> set[tuple[str, str, int]]:
    return {(each.gpu, each.metric_name, each.time_ns) for each in result.refused}


def message(text: str) -> str:
    return json.dumps({"code": "x", "message": text})


def test_a_call_is_sent_in_requests_of_a_bounded_size(store: InfluxStore, door: StandIn) -> None:
    blocks = [fleet([gpu(number) for number in range(100)], START + step) for step in range(60)]
    assert store.write(blocks).written == 12_000
    sizes = [len(seen.lines) for seen in door.seen]
    assert sorted(sizes) == [1_000, writer.MOST_LINES]
    assert held(store).readings == 12_000


def test_requests_with_many_readings_in_a_line_have_fewer_lines() -> None:
    names = [f"M{number}" for number in range(100)]
    wide = PointBlock([gpu()], names, [(0, START + step, [1.0] * 100) for step in range(400)])
    narrow = several(gpu(1), [(START + step, 1.0) for step in range(6000)])
    requests = [[table.lines for table in request] for request in requests_of(LineBuilder().tables([wide, narrow]))]
    assert requests == [[300], [100, 4900], [1100]]


class TestRealRefusals:
    """What the real server refuses."""

    def test_a_field_of_another_type_takes_nothing_else_with_it(
        self, influxd: Influxd, influx_store: InfluxStore
    ) -> None:
        influx_store.ping()
        influxd.write(influx_store.config.bucket, f"gpu,uuid=other T=5i {START}")
        blocks = [
            PointBlock(
                [gpu(n) for n in range(50)], ["U", "T", "P"], [(n, START + s, [1.0, 2.0, 3.0]) for n in range(50)]
            )
            for s in range(20)
        ]
        result = influx_store.write(blocks)
        assert result.written == 2000
        assert refused(result) == {(f"GPU-{n:04d}", "T", START + s) for n in range(50) for s in range(20)}
        assert "field type conflict" in result.refused[0].reason
        assert "already exists as type integer" in result.refused[0].reason
        assert len(ask(influx_store, metric_names=("U",), limit=5000)) == 1000
        assert len(ask(influx_store, metric_names=("P",), limit=5000)) == 1000

    def test_a_type_that_differs_in_one_shard_is_refused_there_alone(
        self, influxd: Influxd, influx_store: InfluxStore
    ) -> None:
        influx_store.ping()
        influxd.write(influx_store.config.bucket, f"gpu,uuid=other T=5i {START}")
        result = influx_store.write(
            [
                several(gpu(), [(START + step * DAY, float(step)) for step in range(0, 60)], "T"),
                one(gpu(1), START, U=1.0),
            ]
        )
        assert 0 < len(result.refused) < 10
        assert result.written == 61 - len(result.refused)
        kept = {row.time_ns for row in ask(influx_store, gpus=("GPU-0000",), limit=1000)}
        assert {each.time_ns for each in result.refused} == {START + step * DAY for step in range(60)} - kept
        assert len(ask(influx_store, gpus=("GPU-0001",))) == 1

    def test_two_fields_of_another_type_are_both_found(self, influxd: Influxd, influx_store: InfluxStore) -> None:
        influx_store.ping()
        influxd.write(influx_store.config.bucket, f'gpu,uuid=other T=5i,P="text" {START}')
        result = influx_store.write([one(gpu(n), START, P=1.0, T=2.0, U=3.0, V=4.0) for n in range(10)])
        assert refused(result) == {(f"GPU-{n:04d}", name, START) for n in range(10) for name in "PT"}
        assert len(ask(influx_store, metric_names=("U", "V"))) == 20

    def test_points_older_than_the_retention_are_refused_and_the_others_stored(
        self, influxd: Influxd, influx_config: InfluxConfig
    ) -> None:
        store = InfluxStore(replace(influx_config, retention=7200.0))
        now = time.time_ns()
        old = [(now - 10 * 3600 * SECOND + step * SECOND, 1.0) for step in range(300)]
        young = [(now - 60 * SECOND + step, 2.0) for step in range(300)]
        result = store.write([several(gpu(), [*young[:100], *old, *young[100:]])])
        assert result.written == 300
        assert {each.time_ns for each in result.refused} == {time_ns for time_ns, _ in old}
        assert "retention" in result.refused[0].reason
        assert values(ask(store, limit=1000)) == [2.0] * 300
        store.close()


class TestScriptedRefusals:
    """What a real server does not do on demand."""

    def test_a_400_is_bisected_since_nothing_of_the_body_was_written(self, store: InfluxStore, door: StandIn) -> None:
        def rule(lines: list[str]) -> Answer | None:
            return Answer(400, message("unable to parse")) if any("GPU-0007" in line for line in lines) else None

        door.rule = rule
        result = store.write([fleet([gpu(number) for number in range(64)], START)])
        assert refused(result) == {
            ("GPU-0007", "DCGM_FI_DEV_GPU_UTIL", START),
            ("GPU-0007", "DCGM_FI_DEV_GPU_TEMP", START),
        }
        assert result.refused[0].reason == "unable to parse"
        assert result.written == 126
        assert len(ask(store, limit=1000)) == 126
        assert len(door.seen) < 20

    def test_a_422_leaves_the_valid_rest_and_is_narrowed_down(self, store: InfluxStore, door: StandIn) -> None:
        def rule(lines: list[str]) -> Answer | None:
            bad = sum("GPU-0003" in line and "GPU_UTIL" in line for line in lines)
            return Answer(422, message(f"partial write: odd dropped={bad}"), forward=not bad) if bad else None

        door.rule = rule
        result = store.write([fleet([gpu(number) for number in range(64)], START)])
        assert refused(result) == {("GPU-0003", "DCGM_FI_DEV_GPU_UTIL", START)}
        assert len(ask(store, limit=1000)) == 127

    def test_a_413_is_split_until_it_fits(self, store: InfluxStore, door: StandIn) -> None:
        door.rule = lambda lines: Answer(413, message("too large")) if len(lines) > 10 else None
        result = store.write([fleet([gpu(number) for number in range(100)], START)])
        assert (result.written, result.refused) == (200, ())
        assert held(store).readings == 200

    def test_a_line_that_is_too_large_by_itself_is_refused(self, store: InfluxStore, door: StandIn) -> None:
        door.rule = lambda lines: (
            Answer(413, message("too large")) if any("GPU-0001" in line for line in lines) else None
        )
        result = store.write([fleet([gpu(0), gpu(1)], START)])
        assert (result.written, len(result.refused)) == (2, 2)

    @pytest.mark.parametrize("status", [404, 405, 501])
    def test_a_refusal_that_is_not_of_the_lines_refuses_no_reading(
        self, store: InfluxStore, door: StandIn, status: int
    ) -> None:
        door.script.append(Answer(status, message("no such organization")))
        with pytest.raises(StoreError, match=f"{status} no such organization"):
            store.write([one(gpu(), START, U=1.0)])

    def test_trouble_in_the_middle_of_a_call_is_all_of_it_again(self, store: InfluxStore, door: StandIn) -> None:
        blocks = [fleet([gpu(number) for number in range(100)], START + step * MINUTE) for step in range(60)]
        store.ping()
        door.script += [Answer(204, forward=True), Answer(503, message("busy"), {"Retry-After": "1"})]
        with pytest.raises(StoreUnavailable) as caught:
            store.write(blocks)
        assert caught.value.retry_after == 1.0
        assert store.write(blocks).written == 12_000
        assert held(store).readings == 12_000

    def test_a_write_whose_answer_was_lost_is_stored_once(self, store: InfluxStore, door: StandIn) -> None:
        store.ping()
        door.script.append(Answer(forward=True))
        assert store.write([one(gpu(), START, U=1.0)]).written == 1
        assert held(store).readings == 1
