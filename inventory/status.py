"""The collectors' counters, kept in the database so that the web service can read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from inventory.models import STORE_LENGTH, CollectorStatus


def add_counts(
    collector_id: str,
    *,
    started: datetime,
    messages: int,
    readings_stored: int,
    refused: Mapping[str, int],
    committed_offset: int,
    store: str = "",
    store_key: str = "",
) -> None:
    """Adds to a collector's counters and sets its committed offset and its store, in one transaction.

    Counts are those since the last call. ``committed_offset`` (-1: nothing yet) replaces the old one even if it is
    lower: a new broker log begins at 0. Raises django.db.Error if the database cannot be written; nothing is added then.
    """
    now = timezone.now()
    with transaction.atomic():
        # Created first and locked then, so that two collectors that start at once wait for each other.
        CollectorStatus.objects.bulk_create(
            [CollectorStatus(collector_id=collector_id, started=started, updated=now)], ignore_conflicts=True
        )
        status = CollectorStatus.objects.select_for_update().get(pk=collector_id)
        status.started = started
        status.updated = now
        status.messages += messages
        status.readings_stored += readings_stored
        status.committed_offset = committed_offset
        status.store = store[:STORE_LENGTH]
        status.store_key = store_key[:STORE_LENGTH]
        for reason, count in refused.items():
            if count:
                status.refused[reason] = status.refused.get(reason, 0) + count
        status.save()


# A collector that has said nothing for longer says nothing about where readings go now.
_RECENT = timedelta(minutes=10)


def stores_elsewhere(store_key: str) -> list[CollectorStatus]:
    """The collectors at work, if none of them writes to the store of this key. One query."""
    recent = list(CollectorStatus.objects.filter(updated__gte=timezone.now() - _RECENT).exclude(store_key=""))
    return [] if any(each.store_key == store_key for each in recent) else recent
