"""Windows from the store's raw readings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readings.catalogue import is_counter
from stores.base import Store
from stores.memory import MemoryStore
from stores.rollups import raw
from stores.rollups.combining import combine
from stores.rollups.raw import partials_from_raw, windows_after
from stores.rollups.windows import STEP_NS, Tier
from stores.sqlite import SqliteStore
from tests.stores.rollups.reckoning import (
    ENERGY,
    MINUTE,
    REPLAYS,
    SECOND,
    UNTIMED,
    UTIL,
    Given,
    blocks_of,
    flat,
    gpu,
    held,
    points,
    reckoned,
)


@pytest.fixture(params=[(120 * SECOND, 10), (20 * SECOND, 0), (SECOND, 1)])
def near(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far is looked back at once, and how few GPUs are looked for one by one."""
    monkeypatch.setattr(raw, "NEAR_NS", request.param[0])
    monkeypatch.setattr(raw, "_FEW", request.param[1])


def filled(store: Store, readings: Sequence[Given]) -> Store:
    for block in blocks_of(readings):
        store.write([block])
    return store


def windows(store: Store, tier: Tier, start_ns: int, **asked: Any) -> dict[Any, float]:
    return held(combine(partials_from_raw(store, start_ns, start_ns + STEP_NS[tier], **asked), tier, start_ns))


@pytest.mark.usefixtures("near")
@UNTIMED
@given(found=points(minutes=5, most=60), at=st.sampled_from([0, 2, 4]))
def test_windows_are_what_the_readings_say(found: list[list[Given]], at: int) -> None:
    readings = flat(found)
    store = filled(MemoryStore(), readings)
    assert windows(store, "1m", at * MINUTE) == pytest.approx(reckoned(readings, "1m", at * MINUTE), rel=1e-12)
    assert windows(store, "1h", 0) == pytest.approx(reckoned(readings, "1h", 0), rel=1e-12)


@pytest.mark.usefixtures("near")
@settings(UNTIMED, max_examples=10)
@given(found=points(minutes=12, step=60, most=60))
def test_sqlite_gives_the_same(tmp_path: Path, found: list[list[Given]]) -> None:
    readings = flat(found)
    store = SqliteStore(tmp_path / f"{uuid4()}.sqlite3")
    filled(store, readings)
    assert windows(store, "1m", 10 * MINUTE) == pytest.approx(reckoned(readings, "1m", 10 * MINUTE), rel=1e-12)
    assert windows(store, "1h", 0) == pytest.approx(reckoned(readings, "1h", 0), rel=1e-12)
    store.close()


EVERYWHERE = [
    Given(gpu(f"U{number}", host=number % 2), name, time * SECOND, float(time * (number + 1) % 1000))
    for number in range(6)
    for time in (*range(0, 120, 10), *range(400, 460, 10), *range(3600, 3700, 10))
    for name in (UTIL, ENERGY, REPLAYS)
    # Some are silent for long, or new.
    if not (number == 2 and 10 < time < 3600) and not (number == 3 and time < 3610) and not (number == 4 and time > 500)
]


@pytest.mark.usefixtures("near")
def test_every_store_gives_what_its_readings_say(store: Store) -> None:
    filled(store, EVERYWHERE)
    for start in (0, 360 * SECOND, 420 * SECOND, 3600 * SECOND, 3660 * SECOND):
        start = start // MINUTE * MINUTE
        assert windows(store, "1m", start) == pytest.approx(reckoned(EVERYWHERE, "1m", start), rel=1e-12)
    for start in (0, 3600 * SECOND):
        assert windows(store, "1h", start) == pytest.approx(reckoned(EVERYWHERE, "1h", start), rel=1e-12)


def test_gpus_and_metrics_may_be_chosen(store: Store) -> None:
    filled(store, EVERYWHERE)
    found = partials_from_raw(store, 0, MINUTE, gpus={"U1", "U5"}, names=[ENERGY, "nothing"])
    assert {source.gpu for source in found.sources} == {"U1", "U5"}
    assert list(found.names) == [ENERGY, "nothing"]
    assert found.count.tolist() == [[6, 0], [6, 0]]
    assert list(partials_from_raw(store, 0, MINUTE).names) == sorted({ENERGY, REPLAYS, UTIL})


def test_an_empty_store_has_empty_windows(store: Store) -> None:
    assert partials_from_raw(store, 0, MINUTE).count.shape == (0, 0)
    assert windows_after(store, partials_from_raw(store, 0, MINUTE), MINUTE) == set()


def after(readings: Sequence[Given], start_ns: int, end_ns: int) -> Iterator[int]:
    for gpu_id, name in {(each.gpu.id, each.name) for each in readings if start_ns <= each.time_ns < end_ns}:
        later = [
            each.time_ns for each in readings if each.gpu.id == gpu_id and each.name == name and each.time_ns >= end_ns
        ]
        if later and is_counter(name):
            yield min(later) // MINUTE * MINUTE


@pytest.mark.usefixtures("near")
@UNTIMED
@given(found=points(minutes=9), at=st.integers(0, 9))
def test_the_windows_after_hold_the_next_reading_of_each_counter(found: list[list[Given]], at: int) -> None:
    readings = flat(found)
    store = filled(MemoryStore(), readings)
    partials = partials_from_raw(store, at * MINUTE, (at + 1) * MINUTE)
    assert windows_after(store, partials, MINUTE) == set(after(readings, at * MINUTE, (at + 1) * MINUTE))


@pytest.mark.usefixtures("near")
def test_every_store_knows_the_windows_after(store: Store) -> None:
    filled(store, EVERYWHERE)
    for start in (0, MINUTE, 6 * MINUTE, 60 * MINUTE, 61 * MINUTE):
        partials = partials_from_raw(store, start, start + MINUTE)
        assert windows_after(store, partials, MINUTE) == set(after(EVERYWHERE, start, start + MINUTE))
