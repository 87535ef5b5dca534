"""A streamer's own /health and /metrics: what it has done, how far it is behind, how its exporters are doing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from ingest.errors import SourceError
from ingest.report import Report
from ingest.scraper import TargetStatus

_PREFIX = "gpu_telemetry_streamer"


@asynccontextmanager
async def monitoring(
    host: str, port: int, report: Callable[[], Report], statuses: Mapping[str, TargetStatus]
) -> AsyncIterator[int]:
    """Answer inside the block; gives the port. Raises SourceError when the address is taken."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=render(report(), statuses), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def health(request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SourceError(
                f"METRICS_ADDR (--metrics-addr): cannot listen on {host}:{port}: {error.strerror}"
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def render(report: Report, statuses: Mapping[str, TargetStatus]) -> str:
    """All of it as Prometheus reads it."""
    lines = [
        *_metric("readings_read_total", "counter", "Readings that the source gave.", {"": report.read}),
        *_metric("readings_sent_total", "counter", "Readings that the broker answered.", {"": report.sent}),
        *_metric(
            "readings_refused_total",
            "counter",
            "Readings and rows turned away, by reason.",
            {f'{{reason="{reason}"}}': count for reason, count in sorted(report.refused.items())},
        ),
        *_metric("batches_waiting", "gauge", "Batches that the broker has not answered.", {"": report.waiting}),
        *_metric("behind_seconds", "gauge", "Age of the oldest reading not answered.", {"": round(report.behind_s, 3)}),
    ]
    if statuses:
        told = {f'{{target="{_escaped(url)}"}}': status for url, status in statuses.items()}
        lines += _metric(
            "target_up",
            "gauge",
            "Whether the last scrape was good.",
            {key: int(bool(one.up)) for key, one in told.items()},
        )
        lines += _metric(
            "target_scrape_duration_seconds",
            "gauge",
            "How long the last scrape took.",
            {key: round(one.duration_s, 6) for key, one in told.items()},
        )
        lines += _metric(
            "target_samples", "gauge", "Readings of the last scrape.", {key: one.samples for key, one in told.items()}
        )
        lines += _metric(
            "target_failures_total", "counter", "Scrapes that failed.", {key: one.failures for key, one in told.items()}
        )
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, values: Mapping[str, float]) -> list[str]:
    full = f"{_PREFIX}_{name}"
    return [
        f"# HELP {full} {text}",
        f"# TYPE {full} {kind}",
        *[f"{full}{labels} {value}" for labels, value in values.items()],
    ]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
