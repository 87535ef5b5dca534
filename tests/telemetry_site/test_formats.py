"""telemetry_site.formats: how Django's own pages, such as the admin's, write times."""

from __future__ import annotations

from datetime import UTC, date, datetime

from django.utils.formats import localize


def test_times_are_written_in_the_order_that_sorts() -> None:
    assert localize(datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)) == "2025-07-18 20:42:34"
    assert localize(date(2025, 7, 8)) == "2025-07-08"
