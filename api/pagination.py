"""Cursors, and links from one page of an answer to the next."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple, TypeVar

import msgspec
from rest_framework.request import Request

from inventory.queries import ListPosition
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
    if not -(1 << 63) <= plain.time_ns < 1 << 63 or not f"{plain.gpu}{plain.metric_name}".isprintable():
        raise ValueError(_NO_CURSOR)
    return Cursor(plain.newest_first, Position(plain.time_ns, plain.gpu, plain.metric_name))


def encode_place(place: ListPosition) -> str:
    """A place in the list of GPUs as text."""
    return _encode(place)


def parse_place(text: str) -> ListPosition:
    """Reads a text from ``encode_place``. Raises ValueError for any other."""
    place = _decode(text, ListPosition)
    if not -1 <= place.slot < 1 << 31 or not f"{place.host}{place.id}".isprintable():
        raise ValueError(_NO_CURSOR)
    return place


def encode_name(name: str) -> str:
    """A place in a list of names as text."""
    return _encode(_Name(name))


def parse_name(text: str) -> str:
    """Reads a text from ``encode_name``. Raises ValueError for any other."""
    name = _decode(text, _Name).name
    if not name.isprintable():
        raise ValueError(_NO_CURSOR)
    return name


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
    return request.build_absolute_uri(f"{path}?{query.urlencode()}" if query else path)


def page_links(request: Request, page: int, *, more: bool) -> Links:
    """Links of an answer paged by ``page``. ``more`` says whether rows follow."""
    return Links(
        next=same_with(request, page=page + 1) if more else None,
        previous=same_with(request, page=page - 1 if page > 2 else None) if page > 1 else None,
    )


def list_links(request: Request, page: int | None, following: str | None) -> Links:
    """Links of a list: by page if one was asked for, else by the cursor ``following``, or None when no row follows.

    A cursor stays right while the list changes, but leads forward only.
    """
    if page is not None:
        return page_links(request, page, more=following is not None)
    return Links(next=same_with(request, cursor=following) if following else None, previous=None)


def offset_links(request: Request, offset: int, limit: int, *, more: bool) -> Links:
    """Links of an answer paged by ``offset`` and ``limit``."""
    before = max(0, offset - limit)
    return Links(
        next=same_with(request, offset=offset + limit) if more else None,
        previous=same_with(request, offset=before or None) if offset > 0 else None,
    )
