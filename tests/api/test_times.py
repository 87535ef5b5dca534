"""Database times are written like all others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from api.times import format_datetime


def test_it_is_utc_with_as_many_digits_as_needed() -> None:
    assert format_datetime(datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)) == "2025-07-18T20:42:34Z"
    assert format_datetime(datetime(2025, 7, 18, 20, 42, 34, 500, tzinfo=UTC)) == "2025-07-18T20:42:34.0005Z"
    east = timezone(timedelta(hours=2))
    assert format_datetime(datetime(2025, 7, 18, 22, 42, 34, tzinfo=east)) == "2025-07-18T20:42:34Z"
    assert format_datetime(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)) == "1969-12-31T23:59:59.999999Z"
