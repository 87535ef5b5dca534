"""Forgets what the inventory no longer needs: pods that have gone long ago, and GPUs that nobody has seen for long."""

from __future__ import annotations

from collections.abc import Set
from datetime import UTC, datetime, timedelta

import numpy as np
from django.db import transaction
from django.db.models import Max

from inventory.models import GPU, MinuteBands, NewestRow, Placement
from inventory.newest import forget_newest
from inventory.packing import unpack
from inventory.sync.bulk import lock_inventory
from readings.times import to_ns

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
        _delete_placements(newest - placements) if placements else 0,
        _delete_gpus(newest - gpus) if gpus else 0,
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


def _delete_placements(before: datetime) -> int:
    old = Placement.objects.filter(last_seen__lt=before)
    running = _seen_since(before, set(old.filter(ended=None).values_list("gpu_id", flat=True)))
    deleted, after = 0, 0
    while page := list(old.filter(pk__gt=after).order_by("pk").values_list("pk", "gpu_id", "ended")[:_AT_ONCE]):
        after = page[-1][0]
        keys = [pk for pk, gpu_id, ended in page if ended is not None or gpu_id not in running]
        old.filter(pk__in=keys).delete()
        deleted += len(keys)
    return deleted


def _delete_gpus(before: datetime) -> int:
    old = GPU.objects.filter(last_seen__lt=before)
    deleted, after = 0, ""
    while True:
        with transaction.atomic():
            lock_inventory()
            page = list(old.filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)[:_AT_ONCE])
            if not page:
                return deleted
            after = page[-1]
            keys = set(page) - _seen_since(before, set(page))
            old.filter(pk__in=keys).delete()
            forget_newest(keys)
        deleted += len(keys)


def _seen_since(time: datetime, gpu_ids: Set[str]) -> Set[str]:
    """Those that were seen since then: the times in the rows of GPUs and placements are behind, far so in a fast replay."""
    if not gpu_ids:
        return gpu_ids
    seen: set[str] = set()
    for data in NewestRow.objects.values_list("data", flat=True).iterator():
        readings = unpack(bytes(data))
        rows = np.flatnonzero(readings.last_seen_ns >= to_ns(time)).tolist()
        seen.update(readings.gpu_ids[row] for row in rows)
    return seen & gpu_ids
