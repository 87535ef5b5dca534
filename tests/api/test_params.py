"""Query parameters are parsed by a table, and unknown ones are refused by name. Times may be written in several ways."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.http import QueryDict

from api.errors import BadRequest
from api.params import (
    END_BEFORE,
    END_TIME,
    ORDER,
    PAGE,
    START_TIME,
    Parameter,
    fixed_times,
    flag,
    format_datetime,
    number,
    paging_of,
    read_parameters,
    read_range,
    several,
    time_ns,
)
from readings.times import format_time

HOSTNAME = several("hostname", "only this host")
OFFSET = number("offset", "rows to leave out", 0, 10, default=0)
MIG = flag("mig", "also instances")
SEARCH = Parameter(name="search", help="any part", parse=str)
PAGE_SIZE = paging_of("all")[1]
KNOWN = (PAGE, PAGE_SIZE, START_TIME, END_TIME, END_BEFORE, ORDER, HOSTNAME, OFFSET, MIG, SEARCH)


def read(query: str) -> dict[str, Any]:
    return read_parameters(QueryDict(query), KNOWN)


def refusal(query: str) -> str:
    with pytest.raises(BadRequest) as caught:
        read(query)
    message = str(caught.value.detail)
    assert "\n" not in message
    return message


def test_absent_parameters_have_their_defaults() -> None:
    values = read("")
    assert values == {
        "page": None,
        "page_size": None,
        "start_time": None,
        "end_time": None,
        "end_before": None,
        "order": "desc",
        "hostname": (),
        "offset": 0,
        "mig": False,
        "search": None,
    }


def test_values_are_parsed() -> None:
    values = read("page=3&start_time=2025-07-18T20:42:34.5Z&hostname=b&hostname=a&mig=true&order=asc")
    assert values["page"] == 3
    assert values["start_time"] == 1752871354_500_000_000
    assert values["hostname"] == ("b", "a")
    assert values["mig"] is True
    assert values["order"] == "asc"


@pytest.mark.parametrize(
    "query", ["start_time=2025-07-18T13:42:34-07:00", "start_time=2025-07-18T22:42:34+02:00", "start_time=1752871354"]
)
def test_a_time_may_have_an_offset_even_when_its_plus_was_not_encoded(query: str) -> None:
    assert read(query)["start_time"] == 1752871354_000_000_000


def test_a_time_without_offset_keeps_its_space() -> None:
    assert read("start_time=2025-07-18 20:42:34")["start_time"] == 1752871354_000_000_000


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    message = refusal("pgae=2")
    assert "'pgae'" in message
    assert "page_size" in message
    assert "hostname" in message


def test_where_no_parameter_is_known_the_message_says_so() -> None:
    with pytest.raises(BadRequest, match="there are none here"):
        read_parameters(QueryDict("page=1"), ())


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("page=1&page=2", ("page", "2 times", "once")),
        ("page=", ("page", "empty")),
        ("page=0", ("page", "out of range", "1 to")),
        ("page=-1", ("page", "out of range")),
        ("page=1.5", ("page", "not a whole number")),
        ("page=１", ("page", "not a whole number")),
        ("page=" + "9" * 400, ("page", "out of range")),
        ("page=" + "9" * 5000, ("page", "too long", "512")),
        ("offset=11", ("offset", "0 to 10")),
        ("page_size=0", ("page_size", "1 to")),
        ("page_size=ten", ("page_size", "1 to")),
        ("order=newest", ("order", "desc or asc")),
        ("mig=yes", ("mig", "true or false")),
        ("hostname=a%00b", ("hostname", "control characters")),
        ("hostname=a%0ab", ("hostname", "control characters")),
        ("hostname=" + "x" * 513, ("hostname", "too long")),
        ("&".join(["hostname=a"] * 101), ("hostname", "at most 100 times")),
        ("start_time=yesterday", ("start_time", "'yesterday'", "RFC 3339")),
        ("start_time=2025-13-01T00:00:00Z", ("start_time", "RFC 3339")),
        ("start_time=9999-12-31T23:59:59Z", ("start_time", "1678 to 2262")),
        ("end_time=0001-01-01T00:00:00+14:00", ("end_time",)),
        ("end_time=" + "9" * 400, ("end_time",)),
        ("end_time=nan", ("end_time", "RFC 3339")),
    ],
)
def test_a_bad_value_is_refused_by_name(query: str, words: tuple[str, ...]) -> None:
    message = refusal(query)
    for word in words:
        assert word in message


def test_a_long_value_is_not_echoed_whole() -> None:
    assert len(refusal("page=" + "x" * 500)) < 200
    assert len(refusal("x" * 500 + "=1")) < 300


def test_any_number_of_rows_may_be_asked_for() -> None:
    assert read(f"page_size={10**12}")["page_size"] == 10**12
    assert "1 to 1000000000000" in refusal("page_size=" + "9" * 300)


def test_a_range_includes_its_end_time_but_not_what_it_ends_before() -> None:
    for query, expected in (
        ("", (None, None)),
        ("start_time=5000000000&end_time=5000000000", (5 * 10**18, 5 * 10**18 + 1)),
        ("start_time=5000000000&end_before=5000000001", (5 * 10**18, 5 * 10**18 + 10**9)),
        ("end_time=2262-04-11T23:47:16.854775807Z", (None, None)),
    ):
        assert read_range(read(query)) == expected, query


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("start_time=2025-07-18T20:42:35Z&end_time=2025-07-18T20:42:34Z", "end_time must not be earlier than start_time"),
        ("start_time=2025-07-18T20:42:34Z&end_before=2025-07-18T20:42:34Z", "end_before must be later than start_time"),
        ("end_time=now&end_before=now", "end_time and end_before exclude each other"),
    ],
)  # fmt: skip
def test_a_range_must_hold_something(query: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read_range(read(query))


def test_times_told_from_now_are_fixed_and_others_stay_as_they_are() -> None:
    query = QueryDict("start_time=-1h&end_time=2025-07-18T20:42:34Z")
    values = read_parameters(query, KNOWN)
    assert fixed_times(query, values) == {"start_time": format_time(values["start_time"])}


def test_it_is_utc_with_as_many_digits_as_needed() -> None:
    assert format_datetime(datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)) == "2025-07-18T20:42:34Z"
    assert format_datetime(datetime(2025, 7, 18, 20, 42, 34, 500, tzinfo=UTC)) == "2025-07-18T20:42:34.0005Z"
    east = timezone(timedelta(hours=2))
    assert format_datetime(datetime(2025, 7, 18, 22, 42, 34, tzinfo=east)) == "2025-07-18T20:42:34Z"
    assert format_datetime(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)) == "1969-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("now", 0.0),
        ("-1h", 3600.0),
        ("now-5m", 300.0),
        ("-1.5s", 1.5),
        ("-500ms", 0.5),
        ("-7d", 604800.0),
        ("-1h30m", 5400.0),
    ],
)
def test_a_time_may_be_told_from_now(text: str, ago: float) -> None:
    before = time.time_ns()
    found = time_ns(text) + int(ago * 1e9)
    assert before <= found <= time.time_ns()


@pytest.mark.parametrize(
    "text", ["-", "now-", "-1", "-1y", "1h", "+1h", "now+1h", "--1h", "-1h30", "NOW", "-1 h", "-１h"]
)
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        time_ns(text)


def test_a_time_too_long_ago_is_refused() -> None:
    with pytest.raises(ValueError, match="1678 to 2262"):
        time_ns("-999999d")
