"""/health is the process, /ready what it needs."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from api.views.probes import OK, _Checked, embedded
from inventory.models import CollectorStatus
from inventory.status import add_counts
from stores.base import Store
from stores.open import reset_store, store_key
from tests.api.conftest import Api


def test_health_asks_nobody(api: Api) -> None:  # no database in this test: a query would fail it
    assert api.get("/health") == {"status": "healthy"}


def test_ready_when_database_and_store_answer(
    api: Api, fleet: Store, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(2):
        assert api.get("/ready") == {
            "status": "ready",
            "checks": {"database": "ok", "store": "ok", "collector": "ok"},
        }


def test_those_who_asked_before_a_look_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def look() -> tuple[dict[str, str], list[str]]:
        looks.append(time.monotonic())
        return {"look": str(len(looks))}, []

    monkeypatch.setattr("api.views.probes.check_all", look)
    checked = _Checked()
    before = time.monotonic()
    assert [checked.since(before)[0]["look"] for _ in range(5)] == ["1"] * 5
    assert checked.since(time.monotonic())[0]["look"] == "2"
    assert checked.since(before)[0]["look"] == "2"
    # A server that does not say when the request came.
    assert checked.since(float("inf"))[0]["look"] == "3"


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


def status_of(collector_id: str, store: str, key: str) -> None:
    add_counts(
        collector_id, started=timezone.now(), messages=1, readings_stored=1, refused={}, committed_offset=1, store=store,
        store_key=key,
    )  # fmt: skip


def test_ready_says_when_collectors_write_elsewhere(
    api: Api, fleet: Store, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "api.views.probes")
    status_of("c1", "influxdb, bucket b at http://secret-place:8086", "influxdb, …")
    for _ in range(2):
        checks = api.get("/ready")["checks"]
        assert "another store (influxdb) than this service reads (sqlite)" in checks["collector"]
        assert "secret-place" not in str(checks)
    assert [record.message.count("secret-place") for record in caplog.records] == [1]
    status_of("c2", "sqlite, elsewhere in its container", store_key())
    assert api.get("/ready")["checks"]["collector"] == OK
    assert caplog.records[-1].levelname == "INFO"
    # What another one wrote to a file of its own, long ago, does not matter.
    CollectorStatus.objects.filter(pk="c2").delete()
    CollectorStatus.objects.update(updated=timezone.now() - timedelta(hours=1))
    assert api.get("/ready")["checks"]["collector"] == OK


def test_ready_is_503_once_the_collector_of_this_service_has_ended(
    api: Api, fleet: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "trouble", lambda: "ended: the log says why")
    response = api.ask("/ready")
    assert response.status_code == 503
    assert response.json()["message"] == "the collector ended: the log says why"
    assert response.json()["checks"] == {"database": "ok", "store": "ok", "collector": "ended: the log says why"}
