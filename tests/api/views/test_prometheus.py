"""The Prometheus text: figures of every part, and which part is away."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from api.views.prometheus import render_metrics
from inventory.status import add_counts
from stores.base import Store
from stores.open import reset_store
from tests.api.broker_thread import broker_in_thread
from tests.api.views.test_stats import STARTED, free_port


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
