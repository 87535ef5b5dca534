from __future__ import annotations

import threading
import time

import pytest

from stores.sqlite import SqliteStore
from stores.sqlite_retention import BEGINNING, drop_chunk, tidy
from stores.sqlite_schema import Tables
from tests.stores.making import MINUTE, SECOND, START, ask, fleet, gpu, one, several


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of ten readings."""
    monkeypatch.setattr("stores.sqlite_retention.CHUNK", 10)


def _count(store: SqliteStore, table: str) -> int:
    with store._reading() as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count


def test_no_piece_is_larger_than_it_may_be(sqlite_store: SqliteStore, small_pieces: None) -> None:
    sqlite_store.write([fleet([gpu(number) for number in range(7)], START + step * 7 * SECOND) for step in range(20)])
    cut = START + 10 * 7 * SECOND
    dropped, after, pieces = 0, BEGINNING, 0
    with sqlite_store._writing() as writer:
        while True:
            writer.connection.execute("BEGIN IMMEDIATE")
            count, last = drop_chunk(writer.connection, Tables.READINGS, cut, after)
            writer.connection.execute("COMMIT")
            assert count <= 10
            dropped += count
            pieces += 1
            if last is None:
                break
            after = last
    assert dropped == 140
    assert pieces > 14
    assert len(ask(sqlite_store, limit=1000)) == 140 == sqlite_store.stats().readings


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 10, 139, 140, 141])
def test_any_size_of_pieces_drops_the_same(
    sqlite_store: SqliteStore, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.sqlite_retention.CHUNK", chunk)
    sqlite_store.write([fleet([gpu(number) for number in range(7)], START + step * 13 * SECOND) for step in range(10)])
    assert sqlite_store.apply_retention(START + 6 * 13 * SECOND) == 6 * 14
    assert {row.time_ns for row in ask(sqlite_store, limit=1000)} == {
        START + step * 13 * SECOND for step in range(6, 10)
    }
    assert sqlite_store.stats().readings == 4 * 14 == _count(sqlite_store, "reading")


def test_writers_get_their_turn_between_pieces(
    sqlite_store: SqliteStore, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SqliteStore(sqlite_store.path, timeout=30.0)
    sqlite_store.write([fleet([gpu(number) for number in range(50)], START + step) for step in range(40)])
    under_way, written = threading.Event(), threading.Event()
    order: list[str] = []
    real_sleep = time.sleep

    def pause(seconds: float) -> None:
        under_way.set()
        real_sleep(seconds if written.is_set() else max(seconds, 0.005))

    monkeypatch.setattr("stores.sqlite.time.sleep", pause)

    def drop() -> None:
        sqlite_store.apply_retention(START + MINUTE)
        order.append("dropped")

    thread = threading.Thread(target=drop)
    thread.start()
    assert under_way.wait(30)
    # Both the same store and another process's get in long before the 400 pieces are done.
    sqlite_store.write([one(gpu(1), START + 2 * MINUTE, new=1.0)])
    other.write([one(gpu(2), START + 2 * MINUTE, new=1.0)])
    order.append("written")
    written.set()
    thread.join()
    assert order == ["written", "dropped"]
    assert [row.uuid for row in ask(other)] == ["GPU-0001", "GPU-0002"]
    other.close()


def test_what_is_left_over_goes_too(sqlite_store: SqliteStore) -> None:
    for step in range(10):
        sqlite_store.write([one(gpu(1, pod=f"job-{step}"), START + step * MINUTE, a=1.0)])
    sqlite_store.write([one(gpu(2, pod="gone", share=True), START, a=1.0)])
    assert _count(sqlite_store, "identity") == 11
    sqlite_store.apply_retention(START + 5 * MINUTE)
    assert _count(sqlite_store, "identity") == 5
    assert _count(sqlite_store, "minute") == 5
    for table in ("share_series", "share_reading", "share_minute"):
        assert _count(sqlite_store, table) == 0


def test_readings_that_came_in_late_keep_their_names(sqlite_store: SqliteStore) -> None:
    # Between the last piece and the tidying, another process writes something older than the cut.
    sqlite_store.write([several(gpu(), [(START, 1.0)])])
    with sqlite_store._writing() as writer:
        writer.connection.execute("BEGIN IMMEDIATE")
        tidy(writer.connection, START + 10 * MINUTE)
        writer.connection.execute("COMMIT")
    assert [row.value for row in ask(sqlite_store)] == [1.0]
    assert sqlite_store.apply_retention(START + 10 * MINUTE) == 1
    assert sqlite_store.stats().series == 0


def test_space_is_used_again(sqlite_store: SqliteStore) -> None:
    gpus = [gpu(number) for number in range(64)]

    def pages() -> int:
        with sqlite_store._reading() as connection:
            count: int = connection.execute("PRAGMA page_count").fetchone()[0]
            return count

    sizes = []
    for day in range(5):
        begin = START + day * 100 * MINUTE
        sqlite_store.write([fleet(gpus, begin + step * 20 * SECOND) for step in range(50)])
        sqlite_store.apply_retention(begin)
        sizes.append(pages())
    assert sizes[-1] <= sizes[1] * 1.2
