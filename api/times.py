"""Database times as answers write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from readings.times import format_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_datetime(moment: datetime) -> str:
    """RFC 3339 in UTC with as many fraction digits as needed."""
    return format_time((moment - _EPOCH) // timedelta(microseconds=1) * 1000)
