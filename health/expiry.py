"""Forgets events that were over long ago."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Max

from health.models import Event, EventState, Mute

# Deleted in one transaction, and in one call: other writers wait for no more, and the next call goes on.
_AT_ONCE = 1_000
MOST_FORGOTTEN = 50_000


def forget_old_events(now: datetime) -> int:
    """Deletes closed events that are EVENT_RETENTION old (0: none), with their transitions and notices; returns how many.

    Mutes that ended so long ago go too. Ages of events count from the newest event, or from ``now`` where that is earlier: the
    times of a capture are those of its own day. At most MOST_FORGOTTEN in one call. Raises DatabaseError.
    """
    if not settings.EVENT_RETENTION:
        return 0
    kept = timedelta(seconds=settings.EVENT_RETENTION)
    Mute.objects.filter(expires__lt=now - kept).delete()
    newest = Event.objects.aggregate(newest=Max("opened"))["newest"]
    if newest is None:
        return 0
    before = min(newest, now) - kept
    # What closed before then opened before then, and by that it is found.
    old = Event.objects.filter(state=EventState.CLOSED, opened__lt=before, closed__lt=before)
    deleted = 0
    while deleted < MOST_FORGOTTEN:
        keys = list(old.order_by("opened").values_list("pk", flat=True)[:_AT_ONCE])
        if not keys:
            break
        old.filter(pk__in=keys).delete()
        deleted += len(keys)
    return deleted
