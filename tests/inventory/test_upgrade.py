"""inventory.migrations: what a database of the version before brings along."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from inventory import newest
from inventory.newest import newest_by_host
from inventory.queries import ages_now
from inventory.sync.memory import InventoryMemory
from inventory.sync.sightings import Origin, Sightings
from readings.times import to_ns
from tests.inventory.building import POWER, SECOND, T0, UTIL, block, gpu

BEFORE = [("inventory", "0002_collector_store")]


@pytest.fixture
def before(transactional_db: None) -> Iterator[Any]:
    """The models of the version before, on an empty database."""
    for cache in (newest._unpacked, newest._merged):  # all these rows are of version 1
        cache.clear()
    executor = MigrationExecutor(connection)
    executor.migrate(BEFORE)
    yield executor.loader.project_state(BEFORE).apps
    to_head()


def add(apps: Any, gpu_id: str, last_seen: datetime) -> None:
    host, _ = apps.get_model("inventory", "Host").objects.get_or_create(
        name="host-1", defaults={"first_seen": last_seen, "last_seen": last_seen}
    )
    apps.get_model("inventory", "GPU").objects.create(
        id=gpu_id,
        uuid=gpu_id,
        host=host,
        first_seen=last_seen,
        last_seen=last_seen,
        latest={UTIL: [5.0, to_ns(last_seen)], POWER: [300.0, to_ns(last_seen) - SECOND]},
    )


def to_head() -> None:
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


def save_now(gpu_id: str, when: datetime) -> None:
    sightings = Sightings()
    sightings.add(block(gpu(gpu_id), (to_ns(when) - T0) / SECOND, {UTIL: 1.0}), Origin("scraper", live=True))
    InventoryMemory("c1").save(sightings)


def test_newest_readings_move_into_newest_rows(before: Any) -> None:
    now = datetime.now(UTC)
    add(before, "GPU-a", now)
    to_head()
    [host] = newest_by_host().values()
    assert dict(zip(host.metric_names, host.values[0].tolist(), strict=True)) == {UTIL: 5.0, POWER: 300.0}
    assert host.times_ns[0].tolist() == [to_ns(now), to_ns(now) - SECOND]


def test_a_gpu_that_was_dead_before_the_upgrade_is_stale_after_it(before: Any) -> None:
    now = datetime.now(UTC)
    add(before, "GPU-a", now)
    add(before, "GPU-dead", now - timedelta(minutes=20))
    to_head()
    save_now("GPU-a", now)
    assert ages_now().stale == {"GPU-dead"}


def test_a_capture_of_long_ago_is_not_stale_after_an_upgrade(before: Any) -> None:
    then = datetime.now(UTC) - timedelta(days=100)
    add(before, "GPU-a", then)
    add(before, "GPU-dead", then - timedelta(minutes=20))
    to_head()
    assert ages_now().stale == {"GPU-dead"}
