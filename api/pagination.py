"""Cursors, and links from one page of an answer to the next."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from django.conf import settings
from rest_framework.request import Request

from api.converters import LARGEST_KEY
from api.errors import BadRequest
from api.links import absolute
from api.params import is_storable
from health.queries import EventPlace
from inventory.queries import ListPosition
from readings.times import to_datetime, to_ns
from stores.base import Position

_T = TypeVar("_T")
_NO_CURSOR = "is not a cursor: use the one in an answer's next"


class Cursor(NamedTuple):
    """The last row of a page, and the order of the rows."""

    newest_first: bool
    position: Position


class _Plain(NamedTuple):
    newest_first: bool
    time_ns: int
    gpu: str
    metric_name: str


class _Name(NamedTuple):
    name: str


def encode_cursor(cursor: Cursor) -> str:
    """A cursor as text: letters, digits, dashes and underscores."""
    return _encode((cursor.newest_first, *cursor.position))


def parse_cursor(text: str) -> Cursor:
    """Reads a text from ``encode_cursor``. Raises ValueError for any other."""
    plain = _decode(text, _Plain)
    if not -(1 << 63) <= plain.time_ns < 1 << 63 or not is_storable(f"{plain.gpu}{plain.metric_name}"):
        raise ValueError(_NO_CURSOR)
    return Cursor(plain.newest_first, Position(plain.time_ns, plain.gpu, plain.metric_name))


def encode_place(place: ListPosition) -> str:
    """A place in the list of GPUs as text."""
    return _encode(place)


def parse_place(text: str) -> ListPosition:
    """Reads a text from ``encode_place``. Raises ValueError for any other."""
    place = _decode(text, ListPosition)
    if not -1 <= place.slot < 1 << 31 or not is_storable(f"{place.host}{place.id}"):
        raise ValueError(_NO_CURSOR)
    return place


def encode_name(name: str) -> str:
    """A place in a list of names as text."""
    return _encode(_Name(name))


def parse_name(text: str) -> str:
    """Reads a text from ``encode_name``. Raises ValueError for any other."""
    name = _decode(text, _Name).name
    if not is_storable(name):
        raise ValueError(_NO_CURSOR)
    return name


class _PlainEvent(NamedTuple):
    opened_us: int
    id: int


def encode_event(place: EventPlace) -> str:
    """A place in the list of events as text."""
    return _encode(_PlainEvent(to_ns(place.opened) // 1000, place.id))


def parse_event(text: str) -> EventPlace:
    """Reads a text from ``encode_event``. Raises ValueError for any other."""
    plain = _decode(text, _PlainEvent)
    try:
        return EventPlace(to_datetime(plain.opened_us * 1000), _checked_key(plain.id))
    except (ValueError, OverflowError):
        raise ValueError(_NO_CURSOR) from None


def _checked_key(key: int) -> int:
    if not 0 <= key <= LARGEST_KEY:
        raise ValueError(_NO_CURSOR)
    return key


def _encode(plain: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(plain)).decode("ascii").rstrip("=")


def _decode(text: str, type: type[_T]) -> _T:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(data, type=type)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise ValueError(_NO_CURSOR) from None


class Links(NamedTuple):
    """Absolute URLs of the next and the previous page, or None."""

    next: str | None
    previous: str | None


def same_with(request: Request, **changes: object) -> str:
    """The absolute URL of this request with some parameters changed. None removes a parameter."""
    query = request.query_params.copy()
    for name, value in changes.items():
        if value is None:
            query.pop(name, None)
        else:
            query[name] = str(value)
    path = request._request.path
    return absolute(request, f"{path}?{query.urlencode()}" if query else path)


class Paging(NamedTuple):
    """Which rows of a list were asked for: ``size`` of them after ``offset``.

    ``page`` and ``given`` are the page and the number of rows in the question, if it has them; ``by_offset``: it has an offset,
    ``by_page_size``: a page_size.
    """

    offset: int
    size: int
    page: int | None
    given: int | None
    by_offset: bool
    by_page_size: bool


def read_paging(values: Mapping[str, Any], default: int, *, cut: bool = True) -> Paging:
    """The rows that page and page_size, or limit and offset, or a cursor ask for. Raises BadRequest for a mixture.

    With ``cut`` they are at most MAX_PAGE_SIZE.
    """
    page, page_size, limit, offset = (values[name] for name in ("page", "page_size", "limit", "offset"))
    given = [name for name in ("page", "page_size", "limit", "offset", "cursor") if values.get(name) is not None]
    for ours, theirs in (("page", "cursor"), ("offset", "cursor"), *_EXCLUSIVE):
        if ours in given and theirs in given:
            raise BadRequest(f"{ours} and {theirs} exclude each other: give one of them")
    asked = page_size if page_size is not None else limit
    size = default if asked is None else asked
    size = min(size, settings.MAX_PAGE_SIZE) if cut else size
    return Paging(
        offset or ((page or 1) - 1) * size,
        size,
        page,
        asked,
        by_offset=offset is not None,
        by_page_size=page_size is not None,
    )


_EXCLUSIVE = (("page", "limit"), ("page", "offset"), ("page_size", "limit"), ("page_size", "offset"))


def cut_list(request: Request, values: Mapping[str, Any], rows: Sequence[_T]) -> tuple[list[_T], Links]:
    """The part of a whole list that was asked for, by default all of it, and its links. Raises BadRequest."""
    paging = read_paging(values, max(1, len(rows)), cut=False)
    end = paging.offset + paging.size
    return list(rows[paging.offset : end]), list_links(request, paging, more=end < len(rows))


def list_links(request: Request, paging: Paging, *, more: bool, following: str | None = None, **same: str) -> Links:
    """Links of a list, in the way in which it was asked for. ``more`` says whether rows follow.

    Without a way the next page is found by the cursor ``following``, if there is one: it stays right while the list changes,
    but leads forward only. ``same`` are parameters to write differently in the links.
    """
    if paging.page is None and not paging.by_offset and following is not None:
        return Links(next=same_with(request, cursor=following, **same) if more else None, previous=None)
    if paging.page is None and not paging.by_page_size:
        before = max(0, paging.offset - paging.size)
        return Links(
            next=same_with(request, offset=paging.offset + paging.size, **same) if more else None,
            previous=same_with(request, offset=before or None, **same) if paging.offset > 0 else None,
        )
    page = paging.page or 1
    return Links(
        next=same_with(request, page=page + 1, **same) if more else None,
        previous=same_with(request, page=page - 1 if page > 2 else None, **same) if page > 1 else None,
    )
