"""dashboard.views.page: what all pages have in common."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from dashboard.views import page
from inventory.sync.memory import save_sightings
from inventory.sync.sightings import Origin, Sightings
from readings.times import SECOND
from tests.inventory.building import T0, UTIL, block, gpu, save

pytestmark = pytest.mark.django_db


def page_data(body: str) -> dict[str, Any]:
    match = re.search(r'<script id="page-data" type="application/json">(.*?)</script>', body, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


def test_no_inline_script_or_style_and_a_strict_policy(client: Client) -> None:
    response = client.get("/")
    body = response.content.decode()
    assert response.status_code == 200
    assert "unsafe" not in response["Content-Security-Policy"]
    assert " style=" not in body
    assert "<style" not in body
    scripts = re.findall(r"<script\b([^>]*)>", body)
    assert scripts
    assert all("src=" in each or 'type="application/json"' in each for each in scripts)
    assert not re.search(r"\son[a-z]+=", body)


def test_a_page_has_one_heading_and_its_landmarks(client: Client) -> None:
    body = client.get("/").content.decode()
    assert body.count("<h1") == 1
    for landmark in ("<header", "<nav", "<main", "<footer", 'class="skip"'):
        assert landmark in body


def test_a_capture_of_long_ago_ends_the_range(client: Client) -> None:
    save(block(gpu(), 0, {UTIL: 10.0}))
    data = page_data(client.get("/").content.decode())
    assert data["anchor"] == (T0 + SECOND) // 1_000_000


def test_without_readings_the_range_ends_now(client: Client) -> None:
    assert page_data(client.get("/").content.decode())["anchor"] is None


def test_a_page_answers_while_the_database_is_away(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise OperationalError("no such host")

    monkeypatch.setattr(page, "fleet_now", away)
    response = client.get("/")
    assert response.status_code == 200
    assert "The inventory database does not answer" in response.content.decode()


def test_only_reading_is_allowed(client: Client) -> None:
    assert client.post("/").status_code == 405


def test_a_live_fleet_that_fell_silent_does_not_move_the_range(client: Client) -> None:
    sightings = Sightings()
    sightings.add(block(gpu(), 0, {UTIL: 10.0}), Origin("streamer-1", live=True))
    save_sightings(sightings)
    assert page_data(client.get("/").content.decode())["anchor"] is None


@pytest.mark.parametrize(
    ("text", "number"), [("", 1), ("0", 1), ("2", 2), ("3", 2), ("-1", 1), ("2.0", 1), ("9" * 5000, 2), ("x", 1)]
)
def test_any_page_number_leads_to_a_page(text: str, number: int) -> None:
    assert page.page_number(text, 2) == number


@pytest.mark.parametrize("path", ["/hosts", "/pipeline"])
def test_a_page_number_of_any_length_is_answered(client: Client, path: str) -> None:
    assert client.get(path, {"page": "9" * 5000}).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/hosts/"])
def test_an_unknown_path_is_not_found_in_the_looks_of_the_pages(client: Client, path: str) -> None:
    response = client.get(path, headers={"Accept": "text/html"})
    body = response.content.decode()
    assert response.status_code == 404
    assert "There is no such page" in body
    assert "dashboard/css/dashboard" in body
    assert "unsafe" not in response["Content-Security-Policy"]
