"""A collector's metrics for Prometheus: readings stored and refused, its lag, and how long its writes take."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from ingest.collector.collector import Collector
from ingest.reason_counters import counters_by_kind
from ingest.rollups.making import ROADS
from ingest.rollups.roller import Roller

_PREFIX = "gpu_telemetry_collector_"


class MonitoredCollector:
    """A collector's state for /health and /metrics."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def stuck(self) -> list[str]:
        """Calls that hang."""
        return self._collector.watch.stuck() + self._collector.rollups.watch.stuck()

    def trouble(self) -> list[str]:
        """Partners that it waits for."""
        return self._collector.trouble

    async def figures(self) -> list[Metric]:
        """Its metrics. The lag comes from the broker, and is left out while that is away."""
        lag = await self._collector.lag()
        return list(_figures(self._collector, lag))


def _figures(collector: Collector, lag: int | None) -> Iterator[Metric]:
    totals = collector.totals
    yield CounterMetricFamily(_PREFIX + "messages", "Messages that were read.", value=totals.messages)
    yield CounterMetricFamily(_PREFIX + "readings_stored", "Readings that were written.", value=totals.stored)
    yield from counters_by_kind(_PREFIX, totals.refused_by)  # here or by streamers
    yield CounterMetricFamily(
        _PREFIX + "log_restores", "Times that the broker had another log than before.", value=totals.log_restores
    )
    yield _gauge("broker_connected", "1 while there is a connection to the broker.", collector.connected)
    yield _gauge(
        "retention_waiting",
        "1 while old readings are kept, since the clock and the readings disagree.",
        collector.retention_waits,
    )
    yield _gauge("readings_waiting", "Readings that wait for the next write.", collector.waiting_readings)
    yield _gauge("behind_seconds", "Age of the oldest message that was read and not committed.", collector.behind_s)
    if lag is not None:
        yield _gauge("lag_messages", "Messages in the log that are not committed.", lag)
    yield _gauge("committed_offset", "Offset up to which all is stored; -1: none yet.", collector.committed)
    if totals.committed_at:
        yield _gauge("last_commit_timestamp_seconds", "When the last commit was made.", totals.committed_at)
    yield SummaryMetricFamily(
        _PREFIX + "flush_duration_seconds",
        "How long writes to the store took.",
        count_value=totals.flushes,
        sum_value=totals.flush_seconds,
    )
    yield _gauge("last_flush_duration_seconds", "How long the last write to the store took.", totals.last_flush_seconds)
    roller = collector.rollups.roller
    if roller is not None:
        yield from _of_rollups(roller)


def _of_rollups(roller: Roller) -> Iterator[Metric]:
    yield _gauge("rollup_rolling", "1 while this collector makes the roll-ups.", roller.holds_lease)
    made = CounterMetricFamily(
        _PREFIX + "rollup_windows_made",
        "Windows of roll-ups that were made: from memory, from raw readings, or from both.",
        labels=("road",),
    )
    for road in ROADS:
        made.add_metric((road,), roller.maker.made[road])
    yield made
    totals = roller.totals
    yield CounterMetricFamily(_PREFIX + "rollup_seconds", "How long that took.", value=totals.seconds)
    yield CounterMetricFamily(
        _PREFIX + "rollup_windows_outdated",
        "Windows that were touched when raw readings of then might be gone: they stayed as they were.",
        value=totals.outdated,
    )
    yield CounterMetricFamily(
        _PREFIX + "rollup_windows_refused", "Times that a window could not be read or written.", value=totals.refused
    )
    if roller.holds_lease:
        yield _gauge("rollup_windows_waiting", "Touched windows that wait to be made.", len(roller.waiting))
        yield _gauge(
            "rollup_lag_seconds", "Age of the newest time up to which all minutes are made.", totals.lag_seconds
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, value=float(value))
