"""/health is the process, /ready what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection
from pytest_django import DjangoAssertNumQueries, Settings

from api.views.probes import OK
from stores.base import Store
from stores.open import reset_store
from tests.api.conftest import Api


def test_health_asks_nobody(api: Api) -> None:  # no database in this test: a query would fail it
    assert api.get("/health") == {"status": "healthy"}


def test_ready_when_database_and_store_answer(
    api: Api, fleet: Store, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(1):
        assert api.get("/ready") == {"status": "ready", "checks": {"database": "ok", "store": "ok"}}


def test_ready_names_a_store_that_does_not_answer(
    api: Api, store: Store, db: None, settings: Settings, tmp_path: Path
) -> None:
    reset_store()
    settings.SQLITE_PATH = tmp_path
    response = api.ask("/ready")
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    body = response.json()
    assert body["error"] == "unavailable"
    assert "store" in body["message"]
    assert "database" not in body["message"]
    assert body["checks"]["database"] == OK
    assert body["checks"]["store"] != OK


@pytest.mark.django_db(transaction=True)
def test_ready_names_a_database_that_was_not_migrated(api: Api, store: Store) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE inventory_gpu RENAME TO elsewhere")
    try:
        response = api.ask("/ready")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO inventory_gpu")
    assert response.status_code == 503
    body = response.json()
    assert "database" in body["message"]
    assert "store" not in body["message"]
    assert body["checks"]["store"] == OK
    assert api.ask("/ready").status_code == 200
