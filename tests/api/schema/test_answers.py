"""Answers and their examples have the documented shape."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest
from django.urls import resolve
from django.utils import timezone

from api.schema.answers import ErrorAnswer, NotReadyAnswer
from api.schema.event_answers import EventDetailAnswer, MuteAnswer
from api.schema.schema import answer_example, example_of, file_example
from api.views.base import ApiView
from health.actions import acknowledge
from health.models import Mute
from inventory.status import add_counts
from readings.catalogue import CATALOGUE, unit_of
from stores.base import Store
from tests.api.conftest import UTIL, Api
from tests.api.views.test_base import views
from tests.api.views.test_stats import STARTED
from tests.health.building import NOON, make_event


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/ready",
        "/api/v1",
        "/api/v1/gpus?mig=true&page_size=2",
        "/api/v1/gpus/GPU-a0",
        "/api/v1/gpus/GPU-b0:3/telemetry",
        "/api/v1/gpus/GPU-a0/metrics",
        "/api/v1/telemetry?page=2&page_size=3",
        f"/api/v1/query?metric={UTIL}&by=pod&start_time=2025-07-18T20:00:00Z&end_time=2025-07-18T21:00:00Z",
        f"/api/v1/gpus/GPU-a0/series?metric={UTIL}&start_time=2025-07-18T20:00:00Z&end_time=2025-07-18T21:00:00Z",
        "/api/v1/placements",
        "/api/v1/fleet",
        "/api/v1/fleet/availability",
        f"/api/v1/fleet/bands?metric={UTIL}&start_time=2025-07-18T20:00:00Z&end_time=2025-07-18T21:00:00Z",
        "/api/v1/search?q=host",
        "/api/v1/events",
        "/api/v1/events/summary?start_time=2026-03-01T11:00:00Z&end_time=2026-03-01T14:00:00Z",
        "/api/v1/rules",
        "/api/v1/mutes",
        "/api/v1/hosts",
        "/api/v1/hosts/host-a",
        "/api/v1/metrics",
        "/api/v1/stats",
    ],
)
def test_an_answer_has_the_documented_shape(api: Api, fleet: Store, path: str) -> None:
    add_counts("c1", started=STARTED, messages=1, readings_stored=17, refused={"blank": 1}, committed_offset=0)
    make_event(entity="GPU-a0", hostname="host-a")
    Mute.objects.create(rule="temp_high", starts=NOON, expires=timezone.now() + timedelta(hours=1))
    response = api.ask(path, host="localhost")
    assert response.status_code == 200
    msgspec.json.decode(response.content, type=resolve(path.partition("?")[0]).func.cls.answer)  # type: ignore[attr-defined]


def test_one_event_and_one_mute_have_the_documented_shape(api: Api, fleet: Store) -> None:
    event = acknowledge(make_event(entity="GPU-a0", hostname="host-a"), "ada", "on it")
    mute = Mute.objects.create(rule="temp_high", starts=NOON, expires=timezone.now() + timedelta(hours=1))
    msgspec.json.decode(api.ask(f"/api/v1/events/{event.pk}").content, type=EventDetailAnswer)
    msgspec.json.decode(api.ask(f"/api/v1/mutes/{mute.pk}").content, type=MuteAnswer)


def test_errors_have_the_documented_shape(api: Api) -> None:
    msgspec.json.decode(api.ask("/api/v1?x=1").content, type=ErrorAnswer)


@pytest.mark.parametrize("view", views(), ids=lambda view: view.__name__)
def test_an_example_has_the_shape_of_the_answer(view: type[ApiView]) -> None:
    msgspec.convert(answer_example(view.operation_id, view.answer), view.answer)
    msgspec.convert(example_of(NotReadyAnswer), NotReadyAnswer)


@pytest.mark.parametrize("body", [b'{"error": "x"}', b'{"error": "x", "message": "m", "more": 1}', b'{"error": 1}'])
def test_another_shape_is_noticed(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=ErrorAnswer)


def test_examples_agree_with_the_catalogue() -> None:
    examples = {view.operation_id: answer_example(view.operation_id, view.answer) for view in views()}
    reading = examples["telemetry"]["data"][0]
    assert reading["unit"] == unit_of(reading["metric_name"])
    for metric in examples["metrics"]["data"]:
        known = CATALOGUE[metric["name"]]
        assert (metric["unit"], metric["type"], metric["range"]) == (known.unit, known.kind, [known.low, known.high])


def test_the_example_of_a_file_has_the_columns_of_the_file(api: Api, fleet: Store) -> None:
    for operation, path in (
        ("telemetry", "/api/v1/telemetry?limit=1"),
        ("gpu_telemetry", "/api/v1/gpus/GPU-a0/telemetry?limit=1"),
        ("query", f"/api/v1/query?metric={UTIL}&by=host&start_time=2025-07-18T20:40:00Z&end_time=2025-07-18T20:45:00Z"),
    ):
        for name, media_type in (("csv", "text/csv"), ("ndjson", "application/x-ndjson")):
            response = api.ask(f"{path}&format={name}")
            assert response["Content-Type"].startswith(media_type)
            first = b"".join(response.streaming_content).decode().splitlines()[0]
            example = file_example(operation, media_type).splitlines()[0]
            if name == "csv":
                assert example == first
            else:
                assert set(json.loads(example)) == set(json.loads(first))
