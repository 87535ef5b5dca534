"""The broker's figures, as /stats and get_stats answer them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.log.log import Drop
    from broker.server.server import BrokerServer


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    answered: int = 0  # publishes answered with success, duplicates included
    duplicates: int = 0
    refused: int = 0  # publishes answered with an error of the log
    bad_requests: int = 0
    turned_away: int = 0  # connections over a limit
    dead: int = 0  # peers dropped because nothing was heard of them
    errors: Counter[str] = field(default_factory=Counter)  # answers, by code
    # Messages that were dropped from the log before the subscriber had them, by its id.
    missed: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class SubscriberStats:
    """One subscriber, connected or known by its commit.

    ``current_offset`` is the last offset delivered in this connection, ``committed_offset`` the last committed (None:
    none yet). ``lag`` is how many messages lie after the commit; without a commit, after what was delivered. ``missed``
    is how many were dropped from the log before it had them, since the broker's start.
    """

    id: str
    current_offset: int | None
    committed_offset: int | None
    lag: int
    missed: int
    connected: bool
    paused: bool


def subscriber_stats(server: BrokerServer) -> list[SubscriberStats]:
    """All subscribers by id."""
    log = server.log
    committed = dict(log.commits.items())
    live = server.delivery.subscriptions
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
                missed=server.counters.missed[subscriber_id],
                connected=subscription is not None,
                paused=subscription is not None and subscription.paused,
            )
        )
    return rows


def count_missed(server: BrokerServer, drop: Drop) -> dict[str, int]:
    """How many of the dropped messages each subscriber had neither committed nor been delivered; those with none left out."""
    done = {subscriber_id: commit + 1 for subscriber_id, commit in server.log.commits.items()}
    for subscriber_id, subscription in server.delivery.subscriptions.items():
        done[subscriber_id] = max(done.get(subscriber_id, 0), subscription.position)
    return {
        subscriber_id: drop.next_offset - max(first, drop.first)
        for subscriber_id, first in done.items()
        if first < drop.next_offset
    }


def build_stats(server: BrokerServer) -> dict[str, Any]:
    """All figures as plain data. ``latest_offset`` is -1 while the log is empty; uptime in seconds."""
    log, counters, delivery = server.log, server.counters, server.delivery
    on_disk = log.stats()
    return {
        "total_messages": log.next_offset - log.oldest_offset,
        "oldest_offset": log.oldest_offset,
        "latest_offset": log.next_offset - 1,
        "subscriber_count": len(delivery.subscriptions),
        "subscribers": subscriber_stats(server),
        "connections": len(server.connections),
        "bytes": on_disk.bytes,
        "segments": on_disk.segments,
        "uptime": round(time.monotonic() - server.started, 3),
        "fsync": server.config.fsync,
        "published": counters.answered - counters.duplicates,
        "duplicates": counters.duplicates,
        "refused": counters.refused,
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
