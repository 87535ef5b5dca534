"""The examples of the OpenAPI description are answers that could be given."""

from __future__ import annotations

import json

import pytest

from api.schema.examples import ANSWERS, FILES, NOT_READY
from api.schema.serializers import NotReadySerializer
from api.views.base import ApiView
from readings.catalogue import CATALOGUE, unit_of
from stores.base import Store
from tests.api.conftest import UTIL, Api
from tests.api.schema.test_serializers import differences
from tests.api.views.test_base import views


@pytest.mark.parametrize("view", views(), ids=lambda view: view.__name__)
def test_an_example_has_the_shape_of_the_answer(view: type[ApiView]) -> None:
    assert differences(view.answer(), ANSWERS[view.operation_id]) == []


def test_no_example_is_left_over() -> None:
    assert set(ANSWERS) == {view.operation_id for view in views()}
    assert differences(NotReadySerializer(), NOT_READY) == []


def test_units_are_those_of_the_catalogue() -> None:
    reading = ANSWERS["telemetry"]["data"][0]
    assert reading["unit"] == unit_of(reading["metric_name"])
    for metric in ANSWERS["metrics"]["data"]:
        known = CATALOGUE[metric["name"]]
        assert (metric["unit"], metric["type"], metric["range"]) == (known.unit, known.kind, [known.low, known.high])


def test_a_file_has_the_columns_of_the_file(api: Api, fleet: Store) -> None:
    for operation, path in (
        ("telemetry", "/api/v1/telemetry?limit=1"),
        ("gpu_telemetry", "/api/v1/gpus/GPU-a0/telemetry?limit=1"),
        ("query", f"/api/v1/query?metric={UTIL}&by=host&start_time=2025-07-18T20:40:00Z&end_time=2025-07-18T20:45:00Z"),
    ):
        for name, media_type in (("csv", "text/csv"), ("ndjson", "application/x-ndjson")):
            response = api.ask(f"{path}&format={name}")
            assert response["Content-Type"].startswith(media_type)
            first = b"".join(response.streaming_content).decode().splitlines()[0]
            example = FILES[operation][media_type].splitlines()[0]
            if name == "csv":
                assert example == first
            else:
                assert set(json.loads(example)) == set(json.loads(first))
