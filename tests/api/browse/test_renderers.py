"""JSON for programs, a page for people, from one address."""

from __future__ import annotations

import html
import json
import re

import pytest

from api.browse.renderers import JsonRenderer
from stores.base import Store
from tests.api.conftest import Api

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_json_is_compact_utf8() -> None:
    assert JsonRenderer().render({"unit": "°C", "value": 0.1, "none": None}) == (
        '{"unit":"°C","value":0.1,"none":null}'.encode()
    )
    assert JsonRenderer().render(None) == b""


def test_json_is_indented_on_request(api: Api, fleet: Store) -> None:
    response = api.ask("/api/v1/gpus/GPU-a0/metrics", accept="application/json; indent=2")
    assert b'\n  "data"' in response.content
    assert json.loads(response.content)["count"] == 3


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_programs_get_json(api: Api, fleet: Store, accept: str) -> None:
    response = api.ask("/api/v1/gpus", accept=accept) if accept else api.ask("/api/v1/gpus")
    assert response["Content-Type"] == "application/json"
    assert "Accept" in response["Vary"]


def test_format_overrides_the_header(api: Api, fleet: Store) -> None:
    assert api.ask("/api/v1/gpus?format=json", accept=BROWSER)["Content-Type"] == "application/json"
    assert api.ask("/api/v1/gpus?format=html")["Content-Type"].startswith("text/html")
    export = api.ask("/api/v1/telemetry?format=csv", accept="application/json")
    export.close()
    assert export["Content-Type"] == "text/csv"
    assert api.ask("/api/v1/telemetry?format=json", accept="text/csv")["Content-Type"] == "application/json"


def test_a_list_links_to_its_items(api: Api, fleet: Store) -> None:
    page = api.ask("/api/v1/gpus?page_size=1", accept=BROWSER).content.decode()
    assert '<a href="http://testserver/api/v1/gpus/GPU-a0"' in page
    assert 'href="http://testserver/api/v1/gpus?page_size=1&amp;cursor=' in page
    assert 'href="/api/v1">GPU telemetry</a>' in page
    assert "curl 'http://testserver/api/v1/gpus?page_size=1'" in page
    assert 'href="http://testserver/api/v1/gpus?page_size=1&amp;format=json"' in page


def test_the_parameters_are_a_form_that_shows_what_is_asked(api: Api, fleet: Store) -> None:
    page = api.ask("/api/v1/gpus?hostname=host-a&state=stale&page=1", accept=BROWSER).content.decode()
    assert 'name="hostname" value="host-a"' in page
    assert '<option value="stale" selected>stale</option>' in page
    assert "hostname = host-a" in page
    assert page.count('name="hostname"') == 2  # and room for one more
    assert 'name="page" value=""' in page  # a changed filter begins at the start
    for field in re.findall(r"<(?:input|select) [^>]*>", page):
        name = re.search(r'id="([^"]+)"', field)
        assert 'aria-label="' in field or (name and f'<label for="{name[1]}">' in page), field


def test_a_page_without_parameters_has_no_form(api: Api, fleet: Store) -> None:
    assert "<form" not in api.ask("/api/v1/gpus/GPU-a0", accept=BROWSER).content.decode()


def test_an_error_is_a_page_too(api: Api, fleet: Store) -> None:
    response = api.ask("/api/v1/gpus?hostnam=x", accept=BROWSER)
    assert response.status_code == 400
    assert "'hostnam' is not a known parameter" in html.unescape(response.content.decode())


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1",
        "/api/v1/gpus",
        "/api/v1/gpus/GPU-a0",
        "/api/v1/gpus/GPU-a0/telemetry",
        "/api/v1/gpus/GPU-a0/metrics",
        "/api/v1/telemetry",
        "/api/v1/hosts",
        "/api/v1/hosts/host-a",
        "/api/v1/metrics",
        "/api/v1/stats",
        "/api/v1/telemetry?page_size=2&hostname=host-a&hostname=host-b",
    ],
)
def test_every_address_is_a_page_in_a_browser(api: Api, fleet: Store, path: str) -> None:
    response = api.ask(path, accept=BROWSER)
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/html")
    assert b"GPU telemetry" in response.content


def test_what_is_asked_is_escaped(api: Api, fleet: Store) -> None:
    page = api.ask("/api/v1/gpus?search=%3Cscript%3Ealert(1)%3C/script%3E%22", accept=BROWSER).content.decode()
    assert "<script>alert" not in page
