"""Merging: parts, late and repeated points, by one collector or several, end up as one collector would have stored them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from readings.model import Gpu, Point, PointBlock
from stores.base import Store
from stores.memory import MemoryStore
from stores.sqlite import SqliteStore
from tests.stores.making import MINUTE, SECOND, START, Row, ask, fleet, gpu, one, several

ROOT = Path(__file__).resolve().parents[3]
METRICS = [f"m{number}" for number in range(8)]

# Takes a seed and the parts to write; says after each write how many are stored.
_WRITE_PARTS = """
import sys
from stores.sqlite import SqliteStore
from tests.stores.sqlite.test_writer import parts
path, seed, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = SqliteStore(path, timeout=30.0)
for number, blocks in enumerate(parts(seed)[first:], first + 1):
    store.write(blocks)
    print(number, flush=True)
"""


def parts(seed: int) -> list[list[PointBlock]]:
    """What one collector writes, write by write: points in parts, some late, some twice, some with nulls.

    A value follows from its GPU, time and metric, so that the order in which two collectors write does not matter.
    """
    chance = random.Random(seed)
    writes: list[list[PointBlock]] = []
    for step in range(60):
        blocks = []
        for _ in range(chance.randint(1, 3)):
            at = START + max(0, step - chance.choice([0, 0, 0, 1, 5, 40])) * 20 * SECOND
            metrics = chance.sample(METRICS, chance.randint(1, 8))
            gpus = [_described(number, at) for number in chance.sample(range(70), chance.randint(1, 40))]
            points: list[Point] = [
                (place, at, [None if chance.random() < 0.1 else _value(of, at, metric) for metric in metrics])
                for place, of in enumerate(gpus)
            ]
            blocks.append(PointBlock(gpus, metrics, points))
        writes.append(blocks)
        if chance.random() < 0.2:
            writes.append(chance.choice(writes))
    return writes


def _described(number: int, at: int) -> Gpu:
    """A GPU moves to another pod now and then, in the middle of a block too."""
    mig_id = "1" if number % 9 == 0 else ""
    return gpu(number, mig_id=mig_id, pod=f"job-{number}-{at // (7 * MINUTE)}")


def _value(of: Gpu, at: int, metric: str) -> float:
    return random.Random(f"{of.id} {at} {metric}").random()


def everything(store: Store) -> tuple[list[Row], object]:
    """All rows by a page and by a stream, and what the store counts."""
    rows = ask(store, limit=1_000_000)
    stats = store.stats()
    counted = (stats.readings, stats.series, stats.oldest_ns, stats.newest_ns)
    assert stats.readings == len(rows)
    return rows, (counted, store.metric_names(), store.metric_names("GPU-0003"))


@pytest.mark.parametrize("waiting", [0, 100, 10_000])
@pytest.mark.parametrize("seed", range(4))
def test_parts_of_two_collectors_are_stored_as_one_would_store_them(
    tmp_path: Path, seed: int, waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.sqlite.writer._MOST_WAITING", waiting)
    memory, stores = MemoryStore(), [SqliteStore(tmp_path / "r.sqlite3") for _ in range(2)]
    chance = random.Random(seed)
    queues = [parts(seed), parts(seed + 100 if seed % 2 else seed)]
    while any(queues):
        which = chance.choice([place for place, queue in enumerate(queues) if queue])
        blocks = queues[which].pop(0)
        assert stores[which].write(blocks).written == memory.write(blocks).written
        if chance.random() < 0.05:
            cut = START + chance.randrange(20) * MINUTE + chance.randrange(MINUTE)
            assert stores[which].apply_retention(cut) == memory.apply_retention(cut)
    assert everything(stores[0]) == everything(memory) == everything(stores[1])
    for store in stores:
        store.close()


@pytest.mark.parametrize("seed", range(3))
def test_two_collectors_that_are_killed_lose_nothing(tmp_path: Path, seed: int) -> None:
    path, chance = tmp_path / "r.sqlite3", random.Random(seed)
    stored = [0, 0]
    wanted = [len(parts(seed)), len(parts(seed + 50))]
    for kills in range(30):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITE_PARTS, str(path), str(seed + 50 * place), str(stored[place])],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for place in range(2)
        ]
        if kills < 5:
            time.sleep(0.3 + chance.random() * 0.5)
            for process in processes:
                os.kill(process.pid, signal.SIGKILL)
        for place, process in enumerate(processes):
            out, _ = process.communicate()
            lines = [line for line in out.split("\n")[:-1] if line]
            stored[place] = int(lines[-1]) if lines else stored[place]
        memory = MemoryStore()
        for place in range(2):
            for blocks in parts(seed + 50 * place)[: stored[place]]:
                memory.write(blocks)
        store = SqliteStore(path)
        found = {row.position: row for row in everything(store)[0]}
        store.close()
        # What a collector was told is stored is there; one more write may be.
        assert all(found.get(row.position) == row for row in ask(memory, limit=1_000_000))
        if stored == wanted:
            break
    assert stored == wanted
    store = SqliteStore(path)
    assert everything(store) == everything(memory)
    store.close()


def test_identities_are_kept_once(sqlite_store: SqliteStore) -> None:
    def count() -> int:
        with sqlite_store.file.reading() as connection:
            found: int = connection.execute("SELECT count(*) FROM identity").fetchone()[0]
            return found

    gpus = [gpu(1), gpu(2), gpu(2, pod="job")]
    for step in range(10):
        sqlite_store.write([fleet(gpus, START + step * MINUTE), fleet([gpu(1)], START + step * MINUTE, ["other"])])
    assert count() == 3
    other = SqliteStore(sqlite_store.path)
    other.write([fleet(gpus, START + 11 * MINUTE)])
    other.close()
    assert count() == 3
    assert sqlite_store.stats().series == 5


def test_counts_always_equal_what_is_there(sqlite_store: SqliteStore) -> None:
    for step in range(30):
        sqlite_store.write([fleet([gpu(number % 5) for number in range(step)], START + step % 7 * 25 * SECOND)])
        sqlite_store.apply_retention(START + step * 3 * SECOND)
        assert len(ask(sqlite_store, limit=10_000)) == sqlite_store.stats().readings


def test_bounds_hold_when_two_stores_write(sqlite_store: SqliteStore) -> None:
    other = SqliteStore(sqlite_store.path)
    for step in range(200):
        writer = sqlite_store if step % 2 else other
        writer.write([one(gpu(pod="p"), START + (100 + step * (-1) ** step) * MINUTE, a=float(step))])
    other.close()
    assert len(ask(sqlite_store, gpus=("GPU-0000",), limit=1000)) == 200
    assert len(ask(sqlite_store, pods=("p",), limit=1000)) == 200


def test_a_duplicate_metric_name_in_a_block_is_harmless(sqlite_store: SqliteStore) -> None:
    sqlite_store.write([PointBlock([gpu()], ["a", "a"], [(0, START, [1.0, 2.0])])])
    sqlite_store.write([PointBlock([gpu()], ["a", "b", "a"], [(0, START + 1, [1.0, 3.0, None])])])
    assert [row.value for row in ask(sqlite_store)] == [1.0, 3.0, 2.0]
    assert sqlite_store.stats().readings == 3


def test_what_is_remembered_is_bounded(sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.sqlite.writer._IDS_KNOWN", 50)
    for step in range(200):
        sqlite_store.write([fleet([gpu(step)], START + step * MINUTE)])
    with sqlite_store.file.writing() as writer:
        assert len(writer._ids) < 60
        assert len(writer._seen) <= 20
    assert len(ask(sqlite_store, limit=1000)) == 400


def test_what_waits_is_bounded(sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting() -> tuple[int, int]:
        with sqlite_store.file.reading() as connection:
            found = connection.execute("SELECT count(DISTINCT block), total(readings) FROM recent").fetchone()
            return found[0], int(found[1])

    monkeypatch.setattr("stores.sqlite.writer._MOST_WAITING", 500)
    for step in range(400):
        sqlite_store.write([fleet([gpu(number) for number in range(10)], START + step * 5 * SECOND)])
        blocks, readings = waiting()
        assert blocks <= 2
        assert readings <= 1200
    assert sqlite_store.stats().readings == 8000 == len(ask(sqlite_store, limit=10_000))


def test_more_gpus_and_metrics_than_one_stripe(sqlite_store: SqliteStore) -> None:
    names = [f"odd {number}" for number in range(300)]
    gpus = [gpu(number) for number in range(130)]
    for place, of in enumerate(gpus):
        sqlite_store.write(
            [PointBlock([of], names[place : place + 3], [(0, START + place, [1.0, None, float(place)])])]
        )
    assert sqlite_store.stats().series == 260 == len(ask(sqlite_store, limit=1000))
    assert sqlite_store.metric_names("GPU-0100") == ["odd 100", "odd 102"]
    assert sqlite_store.metric_names() == sorted({row.metric_name for row in ask(sqlite_store, limit=1000)})


def test_text_that_looks_like_a_number_is_refused(sqlite_store: SqliteStore) -> None:
    result = sqlite_store.write([PointBlock([gpu()], ["a", "b"], [(0, START, [1.0, "12"])])])  # type: ignore[list-item]
    assert (result.written, len(result.refused)) == (1, 1)


def test_a_reading_that_is_not_new_is_replaced_wherever_it_lies(sqlite_store: SqliteStore) -> None:
    minutes = range(0, 60, 4)
    sqlite_store.write([several(gpu(), [(START + minute * MINUTE, 1.0) for minute in minutes])])
    for minute in minutes:
        sqlite_store.write([several(gpu(), [(START + minute * MINUTE, 2.0 + minute)])])
        sqlite_store.write([one(gpu(), START + minute * MINUTE, other=None)])
    assert [row.value for row in ask(sqlite_store)] == [2.0 + minute for minute in reversed(minutes)]
    assert sqlite_store.stats().readings == len(minutes)
