"""Keeps closed hours of usage in the database, and folds old hours into days.

Hours are kept apart for HOURS_KEPT days, then added up to days (UTC), which are kept for USAGE_RETENTION.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction

from health.models import UsagePeriod
from health.usage.meter import MeterStateError, UsageMeter
from health.usage.packing import DAY_HOURS, HOUR_NS, PackingError, Period, merge, pack, unpack
from readings.times import to_datetime, to_ns

logger = logging.getLogger(__name__)

HOURS_KEPT_DAYS = 8
# Folded in one transaction: others wait for no more.
_DAYS_AT_ONCE = 10
_DAY_NS = DAY_HOURS * HOUR_NS


def load_meter(state: bytes) -> UsageMeter:
    """The meter of this state (WatchState.usage), with the thresholds of the settings. Raises MeterStateError."""
    return UsageMeter.load(state, settings.USAGE_IDLE_PERCENT)


def open_meter(state: bytes) -> UsageMeter:
    """The same; a new one, and a line in the log, where the state cannot be read."""
    try:
        return load_meter(state)
    except MeterStateError as error:
        logger.error("usage of the newest hours is lost: %s", error)
        return load_meter(b"")


def save_usage(meter: UsageMeter, now: datetime) -> list[Period]:
    """Adds the meter's closed hours to what is in the database, and returns them.

    Call it in the transaction that keeps ``meter.dump()``, before that. If that transaction fails later, ``meter.give_back`` what
    this returned; if this fails, the meter has them back. Raises DatabaseError.
    """
    meter.idle_percent = settings.USAGE_IDLE_PERCENT
    if meter.floor_ns is None:
        # A meter that begins anew, perhaps on readings that one before it has counted.
        newest = UsagePeriod.objects.order_by("-start").values_list("start", "hours").first()
        meter.floor_ns = 0 if newest is None else to_ns(newest[0]) + newest[1] * HOUR_NS
    periods = meter.closed()
    if not periods:
        return []
    try:
        with transaction.atomic():
            _add(periods)
            fold(now)
            forget_usage(now)
    except BaseException:
        meter.give_back(periods)
        raise
    return periods


def _add(periods: Sequence[Period]) -> None:
    days = {period.start_ns // _DAY_NS * _DAY_NS for period in periods}
    starts = {to_datetime(start) for start in {*days, *(period.start_ns for period in periods)}}
    rows = {
        (to_ns(row.start), row.hours): row for row in UsagePeriod.objects.select_for_update().filter(start__in=starts)
    }
    for period in periods:
        day = period.start_ns // _DAY_NS * _DAY_NS
        row = rows.get((day, DAY_HOURS)) or rows.get((period.start_ns, 1))
        if row is None:
            made = UsagePeriod.objects.create(start=to_datetime(period.start_ns), hours=1, data=pack(period))
            rows[period.start_ns, 1] = made
        else:
            kept = read_period(row.data, to_ns(row.start), row.hours)
            row.data = pack(merge([kept, period], kept.start_ns, kept.hours))
            row.save(update_fields=("data",))


def fold(now: datetime) -> int:
    """Adds hours that are older than HOURS_KEPT_DAYS up to days, at most ten days at once; returns how many days. Ages as in ``forget_usage``."""
    before = _now(now) - timedelta(days=HOURS_KEPT_DAYS)
    # Whole days only: the last one may still be growing.
    before = before.replace(hour=0, minute=0, second=0, microsecond=0)
    hours = UsagePeriod.objects.filter(hours=1, start__lt=before).order_by("start")
    days = sorted({start.date() for start in hours.values_list("start", flat=True)})[:_DAYS_AT_ONCE]
    for day in days:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        rows = list(
            UsagePeriod.objects.select_for_update().filter(start__gte=start, start__lt=start + timedelta(days=1))
        )
        start_ns = to_ns(start)
        folded = pack(merge([read_period(row.data, to_ns(row.start), row.hours) for row in rows], start_ns, DAY_HOURS))
        UsagePeriod.objects.filter(pk__in=[row.pk for row in rows]).delete()
        UsagePeriod.objects.create(start=start, hours=DAY_HOURS, data=folded)
    return len(days)


def forget_usage(now: datetime) -> int:
    """Deletes what is older than USAGE_RETENTION (0: nothing); returns how many periods.

    Ages count from the newest period, or from ``now`` where that is earlier: so neither a clock that is ahead nor a fleet that has
    stopped makes anything old.
    """
    if not settings.USAGE_RETENTION:
        return 0
    kept = timedelta(seconds=settings.USAGE_RETENTION)
    deleted, _ = UsagePeriod.objects.filter(start__lt=_now(now) - kept).delete()
    return deleted


def read_period(data: bytes | memoryview, start_ns: int, hours: int) -> Period:
    """The period of these bytes; an empty one, and a line in the log, where they cannot be read."""
    try:
        return unpack(bytes(data), start_ns, hours)
    except PackingError as error:
        logger.error("usage from %s on is lost: %s", to_datetime(start_ns).isoformat(), error)
        return Period(start_ns, hours)


def _now(now: datetime) -> datetime:
    newest = UsagePeriod.objects.order_by("-start").values_list("start", flat=True).first()
    return now if newest is None else min(now, newest + timedelta(hours=1))
