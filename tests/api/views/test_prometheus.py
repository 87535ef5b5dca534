"""The Prometheus text: figures of every part, and which part is away."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from api.views.prometheus import render_metrics
from health.models import Notice, WatchState
from inventory.status import add_counts
from stores.base import Store
from stores.open import reset_store
from tests.api.broker_thread import broker_in_thread
from tests.api.views.test_stats import STARTED
from tests.health.building import NOON, make_event
from tests.ports import free_port


def samples() -> dict[tuple[str, tuple[str, ...]], float]:
    """Value by name and label values."""
    return {
        (sample.name.removeprefix("gpu_telemetry_"), tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(render_metrics().decode())
        for sample in family.samples
    }


@pytest.fixture(autouse=True)
def no_broker(settings: Settings) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", free_port()


def test_fleet_store_and_collectors(fleet: Store) -> None:
    counts = {"blank": 2, "label_conflict": 3, "not_supported": 4}
    add_counts("c1", started=STARTED, messages=3, readings_stored=17, refused=counts, committed_offset=2)
    found = samples()
    assert found["hosts", ()] == 2
    assert found["gpus", ("reporting",)] == 2
    assert found["gpus", ("stale",)] == 1
    assert found["messages_total", ("c1",)] == 3
    assert found["readings_stored_total", ("c1",)] == 17
    by_kind = {name: value for name, value in found.items() if len(name[1]) == 2}
    assert by_kind == {
        ("readings_refused_total", ("c1", "blank")): 2,
        ("readings_remarked_total", ("c1", "label_conflict")): 3,
        ("readings_passed_over_total", ("c1", "not_supported")): 4,
    }
    assert found["committed_offset", ("c1",)] == 2
    assert found["store_readings", ()] == 17
    assert found["newest_reading_timestamp_seconds", ()] == 1752871355
    assert [found["up", (part,)] for part in ("database", "store", "broker")] == [1, 1, 0]


def test_health(fleet: Store) -> None:
    found = samples()
    assert not [name for name, _ in found if name.startswith(("open_events", "watch"))]
    assert (found["notices_waiting", ()], found["notices_overdue_seconds", ()]) == (0, 0)
    now = timezone.now()
    make_event(entity="GPU-1", severity="critical")
    make_event(entity="GPU-2", severity="critical", state="unknown")
    make_event(entity="GPU-3", severity="warning", quiet=True)
    event = make_event(entity="GPU-4", severity="critical", state="closed", closed=NOON)
    Notice.objects.create(event=event, kind="opened", channel="m", key="a", created=now, due=now - timedelta(minutes=1))
    WatchState.objects.create(
        pk=1, offset=7, updated=now - timedelta(seconds=5), lease_until=now + timedelta(minutes=1)
    )
    found = samples()
    assert {key: value for key, value in found.items() if key[0] == "open_events"} == {
        ("open_events", ("false", "temp_high", "critical")): 2,
        ("open_events", ("true", "temp_high", "warning")): 1,
    }
    assert (found["watch_offset", ()], found["watch_judging", ()]) == (7, 1)
    assert 5 <= found["watch_age_seconds", ()] < 60 <= found["notices_overdue_seconds", ()] < 120
    assert found["notices_waiting", ()] == 1
    WatchState.objects.update(lease_until=now)
    assert samples()["watch_judging", ()] == 0


def test_the_broker(fleet: Store, settings: Settings, tmp_path: Path) -> None:
    with broker_in_thread(tmp_path / "log", payloads=[b"{}"] * 5, fsync="never") as port:
        settings.MQ_PORT = port
        found = samples()
    assert found["broker_messages_total", ()] == 5
    assert found["subscriber_lag", ("c1",)] == 4
    assert found["up", ("broker",)] == 1


def test_an_empty_store_has_no_newest_reading(store: Store, db: None) -> None:
    found = samples()
    assert found["store_readings", ()] == 0
    assert ("newest_reading_timestamp_seconds", ()) not in found


def test_a_part_that_is_away_hides_no_other(fleet: Store, settings: Settings, tmp_path: Path) -> None:
    reset_store()
    settings.SQLITE_PATH = tmp_path
    found = samples()
    assert found["up", ("store",)] == 0
    assert found["up", ("database",)] == 1
    assert found["hosts", ()] == 2
    assert ("store_readings", ()) not in found
