"""Links to the neighbouring pages are absolute and keep the other parameters; only cursors that were given out are accepted."""

from __future__ import annotations

import base64
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from django.http import QueryDict
from pytest_django import Settings
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from api.errors import BadRequest
from api.pagination import (
    Cursor,
    Links,
    encode_cursor,
    encode_name,
    encode_place,
    list_links,
    parse_cursor,
    parse_name,
    parse_place,
    read_paging,
    same_with,
)
from api.params import paging_of, read_parameters, several
from inventory.queries import ListPosition
from stores.base import Position


def asked(path: str) -> Request:
    return Request(APIRequestFactory().get(path))


def query_of(url: str | None) -> dict[str, list[str]]:
    assert url is not None
    assert url.startswith("http://testserver/api/v1/gpus")
    return parse_qs(urlsplit(url).query)


def test_a_changed_parameter_keeps_the_others() -> None:
    url = same_with(asked("/api/v1/gpus?hostname=b&hostname=a&page=2"), page=3)
    assert query_of(url) == {"hostname": ["b", "a"], "page": ["3"]}


def test_none_takes_a_parameter_away() -> None:
    assert same_with(asked("/api/v1/gpus?page=2"), page=None) == "http://testserver/api/v1/gpus"


def test_the_path_stays_as_escaped_as_it_was() -> None:
    url = same_with(asked("/api/v1/gpus/a%20b%C3%A9?x=1%2B2"), page=3)
    assert url == "http://testserver/api/v1/gpus/a%20b%C3%A9?x=1%2B2&page=3"


def links_of(path: str, *, more: bool, following: str | None = None, default: int = 10) -> Links:
    request = asked(path)
    values = read_parameters(request.query_params, (*paging_of("all"), several("cursor", "a place")))
    values["cursor"] = values["cursor"] or None
    return list_links(request, read_paging(values, default), more=more, following=following)


def test_pages_in_the_middle_have_both_neighbours() -> None:
    links = links_of("/api/v1/gpus?page=3&page_size=5", more=True)
    assert query_of(links.next) == {"page": ["4"], "page_size": ["5"]}
    assert query_of(links.previous) == {"page": ["2"], "page_size": ["5"]}


def test_first_and_last_page() -> None:
    assert links_of("/api/v1/gpus?page=1", more=False) == (None, None)
    assert links_of("/api/v1/gpus?page=2", more=False).previous == "http://testserver/api/v1/gpus"


def test_offsets() -> None:
    links = links_of("/api/v1/gpus?limit=10&offset=15", more=True)
    assert query_of(links.next) == {"limit": ["10"], "offset": ["25"]}
    assert query_of(links.previous) == {"limit": ["10"], "offset": ["5"]}
    assert links_of("/api/v1/gpus?limit=10&offset=7", more=False) == (None, "http://testserver/api/v1/gpus?limit=10")
    assert links_of("/api/v1/gpus", more=False) == (None, None)
    assert query_of(links_of("/api/v1/gpus", more=True).next) == {"offset": ["10"]}


def test_where_there_are_cursors_they_lead_on_unless_a_page_or_an_offset_was_asked_for() -> None:
    for query in ("", "?limit=3", "?page_size=3", "?cursor=x", "?limit=3&cursor=x"):
        links = links_of(f"/api/v1/gpus{query}", more=True, following="abc")
        assert query_of(links.next)["cursor"] == ["abc"]
        assert links.previous is None
    assert query_of(links_of("/api/v1/gpus?page=1", more=True, following="abc").next) == {"page": ["2"]}
    assert query_of(links_of("/api/v1/gpus?offset=4", more=True, following="abc").next) == {"offset": ["14"]}


def test_rows_on_a_page_are_cut_to_the_maximum(settings: Settings) -> None:
    settings.MAX_PAGE_SIZE = 5
    for query, offset in (("page_size=50&page=3", 10), ("limit=50&offset=7", 7), ("", 0)):
        values = read_parameters(QueryDict(query), paging_of("all"))
        assert read_paging(values, 100)[:2] == (offset, 5)
        uncut = read_paging(values, 100, cut=False)
        assert uncut[:2] == (100 if "page" in query else offset, 50 if query else 100)


@pytest.mark.parametrize(
    ("one", "other"),
    [("page", "limit"), ("page", "offset"), ("page_size", "limit"), ("page_size", "offset"), ("page", "cursor"),
     ("offset", "cursor")],
)  # fmt: skip
def test_there_is_one_way_to_ask_for_a_part_at_a_time(one: str, other: str) -> None:
    with pytest.raises(BadRequest, match=f"{one} and {other} exclude each other: give one of them"):
        links_of(f"/api/v1/gpus?{one}=1&{other}=1", more=True)


CURSOR = Cursor(True, Position(1752871354_000_000_001, "GPU-5fd4f087:3", "DCGM_FI_DEV_GPU_UTIL"))


def test_it_comes_back_as_it_was() -> None:
    for cursor in (CURSOR, Cursor(False, Position(-1, "", "µ"))):
        assert parse_cursor(encode_cursor(cursor)) == cursor


def test_it_needs_no_escaping_in_a_url() -> None:
    assert encode_cursor(CURSOR).replace("-", "").replace("_", "").isalnum()


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (
            parse_cursor,
            [
                "x", "%%%", "é", "=", "abc", encoded("[]"), encoded('[true,1,"a"]'), encoded('["true",1,"a","b"]'),
                encoded('[true,1.5,"a","b"]'), encoded('[true,99999999999999999999999,"a","b"]'),
                encoded('[true,9223372036854775808,"a","b"]'), encoded('[true,1,"a\\u0000","b"]'), encoded("null"),
                encode_cursor(CURSOR)[:-3], encode_cursor(CURSOR) + "A",
            ],
        ),
        (
            parse_place,
            [
                "x", encoded("[]"), encoded('["a",-2,"b"]'), encoded('["a",2147483648,"b"]'),
                encoded('["\\u0000",1,"b"]'), encode_name("a"),
            ],
        ),
        (parse_name, ["x", encoded("[]"), encoded("[1]"), encoded('["\\u0000"]')]),
    ],
)  # fmt: skip
def test_any_other_text_is_refused(parse: Callable[[str], object], texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(ValueError, match="is not a cursor"):
            parse(text)


def test_places_and_names_come_back_too() -> None:
    for place in (ListPosition("", -1, "GPU-1"), ListPosition("hôte", 7, "GPU-2:3")):
        assert parse_place(encode_place(place)) == place
    assert parse_name(encode_name("hôte 1")) == "hôte 1"
