"""The pipeline: what arrives, how late, what was refused and why, and what the fleet does not send."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
from django.conf import settings
from django.urls import reverse
from numpy.typing import NDArray

from api.fleet import shared_prefix
from api.links import absolute
from api.schema.answers import StoreAnswer
from api.views.stats import read_collectors, store_answer
from dashboard.broker_watch import BrokerNow, watch
from dashboard.notices_now import channels_or_why_not
from dashboard.views.page import Page, page_number
from dashboard.watch_now import watch_now
from health.rule_table import rules_now
from inventory.fleet import Fleet, SlotState, fleet_now
from inventory.models import CollectorStatus
from inventory.newest import newest_tables
from inventory.packing import HostReadings
from readings.catalogue import CATALOGUE, info, whole_of
from readings.checks import PASSED_OVER, REASONS, REMARKS, Kinds
from readings.times import SECOND
from stores.base import Store, StoreError, StoreStats
from stores.open import describe_store, get_store

MOST_HOSTS = 40
HOSTS_ON_A_PAGE = 40
# A source may send thousands of names that nobody has described.
MOST_METRICS = 300


class Reason(NamedTuple):
    """A reason with its meaning, and how many readings it concerns."""

    name: str
    readings: int
    meaning: str


class ReasonKind(NamedTuple):
    """All reasons of one kind; ``text`` says what the kind is."""

    title: str
    text: str
    reasons: list[Reason]
    total: int


def reason_kinds(collectors: Sequence[CollectorStatus]) -> list[ReasonKind]:
    """Readings refused, remarked on and passed over, over all collectors, the most frequent reason first."""
    counts: Counter[str] = Counter()
    for collector in collectors:
        counts.update(collector.refused)
    told = (
        ("Refused", "not stored: a value that is no measurement", REASONS),
        ("Remarked on", "stored, without something that a reading does not need", REMARKS),
        ("Passed over", "by design no reading, and no fault", PASSED_OVER),
    )
    return [
        ReasonKind(
            title,
            text,
            [Reason(name, count, meanings.get(name, REASONS["other"])) for name, count in kind.most_common()],
            kind.total(),
        )
        for kind, (title, text, meanings) in zip(Kinds.of(counts), told, strict=True)
    ]


class HostAge(NamedTuple):
    """A host, its newest reading, and how far that is behind the fleet's newest."""

    name: str
    last_seen_ns: int
    behind_seconds: float
    is_stale: bool
    state: str


def host_ages(fleet: Fleet) -> list[HostAge]:
    """The hosts, the one whose data are oldest first."""
    newest_ns = fleet.newest_ns or 0
    up = fleet.rows_in(SlotState.REPORTING)
    ages = [
        HostAge(
            host.name,
            host.last_seen_ns,
            max(0, newest_ns - host.last_seen_ns) / SECOND,
            not up[host.rows].any(),
            host.asset_state,
        )
        for host in fleet.hosts
        if host.name
    ]
    return sorted(ages, key=lambda age: (age.last_seen_ns, age.name))


class Streamer(NamedTuple):
    """A streamer, how many GPUs its readings are the newest of, and when the last was taken. Its name may be unknown: empty."""

    name: str
    gpus: int
    last_seen_ns: int


def streamers(tables: Sequence[HostReadings]) -> list[Streamer]:
    """The streamers, the one that was silent longest first."""
    gpus: dict[str, set[str]] = defaultdict(set)
    last: dict[str, int] = defaultdict(int)
    for table in tables:
        for gpu_id, name, seen_ns in zip(table.gpu_ids, table.sources, table.last_seen_ns.tolist(), strict=True):
            gpus[name].add(gpu_id.partition(":")[0])
            last[name] = max(last[name], seen_ns)
    return sorted((Streamer(name, len(gpus[name]), last[name]) for name in gpus), key=lambda each: each.last_seen_ns)


