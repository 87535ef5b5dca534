"""/health, /ready and /metrics of a streamer, collector or watch, on METRICS_ADDR."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from telemetry_site.service import CannotListen

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ListenAddress(Protocol):
    """Where to listen."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class Monitored(Protocol):
    """A service that reports its state."""

    def stuck(self) -> list[str]:
        """One text for each thing that hangs, so that only a restart helps."""

    def trouble(self) -> list[str]:
        """One text for each partner (broker, store) that it waits for. It recovers by itself."""

    async def figures(self) -> Iterable[Metric]:
        """Its current metrics."""


@asynccontextmanager
async def monitoring(address: ListenAddress, service: Monitored) -> AsyncIterator[int]:
    """Serve inside the block; yields the port.

    /health answers 503 when something is stuck, and 200 ``degraded`` while a partner is away, since a restart would not help.
    /ready answers 503 in both cases. Raises CannotListen when the address cannot be listened on.
    """

    async def health(request: web.Request) -> web.Response:
        stuck, trouble = service.stuck(), service.trouble()
        status = "unhealthy" if stuck else "degraded" if trouble else "healthy"
        return web.json_response({"status": status, "reasons": stuck + trouble}, status=503 if stuck else 200)

    async def ready(request: web.Request) -> web.Response:
        reasons = service.stuck() + service.trouble()
        status = "not ready" if reasons else "ready"
        return web.json_response({"status": status, "reasons": reasons}, status=503 if reasons else 200)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=render(await service.figures()), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/ready", ready), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, address.host, address.port).start()
        except OSError as error:
            raise CannotListen(
                f"METRICS_ADDR (--metrics-addr): cannot listen on {address.host}:{address.port}: {error.strerror}"
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def render(figures: Iterable[Metric]) -> bytes:
    """The metrics, and those of the process itself, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Figures(figures))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, figures: Iterable[Metric]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        return self._figures
