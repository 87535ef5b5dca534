from __future__ import annotations

from collections.abc import Iterable

import aiohttp
import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from telemetry_site.env import Address
from telemetry_site.monitor import monitoring, render
from telemetry_site.service import CannotListen

ANYWHERE = Address("127.0.0.1", 0)


class Service:
    """A service that tells what it is told to."""

    def __init__(self) -> None:
        self.hangs: list[str] = []
        self.waits_for: list[str] = []

    def stuck(self) -> list[str]:
        return self.hangs

    def trouble(self) -> list[str]:
        return self.waits_for

    async def figures(self) -> Iterable[Metric]:
        return [GaugeMetricFamily("answer", "It.", value=42.0)]


async def test_health_is_that_of_the_service_and_readiness_that_of_its_partners_too() -> None:
    service = Service()

    async def ask(path: str) -> tuple[int, object]:
        async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.json()

    async with monitoring(ANYWHERE, service) as port, aiohttp.ClientSession() as session:
        assert await ask("/health") == (200, {"status": "healthy", "reasons": []})
        assert await ask("/ready") == (200, {"status": "ready", "reasons": []})
        service.waits_for = ["the broker is away"]
        assert await ask("/health") == (200, {"status": "degraded", "reasons": ["the broker is away"]})
        assert await ask("/ready") == (503, {"status": "not ready", "reasons": ["the broker is away"]})
        service.hangs = ["a read has not ended for 61 s"]
        both = ["a read has not ended for 61 s", "the broker is away"]
        assert await ask("/health") == (503, {"status": "unhealthy", "reasons": both})
        assert await ask("/ready") == (503, {"status": "not ready", "reasons": both})


async def test_figures_are_told_with_those_of_the_process() -> None:
    async with (
        monitoring(ANYWHERE, Service()) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        text = await answer.text()
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\nanswer 42.0\n" in text
    assert "process_resident_memory_bytes" in text
    assert render([]).startswith(b"# HELP process_")


async def test_an_address_that_is_taken_is_said_in_one_line() -> None:
    async with monitoring(ANYWHERE, Service()) as port:
        with pytest.raises(CannotListen, match=r"METRICS_ADDR .*: cannot listen on 127.0.0.1:"):
            async with monitoring(Address("127.0.0.1", port), Service()):
                pass
