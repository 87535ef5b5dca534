"""Probes are answered whatever host name and scheme they are asked with."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from stores.base import Store
from tests.api.conftest import Api


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_any_host_name_and_scheme_will_do(api: Api, fleet: Store, settings: Settings, path: str) -> None:
    settings.SECURE_SSL_REDIRECT = True
    response = api.ask(path, host="10.42.0.7:8080")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert int(response["Content-Length"]) == len(response.content)


def test_a_host_name_that_is_none_will_do(api: Api) -> None:
    assert api.ask("/health", host="not a host!").json() == {"status": "healthy"}


def test_everything_else_keeps_its_rules(api: Api, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert api.ask("/api/v1").status_code == 301
    assert api.ask("/api/v1", host="10.42.0.7").status_code == 400


def test_a_probe_is_no_page_and_takes_no_parameters(api: Api, fleet: Store) -> None:
    assert api.ask("/health", accept="text/html,*/*;q=0.1")["Content-Type"] == "application/json"
    assert "'deep'" in api.refused("/ready?deep=1", 400)
