"""Whatever is put into a question, the answer is a 200 or a 4xx in the API's shape, never a fault of ours."""

from __future__ import annotations

import base64
import json
import random
from urllib.parse import quote

import pytest
from django.test import Client
from pytest_django import Settings

from api.params import Parameter
from stores.base import Store
from tests.api.auth.test_middleware import all_paths, finished
from tests.api.conftest import Api
from tests.api.views.test_base import views

NASTY = [
    "\0",
    "a\0b",
    "\n",
    "\ud7ff",
    "\ufffd",
    "😀" * 100,
    "x" * 600,
    "'; DROP TABLE reading; --",
    '" OR 1=1 --',
    "%",
    "_",
    "\\",
    "../../etc/passwd",
    "{{7*7}}",
    "-0",
    "+1",
    "1e9",
    "1_000",
    "0x10",
    "nan",
    "inf",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "9" * 40,
    "9" * 500,
    "1970-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "2025-07-18T20:42:34+99:99",
    "2262-04-11T23:47:16.854775807Z",
    "1677-09-21T00:12:43.145224192Z",
    "W10",
    "null",
    "true",
    "[]",
]
PATHS = {
    "/api/v1/gpus": "GpuListView",
    "/api/v1/gpus/GPU-a0/telemetry": "GpuTelemetryView",
    "/api/v1/telemetry": "TelemetryView",
    "/api/v1/query": "QueryView",
    "/api/v1/hosts": "HostListView",
    "/api/v1/events": "EventListView",
    "/api/v1/events/summary": "EventSummaryView",
    "/api/v1/mutes": "MuteListView",
    "/api/v1/usage": "UsageView",
}


def parameters_of(view: str) -> tuple[Parameter, ...]:
    return next(each.parameters for each in views() if each.__name__ == view)


def check(api: Api, url: str) -> None:
    for accept in ("*/*", "text/html"):
        response = api.ask(url, accept=accept)
        assert response.status_code in {200, 400, 404}, (url, response.status_code)
        if accept == "*/*" and response.status_code != 200:
            assert set(response.json()) == {"error", "message"}


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_parameter_survives_every_nasty_value(api: Api, fleet: Store, path: str) -> None:
    for parameter in parameters_of(PATHS[path]):
        for value in NASTY:
            needed = "" if parameter.name == "metric" or "query" not in path else "metric=DCGM_FI_DEV_GPU_UTIL&"
            check(api, f"{path}?{needed}{parameter.name}={quote(value)}")


@pytest.mark.parametrize(
    "path", ["/api/v1/gpus/{}", "/api/v1/gpus/{}/telemetry", "/api/v1/hosts/{}", "/api/v1/events/{}"]
)
def test_every_path_survives_every_nasty_value(api: Api, fleet: Store, path: str) -> None:
    for value in NASTY:
        check(api, path.format(quote(value, safe="")))


CURSORS: list[object] = [
    [0, 0],
    [-(1 << 63), 1],
    [1 << 63, 1],
    [10**300, 1],
    [0, -1],
    [0, 1 << 63],
    [0, 10**300],
    [0, 1, 2],
    ["\ud800", 1],
    {},
    None,
    [[[[[]]]]],
]


@pytest.mark.parametrize("cursor", CURSORS, ids=repr)
def test_made_up_cursors_of_events_are_refused_or_lead_to_a_page(api: Api, fleet: Store, cursor: object) -> None:
    text = base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode().rstrip("=")
    check(api, f"/api/v1/events?cursor={text}")


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/mutes"])
@pytest.mark.parametrize(
    "query", ["page=1000000000000&page_size=1000000000000", "limit=1000000000000&offset=1000000000000"]
)
def test_pages_far_beyond_the_end_are_empty(api: Api, fleet: Store, path: str, query: str) -> None:
    response = api.ask(f"{path}?{query}")
    assert response.status_code in {200, 400}
    assert response.json().get("data", []) == []


@pytest.mark.parametrize("name", ["rule", "hostname", "uuid", "tag"])
def test_filters_of_events_are_bounded_in_number_and_length(api: Api, fleet: Store, name: str) -> None:
    value = "a=" + "😀" * 200 if name == "tag" else "😀" * 500
    for count in (1, 100, 101, 1000):
        response = api.ask(
            "/api/v1/events?" + "&".join(f"{name}={quote(f'{value}{number}')}" for number in range(count))
        )
        assert response.status_code == (400 if count > 100 or name == "tag" else 200), response.content[:200]


def test_random_questions(api: Api, fleet: Store) -> None:
    rng = random.Random(20250718)
    alphabet = [chr(code) for code in range(1, 0x250)] + ["\U0001f600", "\u2028", "%"]
    for _ in range(300):
        path = rng.choice(sorted(PATHS))
        names = [parameter.name for parameter in parameters_of(PATHS[path])]
        pairs = []
        for _ in range(rng.randint(1, 4)):
            length = rng.randint(0, 12)
            value = rng.choice(NASTY) if rng.random() < 0.3 else "".join(rng.choice(alphabet) for _ in range(length))
            pairs.append(f"{rng.choice(names)}={quote(value)}")
        check(api, f"{path}?{'&'.join(pairs)}")
    check(api, "/api/v1/gpus?%ff=%ff&=&&a")


METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW")


@pytest.mark.parametrize("accept", ["*/*", "text/html", "application/xml", "rubbish", "a/b;q=2, */*;q=x"])
def test_every_address_survives_every_method(fleet: Store, settings: Settings, accept: str) -> None:
    settings.LOGIN_RATE = None
    client = Client(raise_request_exception=False)
    for path in [
        *all_paths(),
        "/admin/",
        "/admin/login/",
        "/admin/nothing",
        "/static/nothing",
        "/nothing",
        "/api//",
        "//",
    ]:
        for method in METHODS:
            response = client.generic(
                method, path, b"{bad", content_type="application/json", headers={"accept": accept}
            )
            where = (path, method, finished(response))
            assert response.status_code < 500, where
            if response.status_code == 405:
                assert {"GET", "POST"} & {*response["Allow"].split(", ")}, where
            kind = response.get("Content-Type", "")
            if response.status_code >= 400 and method != "HEAD" and not kind.startswith("text/html"):
                assert set(response.json()) == {"error", "message"}, where
            if response.status_code >= 400 and path.startswith("/api/") and accept != "text/html":
                assert kind == "application/json", where
