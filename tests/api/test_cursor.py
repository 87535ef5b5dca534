"""A cursor is text for URLs; nothing but one that was given out is accepted."""

from __future__ import annotations

import base64

import pytest

from api.cursor import Cursor, encode_cursor, parse_cursor
from stores.base import Position

CURSOR = Cursor(True, Position(1752871354_000_000_001, "GPU-5fd4f087:3", "DCGM_FI_DEV_GPU_UTIL"))


def test_it_comes_back_as_it_was() -> None:
    for cursor in (CURSOR, Cursor(False, Position(-1, "", "µ"))):
        assert parse_cursor(encode_cursor(cursor)) == cursor


def test_it_needs_no_escaping_in_a_url() -> None:
    assert encode_cursor(CURSOR).replace("-", "").replace("_", "").isalnum()


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "%%%",
        "é",
        "=",
        "abc",
        encoded("[]"),
        encoded('[true,1,"a"]'),
        encoded('["true",1,"a","b"]'),
        encoded('[true,1.5,"a","b"]'),
        encoded('[true,99999999999999999999999,"a","b"]'),
        encoded('[true,9223372036854775808,"a","b"]'),
        encoded('[true,1,"a\\u0000","b"]'),
        encoded("null"),
        encode_cursor(CURSOR)[:-3],
        encode_cursor(CURSOR) + "A",
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor"):
        parse_cursor(text)
