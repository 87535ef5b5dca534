"""Making, finding and revoking tokens; what is kept of them, and what a look-up costs."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from api.auth import tokens
from api.auth.tokens import REMEMBER_SECONDS, TokenRefused, find_token, make_token, revoke
from api.models import ApiToken

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, to be moved by hand."""
    now = [1000.0]
    monkeypatch.setattr("api.auth.tokens.time.monotonic", lambda: now[0])
    return now


def test_of_a_token_only_a_digest_and_its_beginning_are_kept() -> None:
    row, secret = make_token("grafana")
    assert secret.startswith("gputel_")
    assert len(secret) >= 43 + len("gputel_")
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM api_apitoken")
        assert secret not in str(cursor.fetchall())
    assert row.hint == secret[:11]
    assert find_token(secret) == (row.pk, "grafana", "read", None)


def test_two_tokens_are_never_the_same() -> None:
    assert make_token("a")[1] != make_token("b")[1]


@pytest.mark.parametrize("name", ["", "x" * 129, "a\0b"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        make_token(name)
    with pytest.raises(ValidationError):
        make_token("good", scope="root")


@pytest.mark.parametrize("secret", ["", "x", "gputel_", "\0", "é", "\udcff", "x" * 100_000])
def test_garbage_opens_nothing(secret: str) -> None:
    make_token("grafana")
    with pytest.raises(TokenRefused, match="not known"):
        find_token(secret)


def test_an_expired_token_opens_nothing_even_while_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    end = timezone.now() + timedelta(hours=1)
    _, secret = make_token("grafana", expires=end)
    assert find_token(secret).expires == end
    monkeypatch.setattr("api.auth.tokens.timezone.now", lambda: end)
    with pytest.raises(TokenRefused, match="expired"):
        find_token(secret)


def test_a_revoked_token_opens_nothing() -> None:
    row, secret = make_token("grafana")
    find_token(secret)
    assert revoke(ApiToken.objects.filter(pk=row.pk)) == 1
    assert revoke(ApiToken.objects.filter(pk=row.pk)) == 0
    with pytest.raises(TokenRefused, match="revoked"):
        find_token(secret)


def test_another_process_hears_of_it_within_seconds(clock: list[float]) -> None:
    row, secret = make_token("grafana")
    find_token(secret)
    ApiToken.objects.filter(pk=row.pk).update(revoked=timezone.now())  # as another process does
    find_token(secret)
    clock[0] += REMEMBER_SECONDS
    with pytest.raises(TokenRefused):
        find_token(secret)


def test_a_remembered_token_costs_no_query(
    clock: list[float], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    _, secret = make_token("grafana")
    with django_assert_num_queries(2):  # the look-up, and the note of its use
        find_token(secret)
    with django_assert_num_queries(0):
        for _ in range(100):
            find_token(secret)
    clock[0] += REMEMBER_SECONDS
    with django_assert_num_queries(1):  # used less than a minute ago: no note
        find_token(secret)


def test_garbage_is_remembered_too(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1):
        for _ in range(10):
            with pytest.raises(TokenRefused):
                find_token("garbage")


def test_any_number_of_garbage_tokens_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    small = lru_cache(maxsize=10)(tokens._remembered.__wrapped__)
    assert tokens._remembered.cache_info().maxsize == 4096
    monkeypatch.setattr(tokens, "_remembered", small)
    for number in range(100):
        with pytest.raises(TokenRefused):
            find_token(str(number))
    assert small.cache_info().currsize == 10


def test_its_use_is_noted_once_a_minute(clock: list[float]) -> None:
    row, secret = make_token("grafana")
    find_token(secret)
    row.refresh_from_db()
    first = row.last_used
    assert first is not None
    ApiToken.objects.update(last_used=first - timedelta(seconds=59))
    clock[0] += REMEMBER_SECONDS
    find_token(secret)
    row.refresh_from_db()
    assert row.last_used == first - timedelta(seconds=59)
    ApiToken.objects.update(last_used=first - timedelta(seconds=61))
    clock[0] += REMEMBER_SECONDS
    find_token(secret)
    row.refresh_from_db()
    assert row.last_used is not None
    assert row.last_used >= first


def test_a_use_that_cannot_be_noted_is_still_a_use(monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = make_token("grafana")

    def broken(*args: Any, **values: Any) -> int:
        raise DatabaseError("read-only")

    monkeypatch.setattr("django.db.models.query.QuerySet.update", broken)
    assert find_token(secret).name == "grafana"
