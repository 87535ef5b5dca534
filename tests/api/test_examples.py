"""The examples of the OpenAPI description are answers that could be given."""

from __future__ import annotations

import pytest

from api.examples import ANSWERS, NOT_READY
from api.serializers import NotReadySerializer
from api.views.base import ApiView
from readings.catalogue import CATALOGUE, unit_of
from tests.api.test_base import views
from tests.api.test_serializers import differences


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
