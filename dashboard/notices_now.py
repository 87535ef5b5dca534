"""What the channels of notifications have yet to send, and what they could not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Max, Min, Q
from django.utils import timezone

from health.models import Notice
from health.notify.channels import configured_channels
from health.notify.errors import ChannelError

DAY = timedelta(days=1)
GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True)
class ChannelNow:
    """A channel: notices that wait, how many of them failed before, since when the oldest waits, and what was within a day."""

    name: str
    waiting: int = 0
    failing: int = 0
    oldest: datetime | None = None
    sent: int = 0
    given_up: int = 0
    error: str = ""


def channels_now() -> list[ChannelNow]:
    """The channels of NOTIFY_URLS, and others that have notices. One query. Raises ChannelError, DatabaseError."""
    waits = Q(sent=None)
    rows = (
        Notice.objects.filter(waits | Q(sent__gte=timezone.now() - DAY))
        .order_by()
        .values("channel")
        .annotate(
            waiting=Count("pk", filter=waits),
            failing=Count("pk", filter=waits & Q(attempts__gt=0)),
            oldest=Min("created", filter=waits),
            done=Count("pk", filter=Q(outcome="sent", sent__isnull=False)),
            given_up=Count("pk", filter=Q(outcome=GIVEN_UP)),
            error=Max("last_error", filter=waits),
        )
    )
    found = {
        row["channel"]: ChannelNow(
            name=row["channel"],
            waiting=row["waiting"],
            failing=row["failing"],
            oldest=row["oldest"],
            sent=row["done"],
            given_up=row["given_up"],
            error=row["error"] or "",
        )
        for row in rows
    }
    for channel in configured_channels():
        found.setdefault(channel.name, ChannelNow(channel.name))
    return [found[name] for name in sorted(found)]


def channels_or_why_not() -> tuple[list[ChannelNow], str]:
    """The channels; or none and why NOTIFY_URLS cannot be read. Raises DatabaseError."""
    try:
        return channels_now(), ""
    except ChannelError as error:
        return [], str(error)
