"""api.converters: names in paths."""

from __future__ import annotations

import pytest
from django.urls import resolve, reverse


@pytest.mark.parametrize("name", ["host-1", "a/b", "two words", "100%", "<b>", "ü\n", "a:b@c~d"])
def test_a_name_may_have_any_character(name: str) -> None:
    assert reverse("host", kwargs={"name": name}).startswith("/api/v1/hosts/")
    assert resolve(f"/api/v1/hosts/{name}").kwargs == {"name": name}
