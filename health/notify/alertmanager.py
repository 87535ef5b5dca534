"""Events as alerts of Prometheus' Alertmanager: it hears of open ones again and again, as Prometheus does, so that it may be restarted at any time."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3
from django.conf import settings
from django.db.models import Case, IntegerField, Max, QuerySet, Value, When
from django.utils import timezone
from urllib3.exceptions import HTTPError

from health.models import ONGOING, EntityKind, Event, EventState, EventTransition, TransitionKind
from health.muting import Muting, load_muting
from health.notify.channels import SEVERITIES
from health.notify.errors import ChannelError, DeliveryError
from health.notify.messages import Wording, summary_of, where
from health.notify.outbox import LATEST
from health.notify.retrying import retry_wait
from health.notify.tagging import tags_by_event
from health.notify.threads import SENDING, Turns, in_thread, quieten_libraries, repeat
from health.rule_table import rules_now
from readings.text import printable

logger = logging.getLogger(__name__)

TICK = 1.0
# Everything is sent again so often (Alertmanager forgets what it does not hear of) …
AGAIN = timedelta(seconds=60)
# … and ends there by itself when it is not: longer than a restart of ``watch`` takes.
LASTS = timedelta(minutes=10)
WATCHDOG_LASTS = timedelta(minutes=5)
# What is over is sent for so long.
OVER_FOR = timedelta(minutes=15)
# What came and went fires so long, so that it is heard of: Alertmanager waits before it notifies.
FIRES_AT_LEAST = timedelta(minutes=2)
MOST_ALERTS = 20_000
_AT_ONCE = 256
_QUERY_AT_ONCE = 500
_MOST_VALUE = 500
CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 20.0
_SERVICE = "gpu-telemetry"

Alert = dict[str, Any]


class AlertTarget(NamedTuple):
    """One Alertmanager: its address without the login, and the headers with it."""

    url: str
    headers: Mapping[str, str]

    @property
    def name(self) -> str:
        """What logs call it."""
        return f"the Alertmanager at {urlsplit(self.url).netloc}"


def configured_targets() -> list[AlertTarget]:
    """Those of ALERTMANAGER_URL."""
    return [_target(url) for url in settings.ALERTMANAGER_URL]


def _target(url: str) -> AlertTarget:
    parts = urlsplit(url)
    login, _, place = parts.netloc.rpartition("@")
    headers = {"Content-Type": "application/json", "User-Agent": _SERVICE}
    if login:
        headers |= urllib3.make_headers(basic_auth=unquote(login))
    return AlertTarget(f"{parts.scheme}://{place}{parts.path}", headers)


def open_pool() -> urllib3.PoolManager:
    """Connections to an Alertmanager. Raises ChannelError for an ALERTMANAGER_TLS_CA that cannot be used."""
    path = settings.ALERTMANAGER_TLS_CA
    try:
        context = ssl.create_default_context(cafile=path or None)
    except OSError as error:
        raise ChannelError(
            f"ALERTMANAGER_TLS_CA (--alertmanager-tls-ca): {path!r} is not a file of certificates: {error.strerror or 'no PEM'}"
        ) from None
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
    return urllib3.PoolManager(ssl_context=context, timeout=timeout, retries=False, num_pools=1)


class AlertFeed:
    """Keeps one Alertmanager up to date. ``step`` is called again and again."""

    def __init__(
        self, target: AlertTarget, pool: urllib3.PoolManager, wording: Wording, is_judging: Callable[[], bool]
    ) -> None:
        self._target, self._pool, self._wording, self._is_judging = target, pool, wording, is_judging
        self._newest = 0
        self._all_at: datetime | None = None
        self.failures = 0

    def step(self, now: datetime | None = None) -> float:
        """Send what is new, or everything when its time has come. Returns the seconds to the next step. Raises DatabaseError."""
        moment = now or timezone.now()
        newest = EventTransition.objects.aggregate(newest=Max("pk"))["newest"] or 0
        everything = self._all_at is None or self._all_at <= moment
        if not everything and newest == self._newest:
            return TICK
        alerts = [
            *alerts_of(self._events(moment, newest, everything=everything), load_muting(moment), self._wording, moment)
        ]
        if everything and self._is_judging():
            alerts.append(watchdog(moment))
        try:
            for start in range(0, len(alerts), _AT_ONCE):
                send_alerts(self._target, self._pool, alerts[start : start + _AT_ONCE])
        except DeliveryError as error:
            if not self.failures:
                logger.warning("%s does not get its alerts: %s; trying again", self._target.name, error)
            self.failures += 1
            self._all_at = None
            return min(retry_wait(self.failures - 1), AGAIN.total_seconds())
        if self.failures:
            logger.info("%s gets its alerts again", self._target.name)
        self.failures = 0
        self._newest = newest
        if everything:
            self._all_at = moment + AGAIN
        return TICK

    def _events(self, now: datetime, newest: int, *, everything: bool) -> list[Event]:
        """Those that are ongoing and those that ended lately; without ``everything`` of these what something has happened to."""
        severe = SEVERITIES[SEVERITIES.index(settings.NOTIFY_SEVERITY) :]
        events = Event.objects.filter(severity__in=severe, quiet=False)
        ongoing = events.filter(state__in=ONGOING)
        steps = EventTransition.objects.filter(
            pk__gt=newest - LATEST,  # there is no index of times
            kind__in=(TransitionKind.CLOSED, TransitionKind.RESOLVED),
            recorded__gte=now - OVER_FOR,
        )
        over = events.filter(state=EventState.CLOSED, pk__in=steps.values("event"))
        if not everything:
            new = EventTransition.objects.filter(pk__gt=self._newest).values("event")
            ongoing, over = ongoing.filter(pk__in=new), over.filter(pk__in=new)
        found = list(_worst_first(ongoing)[: MOST_ALERTS + 1])
        if len(found) > MOST_ALERTS:
            logger.warning("%s gets the worst %d of the open events", self._target.name, MOST_ALERTS)
        return found[:MOST_ALERTS] + list(_worst_first(over)[:MOST_ALERTS])


def _worst_first(events: QuerySet[Event]) -> QuerySet[Event]:
    ranks = (When(severity=severity, then=Value(-rank)) for rank, severity in enumerate(SEVERITIES))
    return events.order_by(Case(*ranks, output_field=IntegerField()), "-opened", "-pk")


def alerts_of(events: Sequence[Event], muting: Muting, wording: Wording, now: datetime) -> Iterator[Alert]:
    """The alerts of these events; none of those that are muted or in maintenance. An ended one gives way to an open one like it.

    One query for each 500 of the events, and those for tags.
    """
    heard = [event for event in events if muting.silence_of(event) is None]
    tags, recorded = tags_by_event(heard), _recorded(heard)
    alerts: dict[frozenset[tuple[str, str]], Alert] = {}
    for event in sorted(heard, key=lambda each: (each.state != EventState.CLOSED, each.opened)):
        labels = labels_of(event, tags.get(event.pk, {}))
        times = recorded.get(event.pk, {})
        ends = _end(event, times, now)
        alerts[frozenset(labels.items())] = _alert(event, labels, ends, wording, now)
        # The severity is a label: when it rose, the milder alert is over.
        raised = times.get(TransitionKind.RAISED)
        if raised is not None and now - raised <= OVER_FOR:
            for milder in SEVERITIES[: SEVERITIES.index(event.severity)]:
                other = labels | {"severity": milder}
                alerts.setdefault(frozenset(other.items()), _alert(event, other, min(raised, now), wording, now))
    yield from alerts.values()


def labels_of(event: Event, tags: Mapping[str, str]) -> dict[str, str]:
    """What identifies an alert: the same as long as it is open. Empty ones are left out; a tag never replaces one of ours."""
    is_gpu = event.entity_kind == EntityKind.GPU
    slot = "" if event.slot is None else str(event.slot)
    own = {
        "alertname": event.rule,
        "severity": event.severity,
        "service": _SERVICE,
        "hostname": event.hostname,
        "gpu": slot if is_gpu else "",
        "slot": slot,
        "uuid": event.entity if is_gpu else "",
        "source": event.entity if event.entity_kind == EntityKind.SOURCE else "",
        "model": event.model_name,
        "namespace": event.namespace,
        "pod": event.pod,
        "subject": event.subject,
    }
    named = {_label_name(name): value for name, value in tags.items()}
    return {name: printable(value)[:_MOST_VALUE] for name, value in (named | own).items() if value}


def watchdog(now: datetime) -> Alert:
    """An alert that always fires while events are judged: who hears nothing of it knows that nobody watches."""
    return {
        "labels": {"alertname": "Watchdog", "severity": "none", "service": _SERVICE},
        "annotations": {
            "summary": "The fleet's health is judged. This alert always fires: when it is over, nobody watches."
        },
        "startsAt": _time(now),
        "endsAt": _time(now + WATCHDOG_LASTS),
    }


def trial_alert(now: datetime) -> Alert:
    """An alert that means nothing, and is over in a minute."""
    return {
        "labels": {"alertname": "TestMessage", "severity": "info", "service": _SERVICE},
        "annotations": {"summary": "A test message of the GPU telemetry. Nothing is wrong."},
        "startsAt": _time(now),
        "endsAt": _time(now + timedelta(minutes=1)),
    }


def send_alerts(target: AlertTarget, pool: urllib3.PoolManager, alerts: Iterable[Alert]) -> None:
    """POST them. Raises DeliveryError."""
    body = json.dumps(list(alerts)).encode()
    try:
        answer = pool.request("POST", f"{target.url}/api/v2/alerts", body=body, headers=target.headers, redirect=False)
    except HTTPError as error:
        raise DeliveryError(_cause(error)) from None
    if not 200 <= answer.status < 300:
        phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else ""
        said = printable(answer.data[:200].decode(errors="replace").strip())
        raise DeliveryError(f"it answered {answer.status} {phrase}: {said}".rstrip(": "))


async def run(stop: asyncio.Event, is_judging: Callable[[], bool]) -> None:
    """Keep all Alertmanagers up to date until ``stop``, each in a thread of its own. Raises ChannelError at its start."""
    targets = configured_targets()
    if not targets:
        await stop.wait()
        return
    quieten_libraries()
    wording = Wording(rules_now(), settings.PUBLIC_URL)
    feeds = [(target, AlertFeed(target, open_pool(), wording, is_judging)) for target in targets]

    async def keep(target: AlertTarget, feed: AlertFeed) -> None:
        turns = Turns()
        name = f"{SENDING}{urlsplit(target.url).netloc}"
        await in_thread(stop, name, turns, lambda: repeat(turns, target.name, feed.step))

    await asyncio.gather(*(keep(target, feed) for target, feed in feeds))


def _recorded(events: Sequence[Event]) -> dict[int, dict[str, datetime]]:
    """When the steps of events were written that matter here, the last of each kind."""
    keys = [event.pk for event in events]
    found: dict[int, dict[str, datetime]] = {}
    kinds = (TransitionKind.OPENED, TransitionKind.RAISED, TransitionKind.CLOSED, TransitionKind.RESOLVED)
    for start in range(0, len(keys), _QUERY_AT_ONCE):
        steps = EventTransition.objects.filter(event__in=keys[start : start + _QUERY_AT_ONCE], kind__in=kinds)
        for event, kind, recorded in steps.order_by("pk").values_list("event_id", "kind", "recorded"):
            found.setdefault(event, {})[kind] = recorded
    return found


def _end(event: Event, times: Mapping[str, datetime], now: datetime) -> datetime:
    if event.state != EventState.CLOSED:
        return now + LASTS
    over = max((times[kind] for kind in (TransitionKind.CLOSED, TransitionKind.RESOLVED) if kind in times), default=now)
    opened = times.get(TransitionKind.OPENED)
    return over if opened is None else max(over, opened + FIRES_AT_LEAST)


def _alert(event: Event, labels: dict[str, str], ends: datetime, wording: Wording, now: datetime) -> Alert:
    link = wording.link(event)
    annotations = {
        # Its templates hand this on to chats as it is.
        "summary": f"{wording.title(event.rule)}: {summary_of(event)}",
        "description": where(event),
        "action": wording.advice(event),
        "link": link,
        "acknowledged_by": event.acknowledged_by,
    }
    alert: Alert = {
        "labels": labels,
        "annotations": {name: printable(text)[:_MOST_VALUE] for name, text in annotations.items() if text},
        # A clock of the fleet may be ahead, and a capture's readings are old.
        "startsAt": _time(min(event.opened, now, ends)),
        "endsAt": _time(ends),
    }
    if wording.public_url:
        alert["generatorURL"] = link
    return alert


def _label_name(tag: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", tag)
    return f"_{name}" if name[:1].isdigit() else name


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    text = printable(str(reason)).rpartition(": ")[2]
    return f"no connection: {text[:200]}" if text else f"no connection: {type(error).__name__}"
