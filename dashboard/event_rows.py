"""Events in words: what, where, for how long, what to do; and the many of them in groups by rule and host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone

from dashboard.templatetags.dashboard import gpu_url, host_url
from health.models import ONGOING, EntityKind, Event, EventState
from health.muting import Muting, muting_now
from health.queries import MARKS
from health.rule_table import rules_now
from health.rules.model import ACTION_WORDS, Rule, Xid
from readings.times import format_time, to_ns

AROUND = timedelta(minutes=30)
_MOST_SLOTS = 8


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as people read it. ``muted`` says why nobody is notified, or is empty."""

    event: Event
    title: str
    action: str
    seconds: float
    muted: str

    @property
    def is_ongoing(self) -> bool:
        """Whether it is not over."""
        return self.event.state in ONGOING

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is heard of what it is about."""
        return self.event.state == EventState.UNKNOWN

    @property
    def gpu_id(self) -> str:
        """The GPU that it is about; empty for other entities."""
        return self.event.entity if self.event.entity_kind == EntityKind.GPU else ""

    @property
    def around(self) -> str:
        """The page of its GPU or host from half an hour before it opened; empty where there is neither."""
        return around_url(self.event)


class EventRows:
    """Makes rows: what they have in common is read once. ``now`` is when ongoing events are measured, None: by the clock."""

    def __init__(self, now: datetime | None = None) -> None:
        self._rules = rules_now()
        self._now = now or timezone.now()
        self._muting: Muting | None = None

    def rows(self, events: Iterable[Event]) -> list[EventRow]:
        """The rows of these events. No query beyond those for what is muted, once."""
        return [self.row(event) for event in events]

    def row(self, event: Event) -> EventRow:
        """The row of one event."""
        return EventRow(event, self.title(event.rule), self.action(event), self._seconds(event), self.muted(event))

    def title(self, rule: str) -> str:
        """What the rule is called; its name where it is not known any more."""
        known = self._rules.get(rule)
        return known.title if known else rule

    def rule(self, event: Event) -> Rule | None:
        """The rule that found it, unless it was taken out of the table."""
        return self._rules.get(event.rule)

    def xid(self, event: Event) -> Xid | None:
        """The XID that it is about."""
        is_code = event.rule.startswith("xid") and event.subject.isascii() and event.subject.isdigit()
        return self._rules.xids.get(int(event.subject[:9])) if is_code else None

    def action(self, event: Event) -> str:
        """What to do. The action may be that of an XID, and not its rule's."""
        known = self.rule(event)
        if known is not None and known.action == event.action:
            return known.action_text
        return ACTION_WORDS.get(event.action, event.action)

    def muted(self, event: Event) -> str:
        """``muted until …`` or ``in maintenance``; empty if people are notified, and for what is over."""
        if event.state == EventState.CLOSED:
            return ""
        if self._muting is None:
            self._muting = muting_now()
        silence = self._muting.silence_of(event)
        if silence is None:
            return ""
        if silence.until is None:
            return "in maintenance"
        return f"muted until {silence.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

    def is_muted(self, event: Event) -> bool:
        """Whether nobody is notified of it."""
        return bool(self.muted(event))

    def _seconds(self, event: Event) -> float:
        return max(0.0, ((event.closed or max(self._now, event.last_seen)) - event.opened).total_seconds())


def event_url(event_id: int) -> str:
    """The page of an event."""
    return reverse("dashboard:event", kwargs={"pk": event_id})


def events_url(**filters: str | None) -> str:
    """The list of events with these filters."""
    given = {name: text for name, text in filters.items() if text}
    base = reverse("dashboard:events")
    return f"{base}?{urlencode(given, safe=':')}" if given else base


def around_url(event: Event) -> str:
    """The GPU (else the host) in the half hours before and after an event opened; empty for sources and the fleet."""
    times = {"start": _second(event.opened - AROUND), "end": _second(event.opened + AROUND)}
    if event.entity_kind == EntityKind.GPU:
        page = gpu_url(event.entity)
    elif event.hostname:
        page = host_url(event.hostname)
    else:
        return ""
    return f"{page}?{urlencode(times, safe=':')}"


def _second(moment: datetime) -> str:
    return format_time(to_ns(moment.replace(microsecond=0)))


@dataclass(frozen=True, slots=True)
class EventGroup:
    """The events of one rule on one host: the worst severity, the slots, since when, and how often.

    ``handled`` says that all of them are acknowledged, muted or in maintenance.
    """

    rule: str
    title: str
    severity: str
    hostname: str
    source: str
    slots: str
    events: int
    count: int
    opened: datetime | None
    summary: str
    action: str
    url: str
    handled: str = ""


def grouped(rows: Sequence[EventRow]) -> list[EventGroup]:
    """Rows in groups by rule and host: the worst first, then those that nobody has taken up, then those with most events."""
    groups: dict[tuple[str, str, str], list[EventRow]] = {}
    for row in rows:
        source = row.event.entity if row.event.entity_kind == EntityKind.SOURCE else ""
        groups.setdefault((row.event.rule, row.event.hostname, source), []).append(row)
    found = [_group(members) for members in groups.values()]
    found.sort(key=lambda group: group.opened or timezone.now(), reverse=True)
    return sorted(found, key=lambda group: (MARKS.get(group.severity, 9), bool(group.handled), -group.events))


def _group(rows: Sequence[EventRow]) -> EventGroup:
    worst = min(rows, key=lambda row: MARKS.get(row.event.severity, 9))
    event, only = worst.event, len(rows) == 1
    slots = sorted({row.event.slot for row in rows if row.event.slot is not None})
    return EventGroup(
        rule=event.rule,
        title=worst.title,
        severity=event.severity,
        hostname=event.hostname,
        source=event.entity if event.entity_kind == EntityKind.SOURCE else "",
        slots=slot_words(slots, "slot" if event.entity_kind == EntityKind.SLOT else "gpu"),
        events=len(rows),
        count=sum(row.event.count for row in rows),
        opened=min(row.event.opened for row in rows),
        summary=worst.event.summary,
        action=worst.action,
        url=event_url(event.pk) if only else events_url(rule=event.rule, hostname=event.hostname),
        handled=_handled(rows),
    )


def _handled(rows: Sequence[EventRow]) -> str:
    if all(row.muted for row in rows):
        return rows[0].muted if len({row.muted for row in rows}) == 1 else "muted"
    taken_up = all(row.muted or row.event.acknowledged is not None for row in rows)
    return "acknowledged" if taken_up else ""


def slot_words(slots: Sequence[int], word: str) -> str:
    """``gpu 3``, ``gpus 1, 2, 5``; empty where none is known."""
    if not slots:
        return ""
    shown = ", ".join(map(str, slots[:_MOST_SLOTS])) + (", …" if len(slots) > _MOST_SLOTS else "")
    return f"{word}{'s' if len(slots) > 1 else ''} {shown}"
