"""Forgets what the inventory no longer needs: pods that have gone long ago, and GPUs that nobody has seen for long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Max, QuerySet

from inventory.models import GPU, MinuteBands, Placement
from inventory.newest import forget_newest
from inventory.sync.bulk import lock_inventory

BAND_DAYS = 7
# Deleted in one transaction: a writer waits for no more.
_AT_ONCE = 1000


def forget(*, placements: timedelta, gpus: timedelta, now: datetime | None = None) -> tuple[int, int]:
    """Deletes placements and GPUs last seen longer ago than this (0: keeps them); returns how many of each.

    A GPU takes its placements and residences along; its host stays. Ages count from the fleet's newest reading, or from
    ``now`` where that is earlier: so neither a clock that is ahead nor a fleet that has stopped makes anything old. Raises
    DatabaseError.
    """
    newest = GPU.objects.aggregate(newest=Max("last_seen"))["newest"]
    if newest is None:
        return 0, 0
    newest = min(newest, now or datetime.now(UTC))
    return (
        _delete_placements(Placement.objects.filter(last_seen__lt=newest - placements)) if placements else 0,
        _delete_gpus(GPU.objects.filter(last_seen__lt=newest - gpus)) if gpus else 0,
    )


def forget_bands(now: datetime | None = None) -> int:
    """Deletes the minutes of the fleet's bands that are more than BAND_DAYS old; returns how many. Raises DatabaseError.

    Ages count as in ``forget``.
    """
    newest = MinuteBands.objects.aggregate(newest=Max("minute"))["newest"]
    if newest is None:
        return 0
    newest = min(newest, int((now or datetime.now(UTC)).timestamp()) // 60)
    deleted, _ = MinuteBands.objects.filter(minute__lt=newest - BAND_DAYS * 24 * 60).delete()
    return deleted


def _delete_placements(rows: QuerySet[Placement]) -> int:
    deleted = 0
    while keys := list(rows.order_by("pk").values_list("pk", flat=True)[:_AT_ONCE]):
        rows.filter(pk__in=keys).delete()
        deleted += len(keys)
    return deleted


def _delete_gpus(rows: QuerySet[GPU]) -> int:
    deleted = 0
    while True:
        with transaction.atomic():
            lock_inventory()
            keys = set(rows.order_by("pk").values_list("pk", flat=True)[:_AT_ONCE])
            rows.filter(pk__in=keys).delete()
            forget_newest(keys)
        if not keys:
            return deleted
        deleted += len(keys)