def there(fleet: Fleet) -> dict[str, NDArray[np.bool_]]:
    """For each metric, which rows of the fleet have a fresh reading of it. Parts (links …) count as their metric."""
    found: dict[str, NDArray[np.bool_]] = {}
    for name in fleet.metric_names():
        known = ~np.isnan(fleet.metric(name))
        whole = whole_of(name)
        found[whole] = found[whole] | known if whole in found else known
    return found


class RuleData(NamedTuple):
    """A rule, on how many GPUs it has its data, and what to add for the others."""

    name: str
    finds: str
    gpus: int
    lacks: tuple[str, ...]


def rules_data(have: dict[str, NDArray[np.bool_]], known: NDArray[np.bool_]) -> list[RuleData]:
    """Each rule; those that lack data first. ``known``: the rows of GPUs that report."""
    found = []
    for rule in rules_now().values():
        if not rule.enabled:
            continue
        complete = known.copy()
        for alternatives in rule.needs:
            complete &= np.logical_or.reduce(
                [have[name] for name in alternatives if name in have] or [np.zeros_like(known)]
            )
        found.append(RuleData(rule.name, rule.finds, int(np.count_nonzero(complete)), rule.missing(have)))
    return sorted(found, key=lambda each: each.gpus)


def lines_to_add(rules: Sequence[RuleData]) -> list[str]:
    """The lines for dcgm-exporter's list of metrics that the rules lack."""
    names = dict.fromkeys(name for rule in rules for name in rule.lacks)
    return [f"{name}, {_exporter_kind(name)}, {_help(name)}" for name in names]


def _exporter_kind(name: str) -> str:
    metric = info(name)
    return "counter" if metric is not None and metric.kind == "counter" else "gauge"


def _help(name: str) -> str:
    metric = info(name)
    # A comma would begin another column.
    return f"{metric.title.replace(',', '') if metric else name}."


class MatrixRow(NamedTuple):
    """A metric, on how many GPUs it is fresh in all, and on each host of the page."""

    name: str
    title: str
    gpus: int
    cells: list[int]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Hosts × metrics: how many GPUs have a fresh reading. ``hidden`` have no gaps, ``more`` have no place."""

    hosts: list[str]
    sizes: list[int]
    rows: list[MatrixRow]
    gpus: int
    host_count: int
    page: int
    pages: int
    hidden: int
    more: int


def matrix(fleet: Fleet, have: dict[str, NDArray[np.bool_]], known: NDArray[np.bool_], query: dict[str, str]) -> Matrix:
    """The part of the matrix that a URL asks for: ``host`` (a part of the name), ``gaps`` and ``page``."""
    count = len(fleet.hosts)
    hosts = np.flatnonzero([query.get("host", "").lower() in host.name.lower() for host in fleet.hosts])
    sizes = np.bincount(fleet.host[known], minlength=count)
    pages = max(1, -(-len(hosts) // HOSTS_ON_A_PAGE))
    page = page_number(query.get("page", ""), pages)
    shown = hosts[(page - 1) * HOSTS_ON_A_PAGE : page * HOSTS_ON_A_PAGE]
    total = int(np.count_nonzero(known))
    rows, hidden = [], 0
    for name in sorted(have) if len(shown) else ():
        metric = info(name)
        by_host = np.bincount(fleet.host[have[name] & known], minlength=count)
        if query.get("gaps") and bool((by_host == sizes)[shown].all()):
            hidden += 1
            continue
        rows.append(MatrixRow(name, metric.title if metric else name, int(by_host.sum()), by_host[shown].tolist()))
    rows.sort(key=lambda row: (row.name not in CATALOGUE, row.gpus == total, row.name))
    rows, more = rows[:MOST_METRICS], max(0, len(rows) - MOST_METRICS)
    # What some lack is why people look here.
    rows.sort(key=lambda row: (row.gpus == total, row.name))
    names = [fleet.hosts[host].name for host in shown.tolist()]
    return Matrix(names, sizes[shown].tolist(), rows, total, len(hosts), page, pages, hidden, more)


class StoreFigures:
    """The figures of the store, asked for again after some seconds: InfluxDB takes long over them while it writes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[Store, float, StoreStats] | None = None

    def of(self, store: Store) -> StoreStats:
        """Its figures, at most STORE_SECONDS old. Raises StoreError."""
        with self._lock:
            now = time.monotonic()
            if self._known is None or self._known[0] is not store or now - self._known[1] >= settings.STORE_SECONDS:
                self._known = store, now, store.stats()
            return self._known[2]


