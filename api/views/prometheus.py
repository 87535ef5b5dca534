"""Prometheus metrics of the pipeline, read at each scrape.

The web processes count nothing themselves, because there are several and each scrape reaches only one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.db import DatabaseError
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.views.stats import ask_broker, newest_ns_of, read_collectors
from health.standing import open_counts, waiting_notices, watch_standing
from inventory.queries import fleet_counts
from readings.checks import Kinds
from readings.times import SECOND
from stores.base import StoreError
from stores.open import get_store

_PREFIX = "gpu_telemetry_"


def render_metrics() -> bytes:
    """All metrics in the text format. A part that does not answer is 0 in ``gpu_telemetry_up``; nothing is raised."""
    registry = CollectorRegistry()
    registry.register(_Pipeline())
    return generate_latest(registry)


class _Pipeline(Collector):
    def describe(self) -> list[Metric]:
        return []  # without this, registering would collect once more

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(_PREFIX + "up", "1 when this part answers.", labels=("part",))
        for part, parts in (("database", (_database, _health)), ("store", (_store,)), ("broker", (_broker,))):
            try:
                for metrics in parts:
                    yield from metrics()
                up.add_metric((part,), 1)
            except (DatabaseError, StoreError, _Away):
                up.add_metric((part,), 0)
        yield up


class _Away(Exception):
    pass


def _gauge(name: str, help: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, help, value=value)


def _database() -> list[Metric]:
    fleet = fleet_counts()
    gpus = GaugeMetricFamily(_PREFIX + "gpus", "Physical GPUs by state.", labels=("state",))
    gpus.add_metric(("reporting",), fleet.reporting)
    gpus.add_metric(("stale",), fleet.stale)
    messages = CounterMetricFamily(_PREFIX + "messages", "Messages a collector has read.", labels=("collector",))
    stored = CounterMetricFamily(
        _PREFIX + "readings_stored", "Readings a collector has written.", labels=("collector",)
    )
    refused, remarked, passed_over = (
        CounterMetricFamily(_PREFIX + "readings_" + kind, text, labels=("collector", "reason"))
        for kind, text in (
            ("refused", "Readings that were turned away."),
            ("remarked", "Readings taken without something that they do not need."),
            ("passed_over", "Rows that are by design no readings."),
        )
    )
    committed = GaugeMetricFamily(
        _PREFIX + "committed_offset", "Offset up to which a collector has stored.", labels=("collector",)
    )
    for each in read_collectors():
        messages.add_metric((each.collector_id,), each.messages)
        stored.add_metric((each.collector_id,), each.readings_stored)
        committed.add_metric((each.collector_id,), each.committed_offset)
        for metric, counts in zip((refused, remarked, passed_over), Kinds.of(each.refused), strict=True):
            for reason, count in sorted(counts.items()):
                metric.add_metric((each.collector_id, reason), count)
    by_kind = (refused, remarked, passed_over)
    return [_gauge("hosts", "Hosts.", fleet.hosts), gpus, messages, stored, *by_kind, committed]


def _health() -> list[Metric]:
    events = GaugeMetricFamily(
        _PREFIX + "open_events",
        "Events of the fleet's health that are open or unknown. quiet: nobody is notified of them.",
        labels=("rule", "severity", "quiet"),
    )
    for each in open_counts():
        events.add_metric((each.rule, each.severity, str(each.quiet).lower()), each.events)
    notices = waiting_notices()
    metrics: list[Metric] = [
        events,
        _gauge("notices_waiting", "Notices of events that are not sent yet.", notices.waiting),
        _gauge(
            "notices_overdue_seconds", "For how long the first of them should have been sent.", notices.overdue_seconds
        ),
    ]
    watch = watch_standing()
    if watch is not None:
        metrics.append(_gauge("watch_judging", "1 while a watch holds the lease.", watch.is_judging))
        metrics.append(_gauge("watch_offset", "Offset up to which all is judged; -1: none yet.", watch.offset))
        if watch.updated is not None:
            age = max(0.0, (timezone.now() - watch.updated).total_seconds())
            metrics.append(_gauge("watch_age_seconds", "Seconds since watch wrote what it judged.", age))
    return metrics


def _store() -> list[Metric]:
    stats = get_store().stats()
    metrics: list[Metric] = [_gauge("store_bytes", "Size of the store.", stats.bytes)]
    if stats.readings is not None:
        metrics.append(_gauge("store_readings", "Readings in the store.", stats.readings))
    if stats.series is not None:
        metrics.append(_gauge("store_series", "Series in the store.", stats.series))
    newest_ns = newest_ns_of(stats)
    if newest_ns is not None:
        help = "Time of the newest reading, in seconds since 1970."
        metrics.append(_gauge("newest_reading_timestamp_seconds", help, newest_ns / SECOND))
    return metrics


def _broker() -> list[Metric]:
    broker, subscribers = ask_broker()
    if broker.error is not None:
        raise _Away
    lag = GaugeMetricFamily(
        _PREFIX + "subscriber_lag", "Messages a subscriber has not committed.", labels=("subscriber",)
    )
    for each in subscribers:
        if each.lag is not None:
            lag.add_metric((str(each.id),), each.lag)
    total = CounterMetricFamily(
        _PREFIX + "broker_messages", "Messages in the broker's log.", value=broker.total_messages or 0
    )
    return [total, lag]
