"""What a page costs the database: no more queries for a large fleet than for a small one, and never many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from dashboard.urls import urlpatterns
from stores.open import get_store, reset_store
from tests.health.building import make_event
from tests.inventory.building import POWER, TEMP, USED, UTIL, block, gpu, save

MOST_QUERIES = 15
OF_ONE: dict[str, dict[str, object]] = {"host": {"name": "host-001"}, "gpu": {"uuid": "GPU-0001-3"}, "event": {"pk": 1}}
NAMES = [str(pattern.name) for pattern in urlpatterns]


@pytest.fixture
def fleet(db: None, settings: Settings, tmp_path: Path) -> Iterator[None]:
    """Thirty hosts of eight GPUs with pods, in an inventory and a store of SQLite."""
    settings.STORAGE_TYPE = "sqlite"
    settings.SQLITE_PATH = tmp_path / "readings.sqlite3"
    reset_store()
    blocks = [
        block(
            gpu(f"GPU-{host:04d}-{slot}", hostname=f"host-{host:03d}", gpu_id=slot, namespace="ml", pod=f"job-{host}"),
            second,
            {UTIL: 50.0, TEMP: 60.0, POWER: 400.0, USED: 2000.0},
        )
        for host in range(30)
        for slot in range(8)
        for second in (0, 15)
    ]
    get_store().write(blocks)
    save(*blocks)
    for number in range(40):
        make_event(pk=number + 1, entity=f"GPU-0001-{number}", hostname="host-001", opened=timezone.now())
    yield
    reset_store()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_asks_the_database_at_most_fifteen_times(
    name: str, fleet: None, client: Client, django_assert_max_num_queries: Callable[[int], AbstractContextManager[Any]]
) -> None:
    with django_assert_max_num_queries(MOST_QUERIES):
        response = client.get(reverse(f"dashboard:{name}", kwargs=OF_ONE.get(name)))
    assert response.status_code == 200
