"""Closed hours in the database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import DatabaseError, transaction
from pytest_django import Settings

from health.models import UsagePeriod, WatchState
from health.usage.packing import DAY_HOURS, Figure
from health.usage.saving import HOURS_KEPT_DAYS, fold, forget_usage, read_period
from readings.times import to_datetime, to_ns
from tests.health.usage.filling import Watched
from tests.health.usage.reckoning import HOUR, SECOND, UTIL, Cells, cells_of
from tests.health.usage.test_meter import gpu_of

pytestmark = pytest.mark.django_db

MINUTE = 60 * SECOND
DAY = 24 * HOUR
START = 500_000 // 24 * DAY


def feed(watched: Watched, start: int, hours: float, util: float = 0.0, step: int = MINUTE) -> int:
    """Two GPUs, one held; returns the time of the next sample."""
    end = start + int(hours * HOUR)
    for time in range(start, end, step):
        watched.send([(gpu_of(1, pod="a", namespace="ml"), time, {UTIL: util}), (gpu_of(2), time, {UTIL: 90.0})])
    return end


def saved() -> Cells:
    """What is in the database, hours and days alike by hour of their start."""
    return cells_of([read_period(row.data, to_ns(row.start), row.hours) for row in UsagePeriod.objects.all()])


def known(cells: Cells) -> int:
    return sum(figures[Figure.KNOWN] for figures in cells.values())


def test_hours_that_are_over_are_kept_once() -> None:
    watched = Watched()
    end = feed(watched, START, 2.2)
    watched.commit(end)
    assert UsagePeriod.objects.count() == 1
    watched.commit(end)
    end = feed(watched, end, 1)
    watched.commit(end)
    assert [row.start for row in UsagePeriod.objects.all()] == [to_datetime(START), to_datetime(START + HOUR)]
    assert known(saved()) == 2 * 2 * HOUR


def test_a_restart_loses_nothing_and_counts_nothing_twice() -> None:
    watched, undisturbed = Watched(), Watched()
    end = START
    for number in range(12):
        begin, end = end, feed(watched, end, 0.5, util=50.0 * (number % 5 == 0))
        feed(undisturbed, begin, 0.5, util=50.0 * (number % 5 == 0))
        watched.commit(end)
        watched.restart()
    both = [
        *watched.meter.open_hours(),
        *(read_period(row.data, to_ns(row.start), 1) for row in UsagePeriod.objects.all()),
    ]
    assert cells_of(both) == cells_of(undisturbed.meter.open_hours())


def test_what_comes_late_is_added() -> None:
    watched = Watched()
    watched.send([(gpu_of(9), START + 10 * MINUTE, {UTIL: 1.0}), (gpu_of(9), START + 11 * MINUTE, {UTIL: 1.0})])
    end = feed(watched, START, 3)
    watched.commit(end)
    before = known(saved())
    # The GPU was silent on the way here for two hours.
    watched.send([(gpu_of(9), START + 11 * MINUTE + 30 * SECOND, {UTIL: 1.0})])
    watched.commit(end)
    assert known(saved()) == before + 30 * SECOND


def test_old_hours_become_days() -> None:
    watched = Watched()
    end = feed(watched, START, 50, step=2 * MINUTE)
    watched.commit(end)
    hours = saved()
    assert fold(to_datetime(end)) == 0
    feed(watched, START + (HOURS_KEPT_DAYS + 1) * DAY, 2)
    now = START + (HOURS_KEPT_DAYS + 1) * DAY + 2 * HOUR
    watched.commit(now)
    lengths = list(UsagePeriod.objects.values_list("start", "hours"))
    assert lengths[0] == (to_datetime(START), DAY_HOURS)
    assert all(length == 1 for _, length in lengths[1:])
    first_day = {
        (place, holder): figures for (_, place, holder), figures in cells_of(
            [read_period(UsagePeriod.objects.get(hours=DAY_HOURS).data, START, DAY_HOURS)]
        ).items()
    }  # fmt: skip
    for (place, holder), figures in first_day.items():
        parts = [
            each
            for (hour, at, who), each in hours.items()
            if (at, who) == (place, holder) and hour * HOUR < START + DAY
        ]
        assert figures == [sum(column) for column in zip(*parts, strict=True)]


def test_what_comes_for_a_day_that_was_folded_is_added_to_it() -> None:
    watched = Watched()
    end = feed(watched, START, 24)
    watched.send([(gpu_of(9), end - 5 * MINUTE, {UTIL: 1.0}), (gpu_of(9), end - 4 * MINUTE, {UTIL: 1.0})])
    feed(watched, START + (HOURS_KEPT_DAYS + 2) * DAY, 2)
    watched.commit(START + (HOURS_KEPT_DAYS + 2) * DAY + 2 * HOUR)
    before = known(saved())
    watched.send([(gpu_of(9), end - 4 * MINUTE + 30 * SECOND, {UTIL: 1.0})])
    watched.commit(START + (HOURS_KEPT_DAYS + 2) * DAY + 2 * HOUR)
    assert known(saved()) == before + 30 * SECOND
    assert UsagePeriod.objects.filter(start__lt=to_datetime(START + DAY)).count() == 1


def test_a_failure_gives_the_hours_back() -> None:
    watched = Watched()
    watched.commit(START)
    end = feed(watched, START, 3)
    UsagePeriod.objects.create(start=to_datetime(START), hours=1, data=b"")

    def broken(*args: object, **kwargs: object) -> None:
        raise DatabaseError("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UsagePeriod, "save", broken)
        with pytest.raises(DatabaseError):
            watched.commit(end)
    assert UsagePeriod.objects.count() == 1
    watched.commit(end)
    assert known(saved()) == 2 * 2 * HOUR


def test_a_new_meter_does_not_count_again_what_one_before_it_kept() -> None:
    watched = Watched()
    end = feed(watched, START, 4)
    watched.commit(end)
    kept = known(saved())
    other = Watched()
    feed(other, START, 4)
    end = feed(other, end, 2)
    other.commit(end)
    assert known(saved()) > kept
    assert max(figures[Figure.KNOWN] for figures in saved().values()) <= HOUR


def test_usage_is_forgotten_after_its_retention(settings: Settings) -> None:
    settings.USAGE_RETENTION = 3 * 86400.0
    watched = Watched()
    end = feed(watched, START, 100, step=2 * MINUTE)
    watched.commit(end)
    oldest = UsagePeriod.objects.order_by("start").first()
    assert oldest is not None
    assert oldest.start >= to_datetime(end - 3 * DAY - 2 * HOUR)
    # A clock that is ahead makes nothing old.
    assert forget_usage(to_datetime(end) + timedelta(days=900)) == 0
    settings.USAGE_RETENTION = 0.0
    assert forget_usage(to_datetime(end)) == 0


def test_a_period_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert read_period(b"nonsense", START, 1).places == ()
    assert "usage from 20" in caplog.text


def test_it_runs_inside_a_transaction_of_others() -> None:
    watched = Watched()
    end = feed(watched, START, 3)
    with transaction.atomic():
        watched.commit(end)
    assert WatchState.objects.get(pk=1).usage
