"""Notices: what each channel has yet to send. They are written in the transaction that writes the events."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from health.models import Event, EventTransition, Notice, NoticeKind, TransitionKind
from health.notify.channels import configured_channels, is_severe_enough
from health.notify.tagging import tags_by_event

# What was known only so long after it happened is late: it goes into a digest.
LATE = timedelta(minutes=5)
# How many steps of events are looked at for what happened lately, the latest first.
LATEST = 50_000
_KINDS = {
    TransitionKind.OPENED: NoticeKind.OPENED,
    TransitionKind.RAISED: NoticeKind.RAISED,
    TransitionKind.CLOSED: NoticeKind.CLOSED,
    TransitionKind.RESOLVED: NoticeKind.RESOLVED,
}
_AT_ONCE = 500


def post(steps: Sequence[tuple[Event, EventTransition]], now: datetime | None = None) -> int:
    """Write a notice of each step for each channel that wants it, in the caller's transaction. Returns how many.

    Steps that were posted already are passed over: their keys are the same. Without channels nothing is done. Tags cost two
    queries, if a filter asks for one. Raises ChannelError, DatabaseError.
    """
    channels = configured_channels()
    wanted = [
        (event, step, severity_of(event, step))
        for event, step in (steps if channels else ())
        if step.kind in _KINDS and not event.quiet and is_severe_enough(severity_of(event, step))
    ]
    if not wanted:
        return 0
    moment = now or timezone.now()
    due = moment + timedelta(seconds=settings.NOTIFY_WAIT)
    tags = tags_by_event(event for event, _, _ in wanted) if any(each.asks_for_tags for each in channels) else {}
    rows = [
        Notice(
            event=event,
            kind=_KINDS[TransitionKind(step.kind)],
            channel=channel.name,
            key=notice_key(event, step.kind, severity),
            created=moment,
            due=due,
            late=moment - step.at > LATE,
        )
        for event, step, severity in wanted
        for channel in channels
        if channel.wants(event, severity, tags.get(event.pk, {}))
    ]
    Notice.objects.bulk_create(rows, ignore_conflicts=True, batch_size=_AT_ONCE)
    return len(rows)


def severity_of(event: Event, step: EventTransition) -> str:
    """How bad it was at this step. At the end it counts how bad it ever was, so that who heard of it hears that it is over."""
    is_over = step.kind in {TransitionKind.CLOSED, TransitionKind.RESOLVED}
    return event.severity if is_over else step.severity or event.severity


def notice_key(event: Event, kind: str, detail: str) -> str:
    """The key of one step of an event: the same whenever it is made. ``detail`` distinguishes steps of one kind."""
    opened = f"{event.opened:%Y-%m-%dT%H:%M:%S.%f}"
    return _digest((event.rule, event.entity_kind, event.entity, event.subject, opened, kind, detail))


def message_key(notices: Iterable[Notice]) -> str:
    """The key of a message with these notices: the same whenever it has the same ones."""
    return _digest(sorted(notice.key for notice in notices))


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
