"""Fake dcgm-exporters for tests, demos and load runs: one per host of a synthetic fleet, each on its own port."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from aiohttp import web

from ingest.simulator.fleet import ALL_METRICS, FleetShape, SimFleet
from ingest.simulator.gpu import SimHost
from ingest.simulator.versions import GENERATIONS, exposition, other_rows

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LONGEST_STEP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeConfig:
    """Hosts get the ``generations`` in turn; with ``each``, every host has one exporter of each generation. The first ``hanging``
    exporters never answer, the next ``garbage`` answer nonsense. Port 0 takes free ports, any other counts up from there. With
    ``still`` no time passes in the fleet: every answer has the same values."""

    shape: FleetShape
    generations: Sequence[str] = GENERATIONS
    host: str = "127.0.0.1"
    port: int = 9400
    hanging: int = 0
    garbage: int = 0
    each: bool = False
    still: bool = False

    @property
    def count(self) -> int:
        """The number of exporters."""
        return self.shape.hosts * (len(self.generations) if self.each else 1)


class Exporter(NamedTuple):
    """A running exporter. ``kind`` is a generation, ``hanging`` or ``garbage``."""

    url: str
    host: str
    kind: str


class _Fakes:
    def __init__(self, config: FakeConfig) -> None:
        self._fleet = SimFleet(config.shape)
        self._everything = config.shape.metrics == ALL_METRICS
        self._still = config.still
        self._since = time.monotonic()
        hosts, generations = self._fleet.hosts, config.generations
        broken = ["hanging"] * config.hanging + ["garbage"] * config.garbage
        self.exporters = [
            (
                hosts[number // len(generations) if config.each else number],
                broken[number] if number < len(broken) else generations[number % len(generations)],
            )
            for number in range(config.count)
        ]
        self.by_port: dict[int, tuple[SimHost, str]] = {}

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None  # noqa: S101 - the client is there, or the handler would be cancelled
        host, kind = self.by_port[request.transport.get_extra_info("sockname")[1]]
        if kind == "hanging":
            await asyncio.sleep(3600)
        if kind == "garbage":
            return web.Response(body=bytes(range(256)) * 40, headers={"Content-Type": CONTENT_TYPE})
        self._advance()
        page = exposition(self._fleet.readings(host), kind)
        if self._everything:
            page += other_rows([gpu.identity for gpu in host.gpus], kind)
        return web.Response(body=page.encode(), headers={"Content-Type": CONTENT_TYPE})

    def _advance(self) -> None:
        """Move the fleet on with the clock, in steps of at least a second: scrapes within one see the same values."""
        passed = time.monotonic() - self._since
        if passed >= 1.0 and not self._still:
            self._since += passed
            self._fleet.step(min(passed, _LONGEST_STEP_S))


@asynccontextmanager
async def fake_exporters(config: FakeConfig) -> AsyncIterator[list[Exporter]]:
    """Exporters that answer inside the block. Raises OSError when a port is taken."""
    if config.port + config.count - 1 > 65535:
        raise OSError("the last port would be over 65535")
    fakes = _Fakes(config)
    app = web.Application()
    app.router.add_get("/metrics", fakes.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        exporters = []
        for number, (host, kind) in enumerate(fakes.exporters):
            site = web.SockSite(runner, socket.create_server((config.host, config.port and config.port + number)))
            await site.start()
            port = runner.addresses[-1][1]
            fakes.by_port[port] = (host, kind)
            exporters.append(Exporter(f"http://{config.host}:{port}/metrics", host.name, kind))
        yield exporters
    finally:
        await runner.cleanup()
