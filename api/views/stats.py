"""The state of the pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from api.params import age_seconds, format_datetime
from api.schema.answers import StatsAnswer
from api.views.base import ApiView
from broker.client.client import client_context, fetch_stats
from broker.errors import BrokerError
from inventory.models import CollectorStatus, Host
from readings.times import format_time, to_ns
from stores.base import StoreStats
from stores.open import get_store

BROKER_TIMEOUT_SECONDS = 2.0
_BROKER_FIGURES = (
    "total_messages",
    "oldest_offset",
    "latest_offset",
    "subscriber_count",
    "bytes",
    "segments",
    "uptime",
)
_SUBSCRIBER_FIGURES = ("id", "current_offset", "committed_offset", "lag", "connected")


class Broker(NamedTuple):
    """The broker's statistics, or why there are none (``error``, without figures and subscribers)."""

    error: str | None
    figures: dict[str, Any]
    subscribers: list[dict[str, Any]]


def ask_broker() -> Broker:
    """Ask the broker for its statistics. Does not raise if it does not answer, because readings are served without it."""
    try:
        stats = fetch_stats(
            settings.MQ_HOST,
            settings.MQ_PORT,
            token=settings.BROKER_TOKEN,
            timeout=BROKER_TIMEOUT_SECONDS,
            tls=client_context(settings.BROKER_TLS_CA, settings.BROKER_TLS_CERT, settings.BROKER_TLS_KEY),
        )
    except BrokerError as error:
        return Broker(str(error), dict.fromkeys(_BROKER_FIGURES), [])
    return Broker(
        None,
        {name: stats.get(name) for name in _BROKER_FIGURES},
        [{name: each.get(name) for name in _SUBSCRIBER_FIGURES} for each in stats.get("subscribers", ())],
    )


def broker_answer(broker: Broker) -> dict[str, Any]:
    """The broker's part of /api/v1/stats."""
    return {
        "available": broker.error is None,
        "error": broker.error,
        "address": f"{settings.MQ_HOST}:{settings.MQ_PORT}",
        **broker.figures,
    }


def read_collectors() -> list[CollectorStatus]:
    """The status row of each collector, sorted by id."""
    return list(CollectorStatus.objects.order_by("collector_id"))


def collector_answer(status: CollectorStatus) -> dict[str, Any]:
    """One collector's part of /api/v1/stats."""
    return {
        "id": status.collector_id,
        "started": format_datetime(status.started),
        "updated": format_datetime(status.updated),
        "committed_offset": status.committed_offset,
        "messages": status.messages,
        "readings_stored": status.readings_stored,
        "refused": status.refused,
    }


def total_refused(collectors: Sequence[CollectorStatus]) -> dict[str, int]:
    """Readings refused by reason, over all collectors."""
    total: Counter[str] = Counter()
    for collector in collectors:
        total.update(collector.refused)
    return dict(sorted(total.items()))


def store_answer(stats: StoreStats) -> dict[str, Any]:
    """The store's part of /api/v1/stats."""
    return {
        "type": settings.STORAGE_TYPE,
        "readings": stats.readings,
        "shares": stats.shares,
        "series": stats.series,
        "bytes": stats.bytes,
        "oldest": None if stats.oldest_ns is None else format_time(stats.oldest_ns),
        "newest": None if stats.newest_ns is None else format_time(stats.newest_ns),
        "newest_age_seconds": None if stats.newest_ns is None else age_seconds(stats.newest_ns),
    }


def host_answers() -> list[dict[str, Any]]:
    """The age of each host's newest reading, the oldest first."""
    return [
        {"name": name, "newest": format_datetime(last_seen), "age_seconds": age_seconds(to_ns(last_seen))}
        for name, last_seen in Host.objects.order_by("last_seen", "name").values_list("name", "last_seen")
    ]


class StatsView(ApiView):
    """The state of the pipeline: broker, subscribers and lag, collectors' counters, store size, age of the newest reading.

    A broker that does not answer is no error: `broker.available` is false then, and readings are still served.
    """

    name = "Pipeline statistics"
    tag = "pipeline"
    operation_id = "stats"
    answer = StatsAnswer

    def get(self, request: Request) -> Response:
        """Broker, subscribers and lag, collectors, store. A broker that does not answer is no error."""
        store = store_answer(get_store().stats())
        collectors = read_collectors()
        broker = ask_broker()
        return Response(
            {
                "broker": broker_answer(broker),
                "subscribers": broker.subscribers,
                "collectors": [collector_answer(each) for each in collectors],
                "readings": {
                    "stored": sum(each.readings_stored for each in collectors),
                    "refused": total_refused(collectors),
                },
                "store": store,
                "hosts": host_answers(),
            }
        )
