"""A window from memory, from raw, or from both: it is the same."""

from __future__ import annotations

import pytest

from ingest.rollups import making as making_module
from ingest.rollups.making import WindowMaker
from readings.times import SECOND
from stores.memory import MemoryStore
from stores.rollups.memory import WindowMemory
from tests.stores.rollups.reckoning import ENERGY, UTIL, Given, blocks_of, gpu, held, reckoned

pytestmark = pytest.mark.django_db

MINUTE = 60 * SECOND
NOON = 29_400_000 * MINUTE


@pytest.fixture
def raw() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def maker(raw: MemoryStore) -> WindowMaker:
    return WindowMaker(raw)


def regular(uuid: str, minutes: int = 3) -> list[Given]:
    """A reading of two metrics each 20 s."""
    return [
        Given(gpu(uuid), name, NOON + second * SECOND, float(second))
        for second in range(0, 60 * minutes, 20)
        for name in (UTIL, ENERGY)
    ]


def remembered(raw: MemoryStore, readings: list[Given]) -> WindowMemory:
    memory = WindowMemory(NOON - MINUTE)
    for second in sorted({each.time_ns for each in readings}):
        blocks = blocks_of(each for each in readings if each.time_ns == second)
        raw.write(blocks)
        memory.add(blocks)
    return memory


def test_a_window_that_was_seen_whole_is_not_read(maker: WindowMaker, raw: MemoryStore) -> None:
    readings = regular("U") + regular("V")
    memory = remembered(raw, readings)
    made = maker.make("1m", NOON + MINUTE, memory, look_ahead=False)
    assert held(made.tables) == pytest.approx(reckoned(readings, "1m", NOON + MINUTE))
    assert maker.made == {"memory": 1}


def test_gpus_that_are_not_trusted_are_read(maker: WindowMaker, raw: MemoryStore) -> None:
    readings = regular("U") + regular("V")
    memory = remembered(raw, readings)
    late = Given(gpu("V"), UTIL, NOON + 61 * SECOND, 7.0)
    raw.write(blocks_of([late]))
    memory.add(blocks_of([late]))
    made = maker.make("1m", NOON + MINUTE, memory, look_ahead=False)
    assert held(made.tables) == pytest.approx(reckoned([*readings, late], "1m", NOON + MINUTE))
    assert maker.made == {"mixed": 1}
    # What was read then counts for the memory.
    maker.make("1m", NOON + MINUTE, memory, look_ahead=False)
    assert maker.made == {"mixed": 1, "memory": 1}


def test_many_of_them_are_all_read(maker: WindowMaker, raw: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = regular("U") + regular("V")
    memory = remembered(raw, readings)
    memory.distrust("V", NOON + 61 * SECOND)
    monkeypatch.setattr(making_module, "MOST_UNTRUSTED", 0)
    made = maker.make("1m", NOON + MINUTE, memory, look_ahead=False)
    assert held(made.tables) == pytest.approx(reckoned(readings, "1m", NOON + MINUTE))
    assert maker.made == {"raw": 1}


@pytest.mark.parametrize("tier", ["1m", "1h"])
def test_without_a_memory_it_is_read(maker: WindowMaker, raw: MemoryStore, tier: str) -> None:
    readings = regular("U", minutes=70)
    raw.write(blocks_of(readings))
    made = maker.make(tier, NOON, None, look_ahead=False)  # type: ignore[arg-type]
    assert held(made.tables) == pytest.approx(reckoned(readings, tier, NOON))  # type: ignore[arg-type]
    assert maker.made == {"raw": 1}


def test_the_next_reading_of_a_counter_is_looked_for(maker: WindowMaker, raw: MemoryStore) -> None:
    raw.write(blocks_of([*regular("U", 1), Given(gpu("U"), ENERGY, NOON + 600 * SECOND, 1.0)]))
    assert set(maker.make("1m", NOON, None, look_ahead=True).stale_ns) == {NOON + 600 * SECOND}
    assert not maker.make("1m", NOON, None, look_ahead=False).stale_ns
