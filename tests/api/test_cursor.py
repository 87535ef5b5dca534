"""A cursor is text for URLs; nothing but one that was given out is accepted."""

from __future__ import annotations

import base64

import pytest

from api.pagination import Cursor, encode_cursor, encode_name, encode_place, parse_cursor, parse_name, parse_place
from inventory.queries import ListPosition
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


def test_places_and_names_come_back_too() -> None:
    for place in (ListPosition("", -1, "GPU-1"), ListPosition("hôte", 7, "GPU-2:3")):
        assert parse_place(encode_place(place)) == place
    assert parse_name(encode_name("hôte 1")) == "hôte 1"


@pytest.mark.parametrize(
    "text",
    [
        "x",
        encoded("[]"),
        encoded('["a",-2,"b"]'),
        encoded('["a",2147483648,"b"]'),
        encoded('["\\u0000",1,"b"]'),
        encode_name("a"),
    ],
)
def test_any_other_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor"):
        parse_place(text)


@pytest.mark.parametrize("text", ["x", encoded("[]"), encoded("[1]"), encoded('["\\u0000"]')])
def test_any_other_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor"):
        parse_name(text)
