"""Answers about events, rules and mutes, from the tables of health."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from rest_framework.request import Request

from api.fleet import short_id
from api.links import list_url
from api.params import format_datetime
from api.schema.answers import EventCountsAnswer
from api.schema.event_answers import (
    EventAnswer,
    EventDetailAnswer,
    EventEntityAnswer,
    MuteAnswer,
    TransitionAnswer,
)
from health.models import EntityKind, Event, EventState, EventTransition, Mute
from health.muting import muting_now
from health.queries import SeverityCounts
from health.rule_table import rules_now
from health.rules.model import ACTION_WORDS

# Of an event that happened for weeks on end, the newest.
MOST_TRANSITIONS = 1_000


class EventAnswers:
    """Makes the answers of events for one request: what they have in common is read once, in at most five queries."""

    def __init__(self, request: Request | HttpRequest) -> None:
        self._rules, self._muting = rules_now(), muting_now()
        self._base = list_url("events", request)
        self._now = timezone.now()

    def answers(self, events: Iterable[Event]) -> list[EventAnswer]:
        """The answers of these events. No query."""
        return [EventAnswer(**self._fields(event)) for event in events]

    def answer(self, event: Event) -> EventAnswer:
        """The answer of one event. No query."""
        return EventAnswer(**self._fields(event))

    def detail(self, event: Event) -> EventDetailAnswer:
        """The answer of one event with what happened to it. One query."""
        steps = list(event.transitions.order_by("-at", "-pk")[:MOST_TRANSITIONS])
        rule = self._rules.get(event.rule)
        return EventDetailAnswer(
            **self._fields(event),
            transitions=[transition_answer(step) for step in reversed(steps)],
            source="" if rule is None else rule.source,
            disagreement=self._disagreement(event),
        )

    def _fields(self, event: Event) -> dict[str, Any]:
        rule = self._rules.get(event.rule)
        is_gpu = event.entity_kind == EntityKind.GPU
        silence = None if event.state == EventState.CLOSED else self._muting.silence_of(event)
        return {
            "id": event.pk,
            "rule": event.rule,
            "title": event.rule if rule is None else rule.title,
            "severity": event.severity,
            "state": event.state,
            "entity": EventEntityAnswer(event.entity_kind, event.entity),  # type: ignore[arg-type]  # as the database has it
            "hostname": event.hostname,
            "slot": event.slot,
            "uuid": event.entity if is_gpu else "",
            "short_uuid": short_id(event.entity) if is_gpu else "",
            "model_name": event.model_name,
            "namespace": event.namespace,
            "pod": event.pod,
            "subject": event.subject,
            "opened": format_datetime(event.opened),
            "last_seen": format_datetime(event.last_seen),
            "closed": _time(event.closed),
            "duration_seconds": duration_of(event, self._now),
            "count": event.count,
            "summary": event.summary,
            "details": event.details,
            "action": event.action,
            # The action may be that of an XID, and not its rule's.
            "action_text": rule.action_text
            if rule is not None and rule.action == event.action
            else ACTION_WORDS.get(event.action, event.action),
            "acknowledged": _time(event.acknowledged),
            "acknowledged_by": event.acknowledged_by,
            "resolved_by": event.resolved_by,
            "muted": silence is not None,
            "muted_until": None if silence is None else _time(silence.until),
            "quiet": event.quiet,
            "url": f"{self._base}/{event.pk}",
        }

    def _disagreement(self, event: Event) -> str:
        code = event.subject
        if not event.rule.startswith("xid") or not code.isdecimal():
            return ""
        known = self._rules.xids.get(int(code))
        return "" if known is None else known.disagree


def duration_of(event: Event, now: datetime) -> float:
    """Seconds until it closed, or until now."""
    return max(0.0, round(((event.closed or now) - event.opened).total_seconds(), 3))


def transition_answer(step: EventTransition) -> TransitionAnswer:
    """One step of an event."""
    return TransitionAnswer(
        kind=step.kind,  # type: ignore[arg-type]  # as the database has it
        at=format_datetime(step.at),
        recorded=format_datetime(step.recorded),
        severity=step.severity or None,  # type: ignore[arg-type]
        text=step.text,
        user=step.user,
        note=step.note,
    )


def counts_answer(counts: SeverityCounts) -> EventCountsAnswer:
    """How many events there are, by severity."""
    return EventCountsAnswer(*counts)


def mute_answer(mute: Mute, base: str, now: datetime) -> MuteAnswer:
    """One mute. ``base`` is the URL of the list."""
    return MuteAnswer(
        id=mute.pk,
        rule=mute.rule,
        hostname=mute.hostname,
        gpu=mute.gpu,
        tag=mute.tag,
        tag_value=mute.tag_value,
        starts=format_datetime(mute.starts),
        expires=format_datetime(mute.expires),
        state="active" if mute.expires > now else "ended",
        created_by=mute.created_by,
        note=mute.note,
        url=f"{base}/{mute.pk}",
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_datetime(moment)
