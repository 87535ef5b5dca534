"""The broker's figures: as plain data for /stats and get_stats, and for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.errors import BY_CODE
from broker.log.log import Drop
from broker.server.state import BrokerState


@dataclass(frozen=True, slots=True)
class SubscriberStats:
    """One subscriber, connected or known from its committed offset.

    ``current_offset`` is the last offset delivered on this connection, ``committed_offset`` the last committed (None: no
    commit yet). ``lag`` counts the messages after the commit or, without a commit, after those delivered. ``missed``
    counts the messages that retention dropped before the subscriber had them, since the broker's start.
    """

    id: str
    current_offset: int | None
    committed_offset: int | None
    lag: int
    missed: int
    connected: bool
    paused: bool


def subscriber_stats(state: BrokerState[Any]) -> list[SubscriberStats]:
    """Returns all subscribers, sorted by id."""
    log = state.log
    committed = dict(log.commits.items())
    live = state.delivery.subscriptions
    rows = []
    for subscriber_id in sorted(committed.keys() | live.keys()):
        subscription = live.get(subscriber_id)
        commit = committed.get(subscriber_id)
        if commit is not None:
            done = commit + 1
        else:
            done = subscription.position if subscription is not None else log.oldest_offset
        rows.append(
            SubscriberStats(
                id=subscriber_id,
                current_offset=subscription.position - 1 if subscription is not None else None,
                committed_offset=commit,
                lag=max(0, log.next_offset - max(done, log.oldest_offset)),
                missed=state.counters.missed[subscriber_id],
                connected=subscription is not None,
                paused=subscription is not None and subscription.paused,
            )
        )
    return rows


def count_missed(state: BrokerState[Any], drop: Drop) -> dict[str, int]:
    """Returns how many of the dropped messages each subscriber had neither committed nor received, where any."""
    done = {subscriber_id: commit + 1 for subscriber_id, commit in state.log.commits.items()}
    for subscriber_id, subscription in state.delivery.subscriptions.items():
        done[subscriber_id] = max(done.get(subscriber_id, 0), subscription.position)
    return {
        subscriber_id: drop.next_offset - max(first, drop.first)
        for subscriber_id, first in done.items()
        if first < drop.next_offset
    }


def build_stats(state: BrokerState[Any]) -> dict[str, Any]:
    """Returns all figures as plain data. ``latest_offset`` is -1 while the log is empty; uptime is in seconds."""
    log, counters, delivery = state.log, state.counters, state.delivery
    on_disk = log.stats()
    return {
        "total_messages": log.next_offset - log.oldest_offset,
        "oldest_offset": log.oldest_offset,
        "latest_offset": log.next_offset - 1,
        "subscriber_count": len(delivery.subscriptions),
        "subscribers": subscriber_stats(state),
        "connections": len(state.connections),
        "bytes": on_disk.bytes,
        "segments": on_disk.segments,
        "uptime": round(time.monotonic() - state.started, 3),
        "fsync": state.config.fsync,
        "published": counters.answered - counters.duplicates,
        "duplicates": counters.duplicates,
        "refused": counters.refused,
        "log": log.identity.id,
        "restores": counters.restores,
        "bad_requests": counters.bad_requests,
        "delivered": delivery.delivered,
        "gaps": delivery.gaps,
        "producers": on_disk.producers,
        "producer_gaps": on_disk.producer_gaps,
        "groups": on_disk.groups,
        "errors": dict(counters.errors),
        "dropped_messages": on_disk.dropped_messages,
        "dropped_bytes": on_disk.dropped_bytes,
        "dropped_segments": on_disk.dropped_segments,
        "torn_bytes": on_disk.torn_bytes,
        "damaged_records": on_disk.damaged_records,
    }


def encode_stats(state: BrokerState[Any]) -> bytes:
    """Returns all figures as JSON."""
    return msgspec.json.encode(build_stats(state))


def exposition(state: BrokerState[Any]) -> tuple[bytes, str]:
    """Returns all figures in Prometheus' text format, and its content type."""
    registry = CollectorRegistry()
    registry.register(_BrokerCollector(state))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _BrokerCollector(Collector):
    """Reads the figures when they are scraped, so that counting costs the hot path nothing."""

    def __init__(self, state: BrokerState[Any]) -> None:
        self._state = state

    def describe(self) -> list[Metric]:
        return []  # so that registering reads nothing

    def collect(self) -> Iterator[Metric]:
        state = self._state
        on_disk, counters, delivery = state.log.stats(), state.counters, state.delivery
        for name, text, value in (
            ("oldest_offset", "First offset that is still in the log", on_disk.oldest_offset),
            ("next_offset", "Offset that the next message gets", on_disk.next_offset),
            ("log_bytes", "Bytes of the log on disk", on_disk.bytes),
            ("segments", "Segment files of the log", on_disk.segments),
            ("producers", "Producers known for duplicate suppression", on_disk.producers),
            ("connections", "Clients connected", len(state.connections)),
            ("subscribers", "Subscribers connected", len(delivery.subscriptions)),
            ("waiting_bytes", "Bytes of publishes not written yet", state.committer.bytes),
            ("event_loop_lag_seconds", "How late the event loop last ran", state.loop_lag),
            (
                "clock_jumped",
                "1 while the clock is off by an hour since the start: nothing expires by age",
                on_disk.clock_jumped,
            ),
            ("uptime_seconds", "Seconds since the start", time.monotonic() - state.started),
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
            ("dead_connections", "Peers dropped because nothing was heard from them", counters.dead),
            ("log_restores", "Subscribers that had read another log than this one", counters.restores),
            ("delivered_messages", "Messages written to subscribers", delivery.delivered),
            ("gaps", "Gaps reported to subscribers", delivery.gaps),
            ("groups", "Groups of messages written", on_disk.groups),
            ("failed_groups", "Groups that could not be written", on_disk.failed_groups),
            ("producer_gaps", "Sequences that producers left out", on_disk.producer_gaps),
            ("torn_bytes", "Bytes of unfinished writes set aside at the start", on_disk.torn_bytes),
            ("damaged_records", "Records found damaged", on_disk.damaged_records),
        ):
            yield CounterMetricFamily(f"broker_{name}", text, value)
        for family in on_disk.fsyncs.collect():
            # The time of creation would be a gauge of its own.
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
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
        for subscriber in subscriber_stats(state):
            lag.add_metric([subscriber.id], subscriber.lag)
            connected.add_metric([subscriber.id], subscriber.connected)
            paused.add_metric([subscriber.id], subscriber.paused)
            missed.add_metric([subscriber.id], subscriber.missed)
        yield from (lag, connected, paused, missed)
