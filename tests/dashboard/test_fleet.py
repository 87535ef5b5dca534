"""dashboard.views.fleet: the first page."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


def test_the_first_page_is_the_fleet(client: Client) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert "<title>Fleet · GPU telemetry</title>" in response.content.decode()
