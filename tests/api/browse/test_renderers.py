"""JSON for programs, a page for people, from one address."""

from __future__ import annotations

import html
import json
import re
import shlex
from html import unescape
from urllib.parse import urlencode

import pytest
from pytest_django import Settings

from api.browse.renderers import JsonRenderer
from readings.model import Gpu
from stores.base import Store
from tests.api.conftest import T0, UTIL, Api, block_of, save

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
    assert "curl 'http://testserver/api/v1/gpus?page_size=1'" in unescape(page)
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


@pytest.mark.parametrize("search", ["a'$(touch x)'b", "`x`", '";x;"', "a&b|c>d"])
def test_the_command_for_programs_can_be_pasted_into_a_shell(api: Api, fleet: Store, search: str) -> None:
    path = f"/api/v1/gpus?{urlencode({'search': search}, safe=chr(39))}"
    page = unescape(api.ask(path, accept=BROWSER).content.decode())
    (command,) = re.findall("<pre>(.*)</pre>", page)
    assert shlex.split(command) == ["curl", f"http://testserver{path}"]


def test_the_file_that_a_page_links_to_is_safe_in_a_spreadsheet(api: Api, fleet: Store) -> None:
    page = unescape(api.ask(f"/api/v1/telemetry?metric_name={UTIL}", accept=BROWSER).content.decode())
    (url,) = re.findall('href="([^"]*format=csv[^"]*)"', page)
    response = api.ask(url)
    text = b"".join(response.streaming_content)
    assert text.startswith(b"\xef\xbb\xbftimestamp,")
    assert text.decode("utf-8-sig").startswith("timestamp,metric_name")
    assert "csv_safe=true" in url
    (other,) = re.findall('href="([^"]*format=ndjson[^"]*)"', page)
    assert "csv_safe" not in other


@pytest.mark.parametrize("text", ["http://[evil", "https://evil.example/x", "http://", "javascript:alert(1)", "//evil"])
def test_no_text_that_was_stored_becomes_a_link(api: Api, store: Store, db: None, text: str) -> None:
    stored = Gpu(
        uuid="GPU-x", hostname="host-x", gpu_id=0, device=text[:60], model_name=text, namespace=text, pod=text,
        container=text, labels={"telemetry_url": text, "uuid": text, "hostname": text, "gpus": text},
    )  # fmt: skip
    save(store, block_of([stored], [(0, T0, [1.0, 2.0, 3.0])]))
    for path in ("/api/v1/gpus", "/api/v1/gpus/GPU-x", "/api/v1/hosts/host-x", "/api/v1/telemetry",
                 f"/api/v1/query?metric={UTIL}&by=pod", f"/api/v1/query?metric={UTIL}&by=model&start_time=2025-07-18T20:00:00Z&end_time=now&every=30d"):  # fmt: skip
        response = api.ask(path, accept=BROWSER)
        assert response.status_code == 200, path
        page = unescape(response.content.decode())
        links = re.findall('href="([^"]*)"', page)
        assert not [
            link for link in links if text in link.partition("?")[0] and not link.startswith("http://testserver/")
        ], path
        assert all(link.startswith(("/", "#", "http://testserver/")) and not link.startswith("//") for link in links), (
            path
        )


def test_links_begin_with_the_public_address(api: Api, fleet: Store, settings: Settings) -> None:
    settings.PUBLIC_URL = "http://gpus.example.com:8443"
    assert api.get("/api/v1")["gpus"] == "http://gpus.example.com:8443/api/v1/gpus"
    body = api.get("/api/v1/gpus?page_size=1")
    assert body["next"].startswith("http://gpus.example.com:8443/api/v1/gpus?page_size=1&cursor=")
    assert body["gpus"][0]["url"] == "http://gpus.example.com:8443/api/v1/gpus/GPU-a0"
    assert api.get("/api/v1/hosts/host-a")["url"] == "http://gpus.example.com:8443/api/v1/hosts/host-a"
    page = unescape(api.ask("/api/v1/gpus?page_size=1", accept=BROWSER).content.decode())
    assert "curl 'http://gpus.example.com:8443/api/v1/gpus?page_size=1'" in page
    assert "testserver" not in page
