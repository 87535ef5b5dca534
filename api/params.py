"""Query parameters. One table per view parses and documents them; unknown parameters are refused."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.http import QueryDict

from api.errors import BadRequest
from readings.times import (
    DURATION_PATTERN,
    INT64_MAX,
    SECOND,
    format_duration,
    format_time,
    is_relative,
    parse_duration,
    parse_moment,
    to_ns,
)
from telemetry_site.env import one_of, whole_number

# Also in the schema.
RELATIVE_TIME = rf"^(now|(now)?-{DURATION_PATTERN})$"
UNIX_TIME = r"^[0-9]{1,19}(\.[0-9]{0,30})?$"
# A "+02:00" that was not percent-encoded arrives as " 02:00".
_LOST_PLUS = re.compile(r"(?<=\d\d:\d\d)((?::\d\d(?:\.\d+)?)?) (?=\d\d:?\d\d$)", re.ASCII)


def format_datetime(moment: datetime) -> str:
    """RFC 3339 in UTC, with as many fraction digits as needed."""
    return format_time(to_ns(moment))


def age_seconds(then_ns: int) -> float:
    """Seconds since then, to the millisecond."""
    return round((time.time_ns() - then_ns) / SECOND, 3)


def time_ns(text: str) -> int:
    """A time as nanoseconds since 1970 UTC: RFC 3339, Unix time, or relative to now (``now``, ``-1h``, ``now-1h``).

    Raises ValueError saying what is allowed.
    """
    return parse_moment(_LOST_PLUS.sub(r"\1+", text), time.time_ns())


EXPORT_FORMATS = ("csv", "ndjson", "parquet")
MAX_VALUE_LENGTH = 512
MAX_VALUES = 100
MOST_ROWS = 10**12
# Any text but control characters.
TEXT_SCHEMA: Mapping[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_VALUE_LENGTH,
    "pattern": r"^[^\x00-\x1f\x7f-\x9f]*$",
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_STORABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether a name in a database may be this text. Control characters and halves of characters never are."""
    return _NOT_STORABLE.search(text) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One query parameter. ``parse`` raises ValueError saying what is allowed; ``schema`` is the OpenAPI type.

    With ``many`` it may be given several times; with ``required`` it must be given. When it is left out, its value is
    ``default``, or an empty tuple with ``many``.
    """

    name: str
    help: str
    parse: Callable[[str], Any]
    schema: Mapping[str, Any] = field(default_factory=lambda: TEXT_SCHEMA)
    default: Any = None
    many: bool = False
    required: bool = False


def read_parameters(query: QueryDict, known: Sequence[Parameter]) -> dict[str, Any]:
    """The value of every known parameter, by name. Raises BadRequest naming the wrong one."""
    names = [parameter.name for parameter in known]
    for name in query:
        if name not in names:
            allowed = f"known here: {', '.join(names)}" if names else "there are none here"
            raise BadRequest(f"{_shown(name)} is not a known parameter; {allowed}")
    return {parameter.name: _read(query.getlist(parameter.name), parameter) for parameter in known}


def _read(texts: Sequence[str], parameter: Parameter) -> Any:
    name = parameter.name
    if len(texts) > (MAX_VALUES if parameter.many else 1):
        times = f"at most {MAX_VALUES} times" if parameter.many else "once"
        raise BadRequest(f"{name} is given {len(texts)} times: give it {times}")
    if parameter.required and not texts:
        raise BadRequest(f"{name} is missing: {parameter.help}")
    values = []
    for given in texts:
        if not given:
            raise BadRequest(f"{name} is empty: give it a value or leave it out")
        if len(given) > MAX_VALUE_LENGTH:
            raise BadRequest(f"{name} is too long: use at most {MAX_VALUE_LENGTH} characters")
        if _CONTROL.search(given):
            raise BadRequest(f"{name} {_shown(given)} holds control characters")
        try:
            values.append(parameter.parse(given))
        except ValueError as error:
            raise BadRequest(f"{name} {_shown(given)} {error}") from None
    if parameter.many:
        return tuple(values)
    return values[0] if values else parameter.default


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


def row_count(value: str) -> int:
    """A number of rows, from 1."""
    return whole_number(1, MOST_ROWS)(value)


def duration_ns(minimum: int, maximum: int) -> Callable[[str], int]:
    """A duration between two bounds, both allowed, in nanoseconds."""

    def parse(value: str) -> int:
        duration = parse_duration(value)
        if not minimum <= duration <= maximum:
            raise ValueError(f"is out of range: use {format_duration(minimum)} to {format_duration(maximum)}")
        return duration

    return parse


def read_range(values: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The range [start, end) that start_time, end_time (inclusive) and end_before (exclusive) ask for, in nanoseconds.

    Raises BadRequest if nothing can be in it.
    """
    start, last, before = (values[name] for name in ("start_time", "end_time", "end_before"))
    if last is not None and before is not None:
        raise BadRequest("end_time and end_before exclude each other: give one of them")
    if start is not None and last is not None and last < start:
        raise BadRequest("end_time must not be earlier than start_time")
    if start is not None and before is not None and before <= start:
        raise BadRequest("end_before must be later than start_time")
    # Nothing is later than the last time there is.
    return start, before if last is None else last + 1 if last < INT64_MAX else None


