"""A session's cookie is anybody's to write."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from api.auth.sessions import SessionStore
from stores.base import Store


@pytest.mark.parametrize("path", ["/api/v1/gpus", "/admin/", "/login"])
@pytest.mark.parametrize(
    "cookie", ['"abc\\000defghi"', "x" * 4000, "'; DROP TABLE", "é" * 20, "", "short", '"\\377\\376abcdefgh"']
)
def test_a_cookie_that_is_no_key_is_nobody_s(fleet: Store, path: str, cookie: str) -> None:
    headers = {"cookie": f"sessionid={cookie}", "accept": "text/html"}
    response = Client(raise_request_exception=False).get(path, headers=headers)
    assert response.status_code == (302 if path == "/admin/" else 200)


def test_a_key_that_was_given_is_one(db: None) -> None:
    client = Client()
    client.force_login(User.objects.create_user("ada"))
    key = client.cookies["sessionid"].value
    assert SessionStore(key).session_key == key
    assert SessionStore(f"{key}\0").session_key is None
    assert client.get("/login").status_code == 302
