"""dashboard.views.item: names that nothing has."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.test import Client

from dashboard.views import host
from tests.inventory.building import UTIL, block, gpu, save

pytestmark = pytest.mark.django_db


def test_the_page_of_an_unknown_name_has_the_menu_and_the_search(client: Client) -> None:
    response = client.get("/hosts/nowhere")
    body = response.content.decode()
    assert response.status_code == 404
    assert "<title>No host nowhere · GPU telemetry</title>" in body
    for landmark in ("<nav", 'id="search"', "<footer"):
        assert landmark in body


def test_a_page_answers_while_the_database_is_away(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))

    def away(*_: object) -> None:
        raise OperationalError("no such host")

    monkeypatch.setattr(host, "slot_rows", away)
    response = client.get("/hosts/host-1")
    assert response.status_code == 200
    assert "The inventory database does not answer" in response.content.decode()


def test_candidates_say_where_they_are(client: Client) -> None:
    save(block(gpu("GPU-5fd4aaaa"), 0, {UTIL: 1.0}), block(gpu("GPU-5fd4bbbb", hostname="host-2"), 0, {UTIL: 1.0}))
    response = client.get("/gpus/5fd4")
    assert response.status_code == 300
    assert "</a> on host-2, gpu 0" in response.content.decode()