def fixed_times(query: QueryDict, values: Mapping[str, Any]) -> dict[str, str]:
    """The times of a question that were told relative to now, as they are now: links to other pages must not move on."""
    return {
        name: format_time(values[name])
        for name in ("start_time", "end_time", "end_before")
        if (text := query.get(name)) is not None and is_relative(text)
    }


def flag(name: str, help: str) -> Parameter:
    """true or false; false when it is left out."""
    return Parameter(
        name=name,
        help=help,
        parse=lambda value: one_of("true", "false")(value) == "true",
        schema={"type": "string", "enum": ["true", "false"], "default": "false"},
        default=False,
    )


def choice(name: str, help: str, *allowed: str, default: str | None = None) -> Parameter:
    """One of a few words."""
    schema = {"type": "string", "enum": list(allowed)} | ({"default": default} if default else {})
    return Parameter(name=name, help=help, parse=one_of(*allowed), schema=schema, default=default)


def number(name: str, help: str, minimum: int, maximum: int, default: int | None = None) -> Parameter:
    """A whole number between two bounds, both allowed."""
    schema = {"type": "integer", "minimum": minimum, "maximum": maximum}
    return Parameter(
        name=name,
        help=help,
        parse=whole_number(minimum, maximum),
        schema=schema | ({} if default is None else {"default": default}),
        default=default,
    )


def several(name: str, help: str, parse: Callable[[str], Any] = str, **schema: Any) -> Parameter:
    """A filter that may be given several times. A row matches if any of the values does."""
    return Parameter(
        name=name,
        help=f"{help}; may be given several times",
        parse=parse,
        schema={"type": "array", "items": schema or TEXT_SCHEMA, "maxItems": MAX_VALUES},
        many=True,
    )


def cursor_of(kind: str, parse: Callable[[str], Any]) -> Parameter:
    """Where to continue in a list of this kind. ``parse`` reads the cursor."""
    return Parameter(
        name="cursor",
        help="where to continue, from next; keep the other parameters unchanged",
        parse=parse,
        schema={"type": "string", "format": f"{kind}-cursor", "minLength": 1, "maxLength": MAX_VALUE_LENGTH},
    )


def format_of(names: Sequence[str]) -> Parameter:
    """The parameter that chooses the format of an answer."""
    exports = [name for name in names if name in EXPORT_FORMATS]
    help = "json, or html for the page that browsers get"
    if exports:
        help += f"; {', '.join(exports[:-1])} or {exports[-1]}: all rows, streamed as a file"
    return Parameter(
        name="format",
        help=help,
        parse=one_of(*names) if len(names) > 1 else one_of(*names, "json"),
        schema={"type": "string", "enum": list(names)},
    )


PAGE = number(
    "page", "which page, from 1; if the list changes while you page, follow next, which uses a cursor", 1, 1_000_000_000
)
_ROWS_SCHEMA = {"type": "integer", "minimum": 1, "maximum": MOST_ROWS}
_FILES = " For csv, ndjson and parquet: all rows unless it is given, and any number is allowed"
OFFSET = number("offset", "rows to skip at the start, instead of page", 0, 1_000_000_000)


def paging_of(default: str, *, exports: bool = False) -> tuple[Parameter, ...]:
    """The parameters that choose a part of a list (see api.pagination.read_paging). ``default``: how many rows it has."""
    size = f"rows on a page; default: {default}; cut to the service's MAX_PAGE_SIZE.{_FILES if exports else ''}".rstrip(
        "."
    )
    return (
        PAGE,
        Parameter(name="page_size", help=size, parse=row_count, schema=_ROWS_SCHEMA),
        Parameter(
            name="limit", help="the same as page_size, for use with offset", parse=row_count, schema=_ROWS_SCHEMA
        ),
        OFFSET,
    )


TIME_SCHEMA: Mapping[str, Any] = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": RELATIVE_TIME},
        {"type": "string", "pattern": UNIX_TIME},
    ],
    "example": "-1h",
}
START_TIME = Parameter(
    name="start_time",
    help="only readings at or after this time (RFC 3339, or -1h for an hour ago); default: no lower bound",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
END_TIME = Parameter(
    name="end_time",
    help="only readings at or before this time (RFC 3339, or -5m for five minutes ago)",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
END_BEFORE = Parameter(
    name="end_before",
    help="only readings before this time, in place of end_time: for ranges that follow each other without overlap",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
ORDER = choice("order", "desc: newest first; asc: oldest first", "desc", "asc", default="desc")
