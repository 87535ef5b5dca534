"""The state of the pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from api.params import age_seconds, format_datetime
from api.schema.answers import (
    BrokerAnswer,
    CollectorAnswer,
    EventCountsAnswer,
    HostAgeAnswer,
    ReadingCountsAnswer,
    RollupsAnswer,
    StatsAnswer,
    StoreAnswer,
    SubscriberAnswer,
    WatchAnswer,
)
from api.views.base import ApiView
from broker.client.client import client_context, fetch_stats
from broker.errors import BrokerError
from health.queries import ongoing_now
from health.standing import waiting_notices, watch_standing
from inventory.models import CollectorStatus, Host
from inventory.newest import newest_by_host
from inventory.queries import newest_reading
from inventory.rollup_state import standing
from inventory.rollup_touches import HOURS, MINUTES
from readings.checks import Kinds
from readings.times import format_time, to_datetime, to_ns
from stores.base import StoreStats
from stores.open import get_store, store_key
from stores.rollups.open import why_no_rollups
from telemetry_site.env import Address

BROKER_TIMEOUT_SECONDS = 2.0
_BROKER_FIGURES = BrokerAnswer.__struct_fields__[3:]
_SUBSCRIBER_FIGURES = SubscriberAnswer.__struct_fields__[2:]


def ask_broker() -> tuple[BrokerAnswer, list[SubscriberAnswer]]:
    """The broker's statistics and subscribers. Does not raise if it does not answer, because readings are served without it."""
    address = str(Address(settings.MQ_HOST, settings.MQ_PORT))
    try:
        stats = fetch_stats(
            settings.MQ_HOST,
            settings.MQ_PORT,
            token=settings.BROKER_TOKEN,
            timeout=BROKER_TIMEOUT_SECONDS,
            tls=client_context(settings.BROKER_TLS_CA, settings.BROKER_TLS_CERT, settings.BROKER_TLS_KEY),
        )
    except BrokerError as error:
        return BrokerAnswer(False, str(error), address, **dict.fromkeys(_BROKER_FIGURES)), []
    return (
        BrokerAnswer(True, None, address, *map(stats.get, _BROKER_FIGURES)),
        [
            SubscriberAnswer(each.get("id"), each.get("id") == settings.WATCH_ID, *map(each.get, _SUBSCRIBER_FIGURES))
            for each in stats.get("subscribers", ())
        ],
    )


def read_collectors() -> list[CollectorStatus]:
    """The status row of each collector, sorted by id."""
    return list(CollectorStatus.objects.order_by("collector_id"))


def collector_answer(status: CollectorStatus) -> CollectorAnswer:
    """One collector's part of /api/v1/stats."""
    return CollectorAnswer(
        status.collector_id,
        format_datetime(status.started),
        format_datetime(status.updated),
        status.committed_offset,
        status.messages,
        status.readings_stored,
        *(dict(sorted(counts.items())) for counts in Kinds.of(status.refused)),
    )


def reading_counts(collectors: Sequence[CollectorStatus]) -> ReadingCountsAnswer:
    """Readings stored, refused, remarked on and passed over, over all collectors."""
    counts: Counter[str] = Counter()
    for collector in collectors:
        counts.update(collector.refused)
    kinds = (dict(sorted(each.items())) for each in Kinds.of(counts))
    return ReadingCountsAnswer(sum(each.readings_stored for each in collectors), *kinds)


def newest_ns_of(stats: StoreStats) -> int | None:
    """The time of the newest reading: the store's, or the inventory's for a store that does not know (InfluxDB)."""
    if stats.readings is not None or stats.newest_ns is not None:
        return stats.newest_ns
    newest = newest_reading()
    return None if newest is None else to_ns(newest)


def store_answer(stats: StoreStats) -> StoreAnswer:
    """The store's part of /api/v1/stats."""
    newest_ns = newest_ns_of(stats)
    return StoreAnswer(
        settings.STORAGE_TYPE,
        stats.readings,
        stats.shares,
        stats.series,
        stats.bytes,
        None if stats.oldest_ns is None else format_time(stats.oldest_ns),
        None if newest_ns is None else format_time(newest_ns),
        None if newest_ns is None else age_seconds(newest_ns),
    )


def host_answers() -> list[HostAgeAnswer]:
    """The age of each host's newest reading, the oldest first."""
    newest = {name: int(host.last_seen_ns.max()) for name, host in newest_by_host().items()}
    rows = Host.objects.values_list("name", "last_seen")
    ages = sorted((max(to_ns(last_seen), newest.get(name, 0)), name) for name, last_seen in rows)
    return [HostAgeAnswer(name, format_datetime(to_datetime(seen_ns)), age_seconds(seen_ns)) for seen_ns, name in ages]


def watch_answer(broker: BrokerAnswer) -> WatchAnswer | None:
    """How far the judging of health is; None if it was never judged here. At most three queries."""
    watch = watch_standing()
    if watch is None:
        return None
    notices = waiting_notices()
    return WatchAnswer(
        judging=watch.is_judging,
        offset=watch.offset,
        lag=None if broker.latest_offset is None else max(0, broker.latest_offset - watch.offset),
        judged=watch.judged,
        updated=None if watch.updated is None else format_datetime(watch.updated),
        age_seconds=None if watch.updated is None else age_seconds(to_ns(watch.updated)),
        open_events=EventCountsAnswer(*ongoing_now().total),
        notices_waiting=notices.waiting,
        notices_overdue_seconds=round(notices.overdue_seconds, 3),
    )


def rollups_answer() -> RollupsAnswer:
    """How far the roll-ups are. At most four queries."""
    told = standing(store_key())
    off = why_no_rollups() or None
    if told is None:
        return RollupsAnswer(off, False, None, None, None, None, 0, 0, None)
    (minutes_since, minutes_until), (hours_since, hours_until) = (
        (_time_or_none(reach.start_ns), _time_or_none(reach.end_ns) if reach.start_ns < reach.end_ns else None)
        for reach in (told.minutes, told.hours)
    )
    return RollupsAnswer(
        off,
        told.is_rolling,
        minutes_since,
        minutes_until,
        hours_since,
        hours_until,
        told.waiting[MINUTES],
        told.waiting[HOURS],
        None if minutes_until is None else age_seconds(told.minutes.end_ns),
    )


def _time_or_none(time_ns: int) -> str | None:
    return format_time(time_ns) if time_ns else None


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
        broker, subscribers = ask_broker()
        return Response(
            StatsAnswer(
                broker,
                subscribers,
                [collector_answer(each) for each in collectors],
                reading_counts(collectors),
                store,
                host_answers(),
                watch_answer(broker),
                rollups_answer(),
            )
        )
