"""Links to the neighbouring pages are absolute and keep the other parameters."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from api.pagination import offset_links, page_links, same_with


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


def test_pages_in_the_middle_have_both_neighbours() -> None:
    links = page_links(asked("/api/v1/gpus?page=3&page_size=5"), 3, more=True)
    assert query_of(links.next) == {"page": ["4"], "page_size": ["5"]}
    assert query_of(links.previous) == {"page": ["2"], "page_size": ["5"]}


def test_first_and_last_page() -> None:
    assert page_links(asked("/api/v1/gpus"), 1, more=False) == (None, None)
    assert page_links(asked("/api/v1/gpus?page=2"), 2, more=False).previous == "http://testserver/api/v1/gpus"


def test_offsets() -> None:
    request = asked("/api/v1/gpus?limit=10&offset=15")
    links = offset_links(request, 15, 10, more=True)
    assert query_of(links.next) == {"limit": ["10"], "offset": ["25"]}
    assert query_of(links.previous) == {"limit": ["10"], "offset": ["5"]}
    assert offset_links(request, 7, 10, more=False) == (None, "http://testserver/api/v1/gpus?limit=10")
    assert offset_links(asked("/api/v1/gpus"), 0, 10, more=False) == (None, None)
