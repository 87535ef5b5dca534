"""The broker's figures for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.errors import BY_CODE
from broker.server.stats import subscriber_stats

if TYPE_CHECKING:
    from broker.server.server import BrokerServer


def exposition(server: BrokerServer) -> tuple[bytes, str]:
    """All figures in Prometheus' text format, and its content type."""
    registry = CollectorRegistry()
    registry.register(_Figures(server))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Figures(Collector):
    """Reads the figures when they are asked for: counting costs the hot path nothing."""

    def __init__(self, server: BrokerServer) -> None:
        self._server = server

    def describe(self) -> list[Metric]:
        return []  # so that registering reads nothing

    def collect(self) -> Iterator[Metric]:
        server = self._server
        on_disk, counters, delivery = server.log.stats(), server.counters, server.delivery
        for name, text, value in (
            ("oldest_offset", "First offset that is still in the log", on_disk.oldest_offset),
            ("next_offset", "Offset that the next message gets", on_disk.next_offset),
            ("log_bytes", "Bytes of the log on disk", on_disk.bytes),
            ("segments", "Segment files of the log", on_disk.segments),
            ("producers", "Producers known for duplicate suppression", on_disk.producers),
            ("connections", "Clients connected", len(server.connections)),
            ("subscribers", "Subscribers connected", len(delivery.subscriptions)),
            ("waiting_bytes", "Bytes of publishes not written yet", server.committer.bytes),
            ("event_loop_lag_seconds", "How late the event loop was last seen", server.loop_lag),
            (
                "clock_jumped",
                "1 while the clock is an hour off its start: nothing expires by age",
                on_disk.clock_jumped,
            ),
            ("uptime_seconds", "Seconds since the start", time.monotonic() - server.started),
        ):
            yield GaugeMetricFamily(f"broker_{name}", text, value)
        for name, text, value in (
            ("published_messages", "Messages appended", counters.answered - counters.duplicates),
            ("appended_bytes", "Bytes of records appended", on_disk.appended_bytes),
            ("dropped_messages", "Messages that retention dropped", on_disk.dropped_messages),
            ("dropped_bytes", "Bytes that retention dropped", on_disk.dropped_bytes),
            ("duplicate_messages", "Publishes that were in the log already", counters.duplicates),
            ("refused_messages", "Publishes the log refused", counters.refused),
            ("bad_requests", "Requests answered with an error of their own", counters.bad_requests),
            ("connections_turned_away", "Connections over a limit", counters.turned_away),
            ("dead_connections", "Peers dropped because nothing was heard of them", counters.dead),
            ("delivered_messages", "Messages written to subscribers", delivery.delivered),
            ("gaps", "Gaps told to subscribers", delivery.gaps),
            ("groups", "Groups of messages written", on_disk.groups),
            ("failed_groups", "Groups that could not be written", on_disk.failed_groups),
            ("producer_gaps", "Sequences that producers left out", on_disk.producer_gaps),
            ("torn_bytes", "Bytes of unfinished writes set aside at the start", on_disk.torn_bytes),
            ("damaged_records", "Records found damaged", on_disk.damaged_records),
        ):
            yield CounterMetricFamily(f"broker_{name}", text, value)
        fsyncs = HistogramMetricFamily("broker_fsync_seconds", "Time an fsync of the log takes")
        buckets = [
            ("+Inf" if bound == float("inf") else str(bound), count) for bound, count in on_disk.fsyncs.cumulative()
        ]
        fsyncs.add_metric([], buckets, on_disk.fsyncs.total)
        yield fsyncs
        errors = CounterMetricFamily("broker_errors", "Requests answered with an error, by its code", labels=["code"])
        for code in sorted(BY_CODE):
            if code in counters.errors:
                errors.add_metric([code], counters.errors[code])
        yield errors
        lag = GaugeMetricFamily(
            "broker_subscriber_lag", "Messages a subscriber has not committed", labels=["subscriber"]
        )
        connected = GaugeMetricFamily("broker_subscriber_connected", "Whether it is connected", labels=["subscriber"])
        paused = GaugeMetricFamily(
            "broker_subscriber_paused", "Whether its socket takes no more", labels=["subscriber"]
        )
        missed = CounterMetricFamily(
            "broker_subscriber_missed_messages", "Messages dropped before it had them", labels=["subscriber"]
        )
        for subscriber in subscriber_stats(server):
            lag.add_metric([subscriber.id], subscriber.lag)
            connected.add_metric([subscriber.id], subscriber.connected)
            paused.add_metric([subscriber.id], subscriber.paused)
            missed.add_metric([subscriber.id], subscriber.missed)
        yield from (lag, connected, paused, missed)
