"""Times as databases write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db.models import TextField
from django.db.models.functions import Cast

from inventory.models import Host
from inventory.queries import parse_moment

MOMENT = datetime(2025, 7, 18, 20, 42, 34, 500_001, UTC)


@pytest.mark.parametrize(
    "text", ["2025-07-18 20:42:34.500001", "2025-07-18 20:42:34.500001+00", "2025-07-18 22:42:34.500001+02"]
)
def test_the_texts_of_sqlite_and_postgresql(text: str) -> None:
    assert parse_moment(text) == MOMENT
    assert parse_moment(text).utcoffset() == MOMENT.utcoffset()


def test_the_text_of_this_database(db: None) -> None:
    for moment in (MOMENT, MOMENT.replace(microsecond=0), MOMENT.replace(microsecond=500_000)):
        Host.objects.all().delete()
        Host.objects.create(name="h", first_seen=moment, last_seen=moment)
        (text,) = Host.objects.values_list(Cast("last_seen", TextField()), flat=True)
        assert parse_moment(text) == moment
