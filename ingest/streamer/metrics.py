"""A streamer's figures for Prometheus: its work, its delay, and the state of its exporters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ingest.reason_counters import counters_by_kind
from ingest.streamer.report import Report

if TYPE_CHECKING:
    from ingest.exporter.scraper import TargetStatus

_PREFIX = "gpu_telemetry_streamer_"


class MonitoredStreamer:
    """A streamer as /health and /metrics see it. ``statuses`` has its exporters, if any."""

    def __init__(self, report: Report, statuses: Mapping[str, TargetStatus]) -> None:
        self._report = report
        self._statuses = statuses

    def stuck(self) -> list[str]:
        """The operations that hang."""
        return self._report.watch.stuck()

    def trouble(self) -> list[str]:
        """What the streamer waits for."""
        asked = [each for each in self._statuses.values() if each.up is not None]
        down = [f"none of {len(asked)} exporters is up"] if asked and not any(each.up for each in asked) else []
        up = [each for each in asked if each.up]
        empty = [f"none of {len(up)} exporters gives a GPU"] if up and not any(each.gpus for each in up) else []
        return [*self._report.now().trouble, *down, *empty]

    async def figures(self) -> list[Metric]:
        """The figures."""
        return [*_work(self._report.now()), *_targets(self._statuses)]


def _work(report: Report) -> Iterator[Metric]:
    yield _counter("readings_read", "Readings that the source gave.", report.read)
    yield _counter("readings_sent", "Readings that the broker answered.", report.sent)
    yield _counter("batches_sent", "Batches that the broker answered.", report.batches)
    yield from counters_by_kind(_PREFIX, report.counts)
    yield _gauge("broker_connected", "1 while there is a connection to the broker.", report.connected)
    yield _gauge("batches_waiting", "Batches that the broker has not answered.", report.waiting)
    yield _gauge("behind_seconds", "Age of the oldest reading that was read and not answered.", report.behind_s)
    if report.spool_bytes is not None:
        yield _gauge("spool_bytes", "Size of the spool on disk.", report.spool_bytes)
    if report.backlog is not None:
        left = report.backlog
        yield _gauge("capture_left_bytes", "Bytes of captures that are not sent and answered.", left.bytes)
        yield _gauge("capture_left_rows", "Rows of captures that are not sent and answered, about.", left.rows)
        if left.seconds is not None:
            yield _gauge("capture_left_seconds", "Time for the rest of the captures at the pace so far.", left.seconds)


def _targets(statuses: Mapping[str, TargetStatus]) -> Iterator[Metric]:
    if not statuses:
        return
    up = _by_target("target_up", "1 when the last scrape was good.")
    duration = _by_target("target_scrape_duration_seconds", "How long the last scrape took.")
    samples = _by_target("target_samples", "Readings of the last scrape.")
    gpus = GaugeMetricFamily(
        "gpu_telemetry_target_gpus", "GPUs in the last answer; 0 where there was none.", labels=("target",)
    )
    failures = CounterMetricFamily(_PREFIX + "target_failures", "Scrapes that failed.", labels=("target",))
    for url, status in statuses.items():
        up.add_metric((url,), bool(status.up))
        duration.add_metric((url,), round(status.duration_s, 6))
        samples.add_metric((url,), status.samples)
        gpus.add_metric((url,), status.gpus)
        failures.add_metric((url,), status.failures)
    yield from (up, duration, samples, gpus, failures)


def _by_target(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, labels=("target",))


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(_PREFIX + name, text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, value=float(value))
