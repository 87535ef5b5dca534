from __future__ import annotations

import asyncio
import time

from ingest.shard import Shard
from ingest.simulator.fleet import DEFAULT_METRICS, FleetShape
from ingest.simulator.source import SimulateSource
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
