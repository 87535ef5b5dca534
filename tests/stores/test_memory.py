"""What the memory store does beyond the contract."""

from __future__ import annotations

from stores.memory import MemoryStore
from tests.stores.making import MINUTE, START, ask, fleet, gpu, one


def test_each_store_is_its_own() -> None:
    first, second = MemoryStore(), MemoryStore()
    first.write([fleet([gpu(1)], START)])
    assert ask(second) == []
    first.close()
    second.close()


def test_the_estimate_of_its_size_grows_and_shrinks() -> None:
    store = MemoryStore()
    store.write([fleet([gpu(number) for number in range(10)], START)])
    grown = store.stats().bytes
    assert grown > 0
    store.apply_retention(START + MINUTE)
    assert store.stats().bytes == 0
    store.close()


def test_closing_lets_go() -> None:
    store = MemoryStore()
    store.write([one(gpu(), START, a=1.0)])
    store.close()
    assert not store._series
