"""Times are read in every way that people write them, and written in one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from api.params import format_datetime, time_ns


def test_it_is_utc_with_as_many_digits_as_needed() -> None:
    assert format_datetime(datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)) == "2025-07-18T20:42:34Z"
    assert format_datetime(datetime(2025, 7, 18, 20, 42, 34, 500, tzinfo=UTC)) == "2025-07-18T20:42:34.0005Z"
    east = timezone(timedelta(hours=2))
    assert format_datetime(datetime(2025, 7, 18, 22, 42, 34, tzinfo=east)) == "2025-07-18T20:42:34Z"
    assert format_datetime(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)) == "1969-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    ("text", "ago"),
    [("now", 0.0), ("-1h", 3600.0), ("now-5m", 300.0), ("-1.5s", 1.5), ("-500ms", 0.5), ("-7d", 604800.0)],
)
def test_a_time_may_be_told_from_now(text: str, ago: float) -> None:
    before = time.time_ns()
    found = time_ns(text) + int(ago * 1e9)
    assert before <= found <= time.time_ns()


@pytest.mark.parametrize(
    "text", ["-", "now-", "-1", "-1y", "1h", "+1h", "now+1h", "--1h", "-1h30m", "NOW", "-1 h", "-１h"]
)
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        time_ns(text)


def test_a_time_too_long_ago_is_refused() -> None:
    with pytest.raises(ValueError, match="1678 to 2262"):
        time_ns("-999999d")
