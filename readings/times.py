"""Times and durations as text, converted to nanoseconds and back. Imports nothing heavy: settings are read with it.

Times count from 1970 UTC. A datetime ends at the microsecond and DCGM's tools write nanoseconds, so fractions are
handled apart from it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache

SECOND = 1_000_000_000
_DURATION_UNITS = {
    "ms": SECOND // 1000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 86_400 * SECOND,
}
_DURATION_PART = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?(ms|s|m|h|d)", re.ASCII)
# A duration as a regular expression that JSON Schema knows too.
DURATION_PATTERN = r"([0-9]{1,15}(\.[0-9]{1,9})?(ms|s|m|h|d)){1,5}"
_DURATION = re.compile(DURATION_PATTERN, re.ASCII)
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

# A time relative to now.
_RELATIVE = re.compile(r"now|(?:now)?-(?P<ago>.+)")
_OUT_OF_RANGE = "is out of range: the years 1678 to 2262 can be asked for"

_ALLOWED = "RFC 3339 (2025-07-18T20:42:34Z) or Unix seconds, ms, µs or ns"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}/[0-9]{2}/[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:)([0-9]{2})(?:[.,]([0-9]{1,30}))?"
    r" ?([Zz]|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})?"
)
_NUMBER = re.compile(r"([0-9]{1,19})(?:\.([0-9]{0,30}))?")

# A Unix time below the bound is read in that unit: 1e11 s is the year 5138, 1e11 ms is 1973.
_EPOCH_UNITS = ((10**11, SECOND), (10**14, 1_000_000), (10**17, 1_000))


def _unit_ns(magnitude: float) -> int:
    return next((unit for bound, unit in _EPOCH_UNITS if magnitude < bound), 1)


def _in_range(ns: int, text: object) -> int:
    if not INT64_MIN <= ns <= INT64_MAX:
        raise ValueError(f"time {text!r} is out of range: the years 1678 to 2262 fit")
    return ns


# Many rows of a capture have the same time.
@lru_cache(maxsize=4096)
def parse_time(text: str, zone: tzinfo = UTC) -> int:
    """Parses a time to nanoseconds since 1970 UTC. Raises ValueError with what is allowed.

    Takes RFC 3339, cut to nanoseconds (without an offset in ``zone``, never in the machine's zone), its dates also as
    ``2025/07/18`` and its offset as ``UTC``, as nvidia-smi and spreadsheets write them; and Unix times in seconds, ms, µs or
    ns, distinguished by magnitude.
    """
    stripped = text.strip()
    match = _RFC3339.fullmatch(stripped)
    if match is not None:
        return _in_range(_from_match(match, text, zone), text)
    match = _NUMBER.fullmatch(stripped)
    if match is None:
        raise ValueError(f"bad time {text[:80]!r}: give {_ALLOWED}")
    whole, fraction = int(match[1]), match[2] or ""
    unit = _unit_ns(whole)
    return _in_range(whole * unit + int((fraction + "0" * 9)[:9]) * unit // SECOND, text)


def _from_match(match: re.Match[str], text: str, naive: tzinfo) -> int:
    date, minutes, seconds, fraction, offset = match.groups()
    leap = seconds == "60"
    try:
        moment = datetime.fromisoformat(f"{date.replace('/', '-')}T{minutes}{'59' if leap else seconds}")
    except ValueError as error:
        raise ValueError(f"bad time {text!r}: {error}") from None
    whole = (moment.replace(tzinfo=_zone(offset, text, naive)) - _EPOCH) // timedelta(seconds=1)
    if leap:
        # As in POSIX, a leap second has the number of the next second. Only the end of a UTC day can have one.
        whole += 1
        if whole % 86_400:
            raise ValueError(f"bad time {text!r}: second must be in 0..59")
    return whole * SECOND + int(((fraction or "") + "0" * 9)[:9])


def _zone(offset: str | None, text: str, naive: tzinfo) -> tzinfo:
    if offset is None:
        return naive
    if offset in {"Z", "z", "UTC", "GMT"}:
        return UTC
    hours, minutes = int(offset[1:3]), int(offset[-2:])
    if hours > 23 or minutes > 59:
        raise ValueError(f"bad time {text!r}: no such offset from UTC")
    return timezone(timedelta(hours=hours, minutes=minutes) * (-1 if offset[0] == "-" else 1))


def is_relative(text: str) -> bool:
    """Whether a time is written relative to now, as ``-1h``."""
    return _RELATIVE.fullmatch(text) is not None


def parse_moment(text: str, now_ns: int) -> int:
    """A time as ``parse_time`` takes it, or relative to now: ``now``, ``-1h``, ``now-1h``. Raises ValueError with what is allowed."""
    relative = _RELATIVE.fullmatch(text)
    if relative is None:
        try:
            return parse_time(text)
        except ValueError as error:
            if "out of range" in str(error):
                raise ValueError(_OUT_OF_RANGE) from None
            raise ValueError("is not a time: use RFC 3339, as 2025-07-18T20:42:34Z, or -1h for an hour ago") from None
    ago = relative["ago"]
    try:
        moment = now_ns - (parse_duration(ago) if ago else 0)
    except ValueError:
        raise ValueError(
            "is not a time before now: use now, or a number and a unit, as -30s, -5m, -24h or -7d"
        ) from None
    if moment < INT64_MIN:
        raise ValueError(_OUT_OF_RANGE)
    return moment


def epoch_ns(value: float) -> int:
    """A Unix time in seconds, ms, µs or ns (by magnitude) as nanoseconds. Raises ValueError.

    A float is rounded to the microsecond: a double holds no more of today's times in seconds.
    """
    if not 0 <= value <= INT64_MAX:
        raise ValueError(f"bad time {value!r}: give {_ALLOWED}")
    unit = _unit_ns(value)
    if isinstance(value, int):
        return _in_range(value * unit, value)
    return _in_range(round(value * unit / 1000) * 1000, value)


def format_time(ns: int) -> str:
    """RFC 3339 in UTC with as many fraction digits as needed: ``2025-07-18T20:42:34.5Z``."""
    seconds, fraction = divmod(ns, SECOND)
    text = _second_text(seconds)
    return f"{text}.{fraction:09}".rstrip("0") + "Z" if fraction else text + "Z"


def to_datetime(ns: int) -> datetime:
    """UTC, cut to the microsecond."""
    return _EPOCH + timedelta(microseconds=ns // 1000)


def to_ns(moment: datetime) -> int:
    """Nanoseconds since 1970 UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def parse_duration(text: str) -> int:
    """Numbers with units (500ms, 5s, 24h, 7d, 1h30m) as nanoseconds. Raises ValueError with what is allowed."""
    if _DURATION.fullmatch(text) is None:
        raise ValueError(
            "is not a duration: use a number and a unit, as 500ms, 5s, 10m, 24h or 7d, or several, as 1h30m"
        )
    return sum(
        int(whole + fraction.ljust(9, "0")) * _DURATION_UNITS[unit] // SECOND
        for whole, fraction, unit in _DURATION_PART.findall(text)
    )


def format_duration(ns: int) -> str:
    """A duration in the largest unit without a fraction, at least a millisecond, as ``parse_duration`` reads it."""
    unit = next((name for name, size in reversed(_DURATION_UNITS.items()) if ns % size == 0), "ms")
    return f"{ns // _DURATION_UNITS[unit]}{unit}"


def spell_duration(seconds: float) -> str:
    """A duration for people, cut to its two largest units: ``129d 1h``, ``5m 3s``, ``0s``."""
    rest = int(seconds) * SECOND
    parts = []
    for unit, size in reversed(_DURATION_UNITS.items()):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


# The GPUs of a fleet report in the same seconds.
@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
