"""The index, the documentation pages and /metrics."""

from __future__ import annotations

import re

import pytest

from stores.base import Store
from tests.api.conftest import Api


def test_the_index_links_to_everything(api: Api, fleet: Store) -> None:
    links = api.get("/api/v1")
    assert links["gpus"] == "http://testserver/api/v1/gpus"
    for url in links.values():
        assert api.ask(url).status_code == 200, url


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/swagger", "/swagger/index.html"),
        ("/swagger/", "/swagger/index.html"),
        ("/api", "/api/v1"),
    ],
)
def test_short_addresses_lead_on(api: Api, path: str, target: str) -> None:
    response = api.ask(path)
    assert (response.status_code, response["Location"]) == (302, target)


@pytest.mark.parametrize("path", ["/swagger/index.html", "/swagger/index.html?script=", "/redoc"])
def test_documentation_names_no_other_server(api: Api, path: str) -> None:
    response = api.ask(path)
    assert response.status_code == 200
    assert not re.search(rb"(?:src|href)=\"(?:https?:)?//", response.content)
    assert "http" not in response["Content-Security-Policy"]
    assert b"/api/schema" in response.content or b"?script=" in response.content


def test_swagger_asks_no_validator(api: Api) -> None:
    assert b'"validatorUrl": null' in api.ask("/swagger/index.html?script=").content


def test_metrics_are_in_the_prometheus_format(api: Api, fleet: Store) -> None:
    response = api.ask("/metrics")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    assert b"gpu_telemetry_hosts 2.0" in response.content


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html,*/*;q=0.8"])
def test_the_description_is_also_where_other_generators_put_it(api: Api, accept: str) -> None:
    described = api.ask("/swagger/doc.json", Accept=accept)
    assert described.status_code == 200
    assert described.json() == api.ask("/api/schema?format=json").json()


def test_the_login_page_does_not_link_to_itself(api: Api, db: None) -> None:
    assert b"Log in</a>" not in api.ask("/login", Accept="text/html").content
    assert b'href="/login?next=/api/v1/metrics">Log in</a>' in api.ask("/api/v1/metrics", Accept="text/html").content
