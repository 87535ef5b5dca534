"""health.standing: how the judging itself is doing. What becomes of it: tests/api/views/test_prometheus.py and test_stats.py."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from health.models import Notice, WatchState
from health.standing import WatchStanding, open_counts, waiting_notices, watch_standing
from tests.health.building import NOON, make_event

pytestmark = pytest.mark.django_db


def test_one_query_each(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    event = make_event()
    make_event(entity="GPU-2")
    make_event("host_stale", entity_kind="host", entity="node-1", severity="critical", quiet=True)
    later = timezone.now() + timedelta(hours=1)
    Notice.objects.create(event=event, kind="opened", channel="m", key="a", created=NOON, due=later)
    WatchState.objects.create(pk=1, judged=9, offset=3, updated=NOON, lease_until=NOON, engine=b"x" * 1000)
    with django_assert_num_queries(3):
        assert open_counts() == [("host_stale", "critical", True, 1), ("temp_high", "warning", False, 2)]
        assert waiting_notices() == (1, 0.0)  # it is not due yet
        assert watch_standing() == WatchStanding(is_judging=False, offset=3, judged=9, updated=NOON)


def test_where_no_watch_ever_ran() -> None:
    assert watch_standing() is None
    assert open_counts() == []
    assert waiting_notices() == (0, 0.0)
