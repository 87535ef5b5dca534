"""How the judging itself is doing: how far it is, how old its last commit is, the open events, and the notices that wait."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from django.db.models import Count, Min
from django.utils import timezone

from health.models import ONGOING, Event, Notice, WatchState


class OpenCount(NamedTuple):
    """How many ongoing events a rule has of a severity. ``quiet``: nobody is notified of these."""

    rule: str
    severity: str
    quiet: bool
    events: int


class WatchStanding(NamedTuple):
    """What ``watch`` committed last. ``is_judging``: one holds the lease now. ``updated`` is None before its first commit."""

    is_judging: bool
    offset: int
    judged: int
    updated: datetime | None


class WaitingNotices(NamedTuple):
    """Notices that are not sent yet, and the seconds for which the first of them is overdue; 0 if none is."""

    waiting: int
    overdue_seconds: float


def open_counts() -> list[OpenCount]:
    """Ongoing events by rule and severity. One query."""
    rows = Event.objects.filter(state__in=ONGOING).order_by().values_list("rule", "severity", "quiet")
    return sorted(OpenCount(*row) for row in rows.annotate(Count("pk")))


def watch_standing() -> WatchStanding | None:
    """How far the judging is; None if no ``watch`` ever ran on this database. One query."""
    row = WatchState.objects.filter(pk=1).values_list("lease_until", "offset", "judged", "updated").first()
    if row is None:
        return None
    lease_until, offset, judged, updated = row
    return WatchStanding(lease_until is not None and lease_until > timezone.now(), offset, judged, updated)


def waiting_notices() -> WaitingNotices:
    """What is yet to be sent. One query."""
    found = Notice.objects.filter(sent=None).aggregate(count=Count("pk"), due=Min("due"))
    overdue = 0.0 if found["due"] is None else (timezone.now() - found["due"]).total_seconds()
    return WaitingNotices(found["count"], max(0.0, overdue))
