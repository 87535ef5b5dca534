"""dashboard.questions: questions to the store."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from dashboard.questions import ask_series
from readings.times import SECOND
from stores.aggregate.buckets import Buckets
from stores.base import Store, TooBusy
from tests.api.conftest import A0, B0, MINUTE, T0, UTIL, block_of, save

pytestmark = pytest.mark.django_db
BUCKETS = Buckets(T0 - MINUTE, T0 + MINUTE, 10 * MINUTE)


@pytest.fixture(autouse=True)
def _readings(store: Store) -> None:
    save(store, block_of([A0, B0], [(0, T0, [10.0, 100.0, 1.0]), (1, T0 + SECOND, [30.0, 300.0, 1.0])]))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {"GPU-a0": 10.0, "GPU-b0": 30.0}),
        ({"hostname": "host-b"}, {"GPU-b0": 30.0}),
        ({"namespace": "research"}, {"GPU-a0": 10.0}),
        ({"model": "none such"}, {}),
    ],
)
def test_the_filters_of_the_page_hold(query: dict[str, str], expected: dict[str, float]) -> None:
    found = ask_series(UTIL, "mean", BUCKETS, query, by="gpu")
    assert {series.group[0]: series.values[-1] or series.values[0] for series in found} == expected


def test_a_heavy_question_waits_for_its_place_like_those_of_the_api(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.QUERIES_AT_ONCE = 0
    monkeypatch.setattr("stores.aggregate.passes.LIGHT_READINGS", 1)
    points: list[tuple[int, int, list[float | None]]] = [(0, T0 + n * SECOND, [1.0, 1.0, 1.0]) for n in range(50)]
    save(store, block_of([A0], points))
    with pytest.raises(TooBusy, match="QUERIES_AT_ONCE"):
        ask_series(UTIL, "p95", BUCKETS, {})
