from __future__ import annotations

import threading
import time

import pytest

from stores.sqlite import SqliteStore
from tests.stores.making import MINUTE, SECOND, START, ask, fleet, gpu, one, several


def _count(store: SqliteStore, table: str) -> int:
    with store.file.reading() as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count


@pytest.mark.parametrize("step", [0, 1, 6, 29, 30, 31, 59, 60, 200, 299])
def test_any_cut_drops_what_is_older_to_the_nanosecond(sqlite_store: SqliteStore, step: int) -> None:
    times = [START + number * 11 * SECOND for number in range(300)]
    sqlite_store.write([fleet([gpu(number) for number in range(70)], time_ns) for time_ns in times])
    assert sqlite_store.apply_retention(times[step]) == step * 140
    assert sqlite_store.stats().readings == (300 - step) * 140
    assert sqlite_store.stats().oldest_ns == times[step]
    assert len(ask(sqlite_store, gpus=("GPU-0069",), limit=1000)) == (300 - step) * 2
    assert sqlite_store.apply_retention(times[step]) == 0


def test_writers_get_their_turn_between_pieces(sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SqliteStore(sqlite_store.path, timeout=30.0)
    sqlite_store.write([fleet([gpu(1), gpu(2)], START + block * 5 * MINUTE) for block in range(100)])
    newest = START + 1000 * MINUTE
    under_way, written = threading.Event(), threading.Event()
    order: list[str] = []
    real_sleep = time.sleep

    def pause(seconds: float) -> None:
        under_way.set()
        real_sleep(seconds if written.is_set() else max(seconds, 0.02))

    monkeypatch.setattr("stores.sqlite.time.sleep", pause)

    def drop() -> None:
        sqlite_store.apply_retention(newest)
        order.append("dropped")

    thread = threading.Thread(target=drop)
    thread.start()
    assert under_way.wait(30)
    # Both the same store and another process's get in long before the 100 pieces are done.
    sqlite_store.write([one(gpu(1), newest, new=1.0)])
    other.write([one(gpu(2), newest, new=1.0)])
    order.append("written")
    written.set()
    thread.join()
    assert order == ["written", "dropped"]
    assert [row.uuid for row in ask(other)] == ["GPU-0001", "GPU-0002"]
    other.close()


def test_what_is_left_over_goes_too(sqlite_store: SqliteStore) -> None:
    for step in range(10):
        sqlite_store.write([one(gpu(1, pod=f"job-{step}"), START + step * 5 * MINUTE, a=1.0)])
    sqlite_store.write([one(gpu(2, pod="gone", share=True), START, a=1.0)])
    assert _count(sqlite_store, "identity") == 11
    sqlite_store.apply_retention(START + 25 * MINUTE)
    assert _count(sqlite_store, "identity") == 5
    assert _count(sqlite_store, "source") == 1
    assert _count(sqlite_store, "stripe") == 1
    assert _count(sqlite_store, "block") + _count(sqlite_store, "recent") == 5


def test_readings_that_came_in_late_go_with_the_next_retention(sqlite_store: SqliteStore) -> None:
    sqlite_store.write([several(gpu(), [(START, 1.0), (START + 20 * MINUTE, 3.0)])])
    assert sqlite_store.apply_retention(START + 10 * MINUTE) == 1
    sqlite_store.write([several(gpu(1), [(START, 1.0)]), several(gpu(), [(START + MINUTE, 2.0)])])
    assert [row.value for row in ask(sqlite_store)] == [3.0, 2.0, 1.0]
    assert sqlite_store.stats().oldest_ns == START
    assert sqlite_store.apply_retention(START + 10 * MINUTE) == 2
    assert [row.value for row in ask(sqlite_store)] == [3.0]
    assert sqlite_store.stats().series == 1


def test_what_is_written_between_two_pieces_goes_with_the_last(
    sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SqliteStore(sqlite_store.path)
    sqlite_store.write([several(gpu(), [(START, 1.0), (START + 60 * MINUTE, 3.0)])])
    monkeypatch.setattr(
        "stores.sqlite.time.sleep", lambda _: other.write([several(gpu(2), [(START + 6 * MINUTE, 2.0)])])
    )
    assert sqlite_store.apply_retention(START + 30 * MINUTE) == 2
    assert [row.value for row in ask(sqlite_store)] == [3.0]
    assert ask(other) == ask(sqlite_store)
    other.close()


def test_space_is_used_again(sqlite_store: SqliteStore) -> None:
    gpus = [gpu(number) for number in range(64)]

    def pages() -> int:
        with sqlite_store.file.reading() as connection:
            count: int = connection.execute("PRAGMA page_count").fetchone()[0]
            return count

    sizes = []
    for day in range(5):
        begin = START + day * 100 * MINUTE
        sqlite_store.write([fleet(gpus, begin + step * 20 * SECOND) for step in range(50)])
        sqlite_store.apply_retention(begin)
        sizes.append(pages())
    assert sizes[-1] <= sizes[1] * 1.2
