"""inventory.sync.bulk: many rows with few statements."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from inventory.models import GPU, Host
from inventory.sync import bulk

pytestmark = pytest.mark.django_db

START = datetime(2025, 7, 18, 20, 42, 34, 123456, tzinfo=UTC)


@pytest.fixture
def gpus() -> list[GPU]:
    return GPU.objects.bulk_create(
        [GPU(id=f"GPU-{n}", uuid=f"GPU-{n}", first_seen=START, last_seen=START) for n in range(5)]
    )


def test_update_writes_the_named_fields_of_the_given_rows_and_no_others(gpus: list[GPU]) -> None:
    host = Host.objects.create(name="host-1", first_seen=START, last_seen=START)
    for number, gpu in enumerate(gpus):
        gpu.labels = {"ünit 'x'": str(number)}
        gpu.last_seen = START + timedelta(microseconds=number)
        gpu.host = host
        gpu.index = None if number == 2 else number
        gpu.pod = "not written"
    with CaptureQueriesContext(connection) as queries:
        bulk.update_rows(gpus[1:], ["labels", "last_seen", "host", "index"])
    assert len(queries) == 1
    assert GPU.objects.get(pk="GPU-0").labels == {}
    for number in range(1, 5):
        gpu = GPU.objects.get(pk=f"GPU-{number}")
        assert gpu.labels == {"ünit 'x'": str(number)}
        assert gpu.last_seen == START + timedelta(microseconds=number)
        assert (gpu.host, gpu.index, gpu.pod) == (host, None if number == 2 else number, "")


def test_no_rows_no_statement() -> None:
    with CaptureQueriesContext(connection) as queries:
        bulk.update_rows([], ["labels"])
        assert list(bulk.fetch(GPU.objects.all(), "id", [])) == []
    assert len(queries) == 0


@pytest.mark.usefixtures("gpus")
def test_more_keys_than_a_statement_takes_are_asked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_MOST_KEYS", 2)
    found = bulk.fetch_locked(GPU.objects, "id", [f"GPU-{n}" for n in range(1, 9)])
    assert list(found) == ["GPU-1", "GPU-2", "GPU-3", "GPU-4"]


@pytest.mark.usefixtures("gpus")
def test_rows_are_made_and_locked_in_the_order_of_bytes_so_that_writers_never_wait_in_a_circle() -> None:
    keys = ["GPU-ä", "GPU-10", "GPU-2", "gpu-1", "GPU-b", "GPU-B"]
    with CaptureQueriesContext(connection) as queries:
        made = bulk.make_missing(
            GPU.objects, "id", keys, lambda key: GPU(id=key, uuid=key, first_seen=START, last_seen=START)
        )
    assert made == ["GPU-10", "GPU-B", "GPU-b", "GPU-ä", "gpu-1"]  # GPU-2 was there
    inserted = next(each["sql"] for each in queries if each["sql"].startswith("INSERT"))
    places = [re.search(rf"\b{key}\b", inserted).start() for key in made]  # type: ignore[union-attr]
    assert places == sorted(places)
    assert list(bulk.fetch_locked(GPU.objects, "id", keys)) == sorted(keys)
