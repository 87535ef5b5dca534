from __future__ import annotations

import asyncio

import aiohttp
import pytest

from ingest.simulator.exporter import FakeConfig, fake_exporters
from ingest.simulator.fleet import ALL_METRICS, FleetShape
from ingest.simulator.versions import GENERATIONS
from tests.ingest.processes import free_port


async def test_each_host_has_an_exporter_of_its_kind() -> None:
    config = FakeConfig(shape=FleetShape(7, 2), port=0, hanging=1, garbage=1)
    async with fake_exporters(config) as exporters, aiohttp.ClientSession() as session:
        kinds = [each.kind for each in exporters]
        assert kinds == ["hanging", "garbage", *[GENERATIONS[number % 5] for number in range(2, 7)]]
        with pytest.raises(TimeoutError):
            async with session.get(exporters[0].url, timeout=aiohttp.ClientTimeout(total=0.2)):
                pass
        async with session.get(exporters[1].url) as answer:
            assert (await answer.read())[:2] == b"\0\1"
        pages = {}
        for each in exporters[2:]:
            async with session.get(each.url) as answer:
                assert answer.content_type == "text/plain"
                pages[each.kind] = await answer.text()
    assert "DCGM_FI_DEV_SM_CLOCK_HERTZ{" in pages["4.9"]
    assert "dcgm_sm_clock{" in pages["1.x"]
    assert 'Hostname="synthetic-' in pages["4.5"]
    assert 'hostname="synthetic-' in pages["4.8.3"]


async def test_ports_in_a_row_and_a_port_that_is_taken() -> None:
    port = free_port()
    async with fake_exporters(FakeConfig(shape=FleetShape(1, 1), port=port)) as exporters:
        assert exporters[0].url == f"http://127.0.0.1:{port}/metrics"
        with pytest.raises(OSError, match="in use"):
            async with fake_exporters(FakeConfig(shape=FleetShape(1, 1), port=port)):
                await asyncio.sleep(0)


async def test_one_host_in_every_generation_at_one_moment_for_ever() -> None:
    config = FakeConfig(shape=FleetShape(2, 1, metrics=ALL_METRICS), port=0, each=True, still=True)
    async with fake_exporters(config) as exporters, aiohttp.ClientSession() as session:
        assert [(each.host, each.kind) for each in exporters] == [
            (f"synthetic-00{host}", kind) for host in (1, 2) for kind in GENERATIONS
        ]
        pages = []
        for _ in range(2):
            async with session.get(exporters[1].url) as answer:
                pages.append(await answer.text())
            await asyncio.sleep(1.1)  # a fleet that is not still moves on each second
    assert pages[0] == pages[1]
    assert 'DCGM_FI_DEV_CPU_UTIL_TOTAL{cpu="0"' in pages[0]
