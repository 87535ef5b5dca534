"""The cursor of a page of telemetry: where the last row stood, as text that is safe in a URL."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import msgspec

from stores.base import Position


class Cursor(NamedTuple):
    """The last row of a page, and the order it was read in."""

    newest_first: bool
    position: Position


_Plain = tuple[bool, int, str, str]


def encode_cursor(cursor: Cursor) -> str:
    """Text of letters, digits, dashes and underscores."""
    plain: _Plain = (cursor.newest_first, *cursor.position)
    return base64.urlsafe_b64encode(msgspec.json.encode(plain)).decode("ascii").rstrip("=")


def parse_cursor(text: str) -> Cursor:
    """The cursor that ``encode_cursor`` wrote. Raises ValueError for any other text."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        newest_first, time_ns, gpu, metric_name = msgspec.json.decode(data, type=_Plain)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise ValueError("is not a cursor: use the one in an answer's next") from None
    if not -(1 << 63) <= time_ns < 1 << 63 or not f"{gpu}{metric_name}".isprintable():
        raise ValueError("is not a cursor: use the one in an answer's next")
    return Cursor(newest_first, Position(time_ns, gpu, metric_name))
