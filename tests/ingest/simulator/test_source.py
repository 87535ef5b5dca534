from __future__ import annotations

import asyncio
import time

from ingest.shard import Shard
from ingest.simulator.fleet import ALL_METRICS, DEFAULT_METRICS, FleetShape
from ingest.simulator.source import HISTORY_STEP_S, SimulateSource
from ingest.streamer.live import SourceBatch
from tests.ingest.wiring import until


async def test_it_tells_of_the_fleet_at_its_beat_until_it_is_stopped() -> None:
    stop = asyncio.Event()
    given: list[SourceBatch] = []
    source = SimulateSource(FleetShape(2, 3), 0.05)
    task = asyncio.create_task(source.run(given.append, stop, once=False))
    await until(lambda: len(given) >= 4)
    stop.set()
    await task
    assert {len(portion.samples) for portion in given} == {6 * len(DEFAULT_METRICS)}
    times = [portion.samples[0].time_ns for portion in given]
    assert times == sorted(set(times))
    assert abs(times[-1] - time.time_ns()) < 10e9


async def test_blank_numbers_are_refused_as_a_scrape_would() -> None:
    source = SimulateSource(FleetShape(1, 1, faults=("blank",)), 10.0)
    given: list[SourceBatch] = []
    await source.run(given.append, asyncio.Event(), once=True)
    assert given[0].counts == {"blank": 2}
    assert "9223372036854775" in given[0].refused[0].raw


async def test_shards_tell_of_each_host_once() -> None:
    hosts = []
    for place in range(3):
        given: list[SourceBatch] = []
        source = SimulateSource(FleetShape(20, 1), 1.0, Shard(place, 3))
        await source.run(given.append, asyncio.Event(), once=True)
        hosts += list({sample.gpu.hostname for sample in given[0].samples})
    assert len(hosts) == len(set(hosts)) == 20


async def test_with_a_history_it_first_tells_of_the_past_in_order_and_ends_now() -> None:
    before = time.time_ns()
    source = SimulateSource(FleetShape(2, 3), 5.0, history=1800.0)
    given: list[SourceBatch] = []
    await source.run(given.append, asyncio.Event(), once=True)
    times = [portion.samples[0].time_ns for portion in given]
    assert len(times) == 1800 // HISTORY_STEP_S + 1
    assert times == sorted(set(times))
    assert before - 1801e9 < times[0] < before - 1700e9
    assert times[-2] < before <= times[-1]
    assert {sample.time_ns for sample in given[0].samples} == {times[0]}


async def test_the_past_of_a_large_fleet_is_coarser() -> None:
    shape = FleetShape(200, 8, metrics=ALL_METRICS)
    source = SimulateSource(shape, 5.0, history=36_000.0)
    given: list[SourceBatch] = []
    await source.run(given.append, asyncio.Event(), once=True)
    assert 1 < len(given) < 1200
    assert sum(len(portion.samples) for portion in given[:-1]) <= 1_000_000
    first, last = given[0].samples[0].time_ns, given[-1].samples[0].time_ns
    assert 35_900e9 < last - first < 36_100e9


async def test_a_stop_ends_the_past_too() -> None:
    stop = asyncio.Event()
    given: list[SourceBatch] = []

    def give(batch: SourceBatch) -> None:
        given.append(batch)
        stop.set()

    await SimulateSource(FleetShape(1, 1), 5.0, history=3600.0).run(give, stop, once=False)
    assert len(given) == 1