_figures = StoreFigures()


class PipelinePage(Page):
    """What the pipeline does."""

    title = "Pipeline"
    menu = "pipeline"
    template_name = "dashboard/pipeline.html"

    def page_context(self) -> dict[str, Any]:
        fleet = fleet_now()
        collectors = read_collectors()
        ages = host_ages(fleet)
        now = watch.now()
        return {
            "fleet": fleet,
            "prefix": shared_prefix([host.name for host in fleet.hosts]),
            "now": now,
            "lag": sum(each.lag or 0 for each in now.subscribers),
            "connected": sum(each.connected for each in now.subscribers),
            **self._watch(now),
            "curl_url": absolute(self.request, reverse("stats")),
            "broker_address": f"{settings.MQ_HOST}:{settings.MQ_PORT}",
            "collectors": collectors,
            "collector_updated": max((each.updated for each in collectors), default=None),
            "kinds": reason_kinds(collectors),
            "sources": streamers(newest_tables()),
            "stored": sum(each.readings_stored for each in collectors),
            "ages": ages[:MOST_HOSTS],
            "stale_hosts": sum(age.is_stale for age in ages),
            **self._store(),
            **self._data(fleet),
        }

    def data(self) -> dict[str, Any]:
        now = watch.now()
        good = None if now.good_ns is None else now.good_ns // 1_000_000
        return {"broker": {"away": not now.available, "good": good}}

    def _watch(self, broker: BrokerNow) -> dict[str, Any]:
        """Who judges the readings, how far it is, and what is yet to be sent."""
        judging = watch_now()
        channels, channels_error = channels_or_why_not()
        known = [each for each in broker.subscribers if each.id == settings.WATCH_ID]
        return {
            "judging": judging,
            "watch_lag": known[0].lag if known and broker.available else None,
            "channels": channels,
            "channels_error": channels_error,
            "alertmanager": settings.ALERTMANAGER_URL,
            "failing": sum(each.failing for each in channels),
            "notices_waiting": sum(each.waiting for each in channels),
        }

    def _store(self) -> dict[str, Any]:
        """The store's figures, or why there are none: the rest of the page does without."""
        answer: StoreAnswer | None = None
        error = ""
        try:
            answer = store_answer(_figures.of(get_store()))
        except StoreError as away:
            error = str(away)
        return {"store": answer, "store_error": error, "store_words": describe_store()}

    def _data(self, fleet: Fleet) -> dict[str, Any]:
        known = fleet.rows_in(SlotState.REPORTING)
        have = there(fleet)
        rules = rules_data(have, known)
        total = int(np.count_nonzero(known))
        return {
            "rules": rules,
            "rules_lacking": [rule for rule in rules if rule.gpus < total],
            "rules_with_all": [rule for rule in rules if rule.gpus == total],
            "gpu_count": total,
            "rules_complete": sum(rule.gpus == total for rule in rules) if total else 0,
            "rules_without": sum(rule.gpus == 0 for rule in rules),
            "to_add": "\n".join(lines_to_add(rules)),
            **self._matrix(fleet, have, known),
        }

    def _matrix(self, fleet: Fleet, have: dict[str, NDArray[np.bool_]], known: NDArray[np.bool_]) -> dict[str, Any]:
        query = self.request.GET.dict()
        found = matrix(fleet, have, known, query)

        def page_url(page: int) -> str:
            return f"?{urlencode(query | {'page': page})}"

        return {
            "matrix": found,
            "last_host": found.hosts[-1] if found.hosts else "",
            "page_before": page_url(found.page - 1),
            "page_after": page_url(found.page + 1),
            "query": {"host": "", "gaps": ""} | query,
        }
