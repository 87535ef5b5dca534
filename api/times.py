"""Times as questions and answers write them."""

from __future__ import annotations

import re
import time
from datetime import datetime

from inventory.sync.seen import to_ns
from readings.times import INT64_MIN, SECOND, format_time, parse_duration, parse_time

# What a relative time may look like, for the schema too.
RELATIVE_TIME = r"^(now|(now)?-[0-9]{1,15}(\.[0-9]{1,9})?(ms|s|m|h|d))$"
UNIX_TIME = r"^[0-9]{1,19}(\.[0-9]{0,30})?$"
_RELATIVE = re.compile(r"now|(?:now)?-(?P<ago>.+)")
# "+02:00" that was not percent-encoded arrives as " 02:00".
_LOST_PLUS = re.compile(r"(?<=\d\d:\d\d)((?::\d\d(?:\.\d+)?)?) (?=\d\d:?\d\d$)", re.ASCII)


def format_datetime(moment: datetime) -> str:
    """RFC 3339 in UTC with as many fraction digits as needed."""
    return format_time(to_ns(moment))


def age_seconds(then_ns: int) -> float:
    """How long ago that was, to the millisecond."""
    return round((time.time_ns() - then_ns) / SECOND, 3)


def time_ns(text: str) -> int:
    """A time as nanoseconds since 1970 UTC: RFC 3339, Unix time, or relative to now (``now``, ``-1h``, ``now-1h``).

    Raises ValueError saying what is allowed.
    """
    relative = _RELATIVE.fullmatch(text)
    if relative is not None:
        ago = relative["ago"]
        try:
            moment = time.time_ns() - (parse_duration(ago) if ago else 0)
        except ValueError:
            raise ValueError(
                "is not a time before now: use now, or a number and a unit, as -30s, -5m, -24h or -7d"
            ) from None
        if moment < INT64_MIN:
            raise ValueError("is out of range: the years 1678 to 2262 can be asked for")
        return moment
    try:
        return parse_time(_LOST_PLUS.sub(r"\1+", text))
    except ValueError as error:
        if "out of range" in str(error):
            raise ValueError("is out of range: the years 1678 to 2262 can be asked for") from None
        raise ValueError("is not a time: use RFC 3339, as 2025-07-18T20:42:34Z, or -1h for an hour ago") from None
