"""Tokens in the admin: made, shown this once, revoked."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from api.auth.tokens import TokenRefused, find_token, make_token
from api.models import ApiToken

pytestmark = pytest.mark.django_db
LIST = "/admin/api/apitoken/"


@pytest.fixture
def pages() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


def add(pages: Client, name: str = "grafana", **values: str) -> str:
    answer = pages.post(f"{LIST}add/", {"name": name, "scope": "read", "expires_0": "", "expires_1": "", **values})
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_new_token_is_shown_once_and_kept_nowhere(pages: Client) -> None:
    page = add(pages)
    found = re.search(r'value="(gputel_[^"]+)"', page)
    assert found is not None
    secret = found[1]
    assert find_token(secret).name == "grafana"
    token = ApiToken.objects.get()
    for path in (LIST, f"{LIST}{token.pk}/change/", f"{LIST}{token.pk}/history/", "/admin/"):
        text = pages.get(path).content.decode()
        assert secret not in text
        assert token.digest not in text
    assert secret not in str([session.get_decoded() for session in Session.objects.all()])
    assert secret not in str(pages.cookies)


def test_a_second_of_that_name_is_refused(pages: Client) -> None:
    add(pages)
    assert "revoke it, or choose another" in add(pages)
    assert ApiToken.objects.count() == 1


def test_its_end_may_be_changed_and_nothing_else(pages: Client) -> None:
    row, secret = make_token("grafana")
    find_token(secret)
    values = {"name": "other", "scope": "admin", "expires_0": "2020-01-01", "expires_1": "00:00:00"}
    assert pages.post(f"{LIST}{row.pk}/change/", values).status_code == 302
    row.refresh_from_db()
    assert (row.name, row.scope, row.state()) == ("grafana", "read", "expired")
    with pytest.raises(TokenRefused, match="expired"):
        find_token(secret)


def test_it_is_revoked_by_the_action(pages: Client) -> None:
    row, secret = make_token("grafana")
    find_token(secret)
    answer = pages.post(LIST, {"action": "revoke_tokens", "_selected_action": [row.pk]}, follow=True)
    assert "1 revoked" in answer.content.decode()
    with pytest.raises(TokenRefused):
        find_token(secret)


@pytest.mark.parametrize("by_action", [True, False])
def test_a_deleted_token_opens_nothing(pages: Client, by_action: bool) -> None:
    row, secret = make_token("grafana")
    find_token(secret)
    if by_action:
        pages.post(LIST, {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    else:
        pages.post(f"{LIST}{row.pk}/delete/", {"post": "yes"})
    with pytest.raises(TokenRefused):
        find_token(secret)


def test_the_list_costs_the_same_for_one_and_for_many(pages: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as caught:
            assert pages.get(LIST).status_code == 200
        return len(caught)

    make_token("a")
    first = queries()
    for number in range(50):
        make_token(f"token {number}")
    assert queries() == first
