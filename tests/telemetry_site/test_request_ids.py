from __future__ import annotations

import re

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "given", ["abc-1", "A:b/c+d=e@f._-", "x" * 128, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]
)
def test_a_sane_id_is_taken_over(given: str, client: Client) -> None:
    assert client.get("/health", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\tb", "ä", "-x", "<script>", '"'])
def test_any_other_is_replaced_by_a_new_one(given: str, client: Client) -> None:
    first, second = (client.get("/health", headers={"X-Request-ID": given}).headers["X-Request-ID"] for _ in range(2))
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert first != second


@pytest.mark.parametrize(
    "path", ["/api/v1/gpus", "/api/v1/gpus/none", "/api/nothing", "/metrics", "/swagger/index.html", "/ready"]
)
def test_every_answer_has_one(path: str, client: Client) -> None:
    assert client.get(path).headers["X-Request-ID"]
