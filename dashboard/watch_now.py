"""Whether anything judges the fleet's health now."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from django.utils import timezone

from health.models import WatchState


class WatchNow(NamedTuple):
    """What ``manage.py watch`` last wrote. ``updated`` is None if it never ran here."""

    is_judging: bool
    holder: str
    updated: datetime | None
    offset: int
    judged: int


def watch_now() -> WatchNow:
    """What ``watch`` does now: it judges while its lease lasts. One query, without its large state. Raises DatabaseError."""
    row = WatchState.objects.values_list("holder", "lease_until", "updated", "offset", "judged").first()
    if row is None:
        return WatchNow(False, "", None, -1, 0)
    holder, lease_until, updated, offset, judged = row
    is_judging = bool(holder) and lease_until is not None and lease_until > timezone.now()
    return WatchNow(is_judging, holder, updated, offset, judged)
