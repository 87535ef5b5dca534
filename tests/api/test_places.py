"""api.places: a worker answers only a few heavy questions at once."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from api.places import Places
from readings.times import SECOND
from stores.base import GroupSeries, Store, TooBusy
from stores.sqlite.arrays import SqliteArrayReader
from stores.sqlite.series import SeriesReader
from tests.api.conftest import A0, T0, UTIL, Api, block_of, save

RANGE = "start_time=2025-07-18T20:00:00Z&end_time=2025-07-18T23:00:00Z&every=1h"
WINDOWS = f"/api/v1/query?metric={UTIL}&agg=p99&{RANGE}"


def test_there_are_as_many_as_the_setting_says(settings: Settings) -> None:
    settings.QUERIES_AT_ONCE = 2
    places = Places()
    with places.question() as first, places.question() as second, places.question() as third:
        for take in (first, first, second):
            take()
        with pytest.raises(TooBusy, match=r"2 heavy questions.*QUERIES_AT_ONCE.*ask again later"):
            third()
    with places.question() as fourth, places.question() as fifth:
        fourth()
        fifth()


def test_a_question_that_fails_gives_its_place_back(settings: Settings) -> None:
    settings.QUERIES_AT_ONCE = 1
    places = Places()

    def fail() -> None:
        with places.question() as take:
            take()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with places.question() as take:
        take()


@pytest.fixture
def readings(store: Store, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty readings, of which a light question may look at twenty."""
    save(store, block_of([A0], [(0, T0 + i * SECOND, [float(i), None, None]) for i in range(30)]))
    monkeypatch.setattr("stores.aggregate.passes.LIGHT_READINGS", 20)


@pytest.mark.usefixtures("readings")
def test_one_heavy_question_too_many_is_refused_and_light_ones_are_not(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.QUERIES_AT_ONCE = 1
    light = WINDOWS.replace("start_time=2025-07-18T20:00:00Z", "start_time=2025-07-18T20:42:50Z")
    others: list[Any] = []
    original = SqliteArrayReader.read

    def asking(self: SqliteArrayReader, *values: Any) -> Any:
        found = original(self, *values)
        if len(found.times) > 20 and not others:
            others.append(None)
            others[:] = [api.ask(WINDOWS), api.ask(light)]
        return found

    monkeypatch.setattr(SqliteArrayReader, "read", asking)
    answer = api.ask(WINDOWS)
    refused, answered = others
    assert refused.status_code == 503
    assert int(refused["Retry-After"]) > 0
    assert "QUERIES_AT_ONCE" in refused.json()["message"]
    assert (answered.status_code, answer.status_code, api.ask(WINDOWS).status_code) == (200, 200, 200)


@pytest.mark.usefixtures("readings")
def test_a_page_that_skips_many_rows_is_heavy(api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.QUERIES_AT_ONCE = 0  # no such setting is accepted: nothing heavy may be answered
    monkeypatch.setattr("api.views.telemetry.LIGHT_ROWS", 10)
    for path, light, heavy in (
        ("/api/v1/gpus/GPU-a0/telemetry?limit=5", "offset=10", "offset=11"),
        ("/api/v1/telemetry?page_size=5", "page=3", "page=4"),
    ):
        assert api.ask(f"{path}&{light}").status_code == 200
        assert api.ask(f"{path}&{heavy}").status_code == 503


@pytest.mark.usefixtures("readings")
def test_a_question_gets_the_memory_of_the_setting(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def answer(self: SeriesReader) -> list[GroupSeries]:
        asked.append(self._query.memory)
        return []

    monkeypatch.setattr(SeriesReader, "answer", answer)
    settings.QUERY_MEMORY = 50_000_000
    api.get(WINDOWS)
    assert asked == [50_000_000]
