"""inventory.status: counters of collectors."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.utils import timezone

from inventory.models import CollectorStatus
from inventory.status import add_counts, stores_elsewhere

pytestmark = pytest.mark.django_db

FIRST = datetime(2025, 7, 18, 20, 0, tzinfo=UTC)
SECOND_START = datetime(2025, 7, 18, 21, 0, tzinfo=UTC)


def test_counts_add_up_and_a_restart_keeps_them() -> None:
    before = timezone.now()
    add_counts(
        "c1", started=FIRST, messages=2, readings_stored=200, refused={"blank": 3, "future": 0}, committed_offset=1
    )
    add_counts(
        "c1",
        started=SECOND_START,
        messages=1,
        readings_stored=50,
        refused={"blank": 1, "too_old": 4},
        committed_offset=2,
    )
    status = CollectorStatus.objects.get(pk="c1")
    assert (status.messages, status.readings_stored, status.committed_offset) == (3, 250, 2)
    assert status.refused == {"blank": 4, "too_old": 4}
    assert status.started == SECOND_START
    assert before <= status.updated <= timezone.now()


def test_collectors_are_counted_apart() -> None:
    for collector_id, messages in (("c1", 1), ("c2", 5)):
        add_counts(
            collector_id, started=FIRST, messages=messages, readings_stored=0, refused={}, committed_offset=messages
        )
    assert dict(CollectorStatus.objects.values_list("collector_id", "messages")) == {"c1": 1, "c2": 5}


def test_the_commit_follows_a_broker_log_that_began_again() -> None:
    for offset in (900, -1, 3):
        add_counts("c1", started=FIRST, messages=0, readings_stored=0, refused={}, committed_offset=offset)
    assert CollectorStatus.objects.get().committed_offset == 3


def test_the_store_of_a_collector_is_kept_with_its_counts() -> None:
    for collector_id, key in (("c1", "one"), ("c2", "other")):
        add_counts(
            collector_id, started=FIRST, messages=1, readings_stored=1, refused={}, committed_offset=1, store="x" * 600,
            store_key=key,
        )  # fmt: skip
    assert stores_elsewhere("one") == []
    found = stores_elsewhere("third")
    assert {each.collector_id for each in found} == {"c1", "c2"}
    assert {len(each.store) for each in found} == {512}


def test_a_collector_that_does_not_say_where_it_stores_is_passed_over() -> None:
    add_counts("old", started=FIRST, messages=1, readings_stored=1, refused={}, committed_offset=1)
    assert stores_elsewhere("any") == []
