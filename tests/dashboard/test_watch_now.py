"""dashboard.watch_now: whether anything judges."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from dashboard.watch_now import watch_now
from health.models import WatchState
from tests.health.building import NOON

pytestmark = pytest.mark.django_db


def test_where_watch_never_ran_nothing_judges() -> None:
    assert watch_now() == (False, "", None, -1, 0)


@pytest.mark.parametrize(("holder", "seconds", "judges"), [("a", 30, True), ("a", -1, False), ("", 30, False)])
def test_it_judges_while_its_lease_lasts(holder: str, seconds: int, judges: bool) -> None:
    lease = timezone.now() + timedelta(seconds=seconds)
    WatchState.objects.create(pk=1, holder=holder, lease_until=lease, updated=NOON, offset=7, judged=1000)
    assert watch_now() == (judges, holder, NOON, 7, 1000)


def test_its_large_state_is_not_read(django_assert_num_queries: object) -> None:
    WatchState.objects.create(pk=1, engine=b"x" * 1000, usage=b"y")
    with django_assert_num_queries(1) as asked:  # type: ignore[operator]
        watch_now()
    assert "engine" not in asked.captured_queries[0]["sql"]
