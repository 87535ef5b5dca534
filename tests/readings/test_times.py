from __future__ import annotations

import time
from datetime import timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings.times import (
    INT64_MAX,
    INT64_MIN,
    SECOND,
    epoch_ns,
    format_duration,
    format_time,
    is_relative,
    parse_duration,
    parse_moment,
    parse_time,
    spell_duration,
)

S = 1_000_000_000
T = 1752871354 * S  # 2025-07-18T20:42:34Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-07-18T20:42:34Z", T),
        (" 2025-07-18t20:42:34z\n", T),
        ("2025-07-18T13:42:34-07:00", T),
        ("2025-07-18T22:42:34+0200", T),
        ("2025-07-18 20:42:34+00:00", T),
        ("2025-07-18 20:42:34 +00:00", T),
        ("2025-07-18T20:42:34.5Z", T + S // 2),
        ("2025-07-18T20:42:34,5Z", T + S // 2),
        ("2025-07-18T20:42:34.123456789Z", T + 123456789),
        ("2025-07-18T20:42:34.1234567899Z", T + 123456789),
        ("2025-07-18T20:42:34.000000001Z", T + 1),
        ("1752871354", T),
        ("1752871354.000000001", T + 1),
        ("1752871354.", T),
        ("1752871354000", T),
        ("1752871354000.5", T + 500_000),
        ("1752871354000000", T),
        ("1752871354000000000", T),
        ("0", 0),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.5Z", -S // 2),
        ("2016-12-31T23:59:60Z", 1483228800 * S),
        ("2017-01-01T00:59:60+01:00", 1483228800 * S),
    ],
)
def test_every_known_format_is_read_to_the_nanosecond(text: str, expected: int) -> None:
    assert parse_time(text) == expected


def test_a_time_without_offset_is_utc_whatever_zone_the_machine_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        parse_time.cache_clear()
        assert parse_time("2025-07-18 20:42:34") == T
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2025-07-18",
        "2025-07-18T20:42Z",
        "2025-13-18T20:42:34Z",
        "2025-02-29T20:42:34Z",
        "2025-07-18T24:42:34Z",
        "2025-07-18T20:42:61Z",
        "2025-07-18T20:42:60Z",
        "2025-07-18T20:42:34+24:00",
        "2025-07-18T20:42:34+02:75",
        "-5",
        "1e9",
        "１７５２８７１３５４",
        "1752871354_000",
        "99999999999999999999",
        "9999999999999999999",
        "3025-07-18T20:42:34Z",
        "0000-07-18T20:42:34Z",
        "0001-01-01T00:00:00Z",
        "nan",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


def test_the_error_says_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"bad time 'noon': give RFC 3339 .* or Unix seconds"):
        parse_time("noon")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1752871354, T),
        (1752871354000, T),
        (1752871354000000, T),
        (T, T),
        (T + 7, T + 7),
        (1752871354.25, T + S // 4),
        (1752871354.000001, T + 1000),
        (1752871354000.5, T + 500_000),
        (0, 0),
    ],
)
def test_a_number_is_taken_as_s_ms_us_or_ns_by_its_size(value: float, expected: int) -> None:
    assert epoch_ns(value) == expected


@pytest.mark.parametrize("value", [-1, -0.5, 1 << 63, 10**11 - 1, 99999999999.5, 1e300, float("nan"), float("inf")])
def test_a_number_that_is_no_time_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"bad time|out of range"):
        epoch_ns(value)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (T, "2025-07-18T20:42:34Z"),
        (T + 500_000_000, "2025-07-18T20:42:34.5Z"),
        (T + 1, "2025-07-18T20:42:34.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (0, "1970-01-01T00:00:00Z"),
    ],
)
def test_times_are_written_with_as_many_digits_as_needed(ns: int, text: str) -> None:
    assert format_time(ns) == text


@given(st.integers(min_value=INT64_MIN, max_value=INT64_MAX))
def test_every_time_survives_being_written_and_read(ns: int) -> None:
    assert parse_time(format_time(ns)) == ns


@given(st.text(max_size=40))
def test_any_text_is_a_time_within_64_bits_or_a_value_error(text: str) -> None:
    try:
        ns = parse_time(text)
    except ValueError:
        return
    assert INT64_MIN <= ns <= INT64_MAX


def test_a_time_that_tells_no_zone_is_of_the_given_one() -> None:
    zone = timezone(timedelta(hours=-7))
    assert parse_time("2025-07-18 13:42:34", zone) == parse_time("2025-07-18T20:42:34Z")
    assert parse_time("2025-07-18T20:42:34Z", zone) == parse_time("2025-07-18T20:42:34Z")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("500ms", SECOND // 2),
        ("5s", 5 * SECOND),
        ("1.5h", 5400 * SECOND),
        ("7d", 604_800 * SECOND),
        ("0.000001s", 1000),
        ("1h30m", 5400 * SECOND),
        ("24h0m0s", 86_400 * SECOND),
        ("1m0.5s", 60 * SECOND + SECOND // 2),
        ("2d12h", 216_000 * SECOND),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "-5s", "5 s", "5w", "1h30", "1h 30m", "h30m", "1s" * 6, "٥s", "1e3s", "5S", "1_0s", "9" * 16 + "s"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["1ms", "1500ms", "10s", "90s", "5m", "36h", "1d", "366d"])
def test_a_duration_is_told_in_the_largest_unit_that_fits(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h"), (86400 + 60, "1d 1m"), (128 * 86400 + 3661, "128d 1h")],
)
def test_durations_are_spelled_in_two_units(seconds: float, text: str) -> None:
    assert spell_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", 10**18),
        ("-1h", 10**18 - 3600 * 10**9),
        ("now-500ms", 10**18 - 5 * 10**8),
        ("1970-01-01T00:00:01Z", 10**9),
    ],
)
def test_a_moment_may_be_relative_to_now(text: str, expected: int) -> None:
    assert parse_moment(text, 10**18) == expected
    assert is_relative(text) == (not text.startswith("1970"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("-1x", "is not a time before now"), ("yesterday", "is not a time: use"), ("-999999d", "is out of range")],
)
def test_a_moment_that_is_none_is_refused_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_moment(text, 0)
    with pytest.raises(ValueError, match="out of range"):
        parse_moment("9999-01-01T00:00:00Z", 0)
