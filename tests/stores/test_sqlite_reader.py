"""How queries are answered: by which index, and by looking at how much."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stores.base import Position, ReadingsQuery
from stores.sqlite import SqliteStore
from stores.sqlite_reader import Reader
from tests.stores.making import MINUTE, SECOND, START, ask, fleet, gpu, keys, one

_STEPS = 120
_METRICS = [f"m{number}" for number in range(10)]
_READINGS = 16 * len(_METRICS) * _STEPS


@pytest.fixture
def filled(sqlite_store: SqliteStore) -> SqliteStore:
    """16 GPUs with 10 metrics each, every 10 s for 20 minutes, and one GPU that reported once, long before."""
    gpus = [gpu(number, pod=f"job-{number}") for number in range(16)]
    sqlite_store.write([fleet(gpus, START + step * 10 * SECOND, _METRICS) for step in range(_STEPS)])
    sqlite_store.write([one(gpu(77, hostname="old"), START - 10_000 * MINUTE, m0=1.0)])
    return sqlite_store


@contextmanager
def _statements(store: SqliteStore) -> Iterator[list[str]]:
    """What SQLite is asked, with its values, while a query runs on the next connection that the pool gives."""
    asked: list[str] = []
    with store._reading() as connection:
        connection.set_trace_callback(asked.append)
    yield asked
    with store._reading() as connection:
        connection.set_trace_callback(None)


def _plans(store: SqliteStore, query: ReadingsQuery) -> list[str]:
    """The query plan of each statement that looks at readings."""
    with _statements(store) as asked:
        store.page(query)
        statements = [each for each in asked if "reading AS r" in each]
    assert statements
    with store._reading() as connection:
        return [
            " | ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement))
            for statement in statements
        ]


def _steps(store: SqliteStore, call: Callable[[Reader], Any]) -> int:
    """How many thousands of SQLite's own instructions a call takes."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    with store._reading() as connection:
        connection.set_progress_handler(tick, 1000)
        call(Reader(connection, store._names))
        connection.set_progress_handler(None, 1000)
    return count


@pytest.mark.parametrize(
    "query",
    [
        ReadingsQuery(gpus=("GPU-0003",)),
        ReadingsQuery(gpus=("GPU-0003",), metric_names=("m4",)),
        ReadingsQuery(gpus=("GPU-0003",), newest_first=False, start_ns=START + 5 * MINUTE),
        ReadingsQuery(gpus=("GPU-0003",), after=Position(START + 5 * MINUTE, "GPU-0003", "m4")),
        ReadingsQuery(metric_names=("m4",)),
        ReadingsQuery(pods=("job-3",)),
    ],
)
def test_few_series_are_sought_one_by_one(filled: SqliteStore, query: ReadingsQuery) -> None:
    for plan in _plans(filled, query):
        assert "SEARCH r USING PRIMARY KEY (minute=? AND series=? AND time>? AND time<?)" in plan
        assert "SEARCH m USING INTEGER PRIMARY KEY" in plan


@pytest.mark.parametrize(
    "query",
    [
        ReadingsQuery(),
        ReadingsQuery(newest_first=False),
        ReadingsQuery(after=Position(START + 5 * MINUTE, "GPU-0003", "m4")),
        ReadingsQuery(models=("NVIDIA H100 80GB HBM3",)),
        ReadingsQuery(gpus=tuple(f"GPU-{number:04d}" for number in range(12))),
    ],
)
def test_the_fleet_is_read_along_the_key(filled: SqliteStore, query: ReadingsQuery) -> None:
    for plan in _plans(filled, query):
        assert "SEARCH r USING PRIMARY KEY (minute>? AND minute<?)" in plan


@pytest.mark.parametrize(
    ("query", "most"),
    [
        # A scan of all readings would take about ten instructions for each: 190 thousand.
        (ReadingsQuery(gpus=("GPU-0003",)), 10),
        (ReadingsQuery(gpus=("GPU-0003",), metric_names=("m4",)), 10),
        (ReadingsQuery(), 35),
        (ReadingsQuery(newest_first=False), 35),
        (ReadingsQuery(after=Position(START + 5 * MINUTE, "GPU-0003", "m4")), 55),
        (ReadingsQuery(pods=("job-3",)), 10),
        (ReadingsQuery(hostnames=("host-001",), metric_names=("m4",)), 10),
        (ReadingsQuery(hostnames=("nowhere",)), 1),
        # A GPU that has been silent for a week is found where it was, not looked for through all that came since.
        (ReadingsQuery(gpus=("GPU-0077",)), 1),
        (ReadingsQuery(hostnames=("old",)), 1),
        (ReadingsQuery(offset=_READINGS - 300), 35),
    ],
)
def test_no_more_is_looked_at_than_needed(filled: SqliteStore, query: ReadingsQuery, most: int) -> None:
    assert _steps(filled, lambda reader: reader.page(query)) <= most


def test_stats_and_names_look_at_no_reading(filled: SqliteStore) -> None:
    assert filled.stats().readings == _READINGS + 1
    assert _steps(filled, lambda reader: reader.stats(0)) <= 2
    assert _steps(filled, lambda reader: reader.metric_names(None)) <= 5
    with _statements(filled) as asked:
        filled.stats()
        filled.metric_names()
        filled.metric_names("GPU-0003")
        assert not [statement for statement in asked if "FROM reading" in statement]


def test_sparse_matches_are_found_through_many_pieces(sqlite_store: SqliteStore) -> None:
    # One pod's few readings among many of its own GPU: what is expected of a piece is far off.
    busy, rare = gpu(1, pod="busy"), gpu(1, pod="rare")
    sqlite_store.write([fleet([busy], START + step * 20 * SECOND, _METRICS) for step in range(3000)])
    sqlite_store.write([fleet([rare], START + step * 2000 * SECOND + 1, _METRICS) for step in range(30)])
    rows = ask(sqlite_store, pods=("rare",), limit=200)
    assert [row.pod for row in rows] == ["rare"] * 200
    assert keys(rows) == keys(
        ask(sqlite_store, pods=("rare",), limit=150) + ask(sqlite_store, pods=("rare",), offset=150, limit=50)
    )
    assert len(ask(sqlite_store, pods=("rare",), limit=10_000)) == 300
    assert len(ask(sqlite_store, pods=("busy",), limit=10, offset=29_995)) == 5


def test_more_minutes_than_one_portion(sqlite_store: SqliteStore) -> None:
    sqlite_store.write([fleet([gpu(1)], START + step * MINUTE, ["a"]) for step in range(2500)])
    for newest_first in (True, False):
        rows = ask(sqlite_store, limit=5000, newest_first=newest_first)
        assert len(rows) == 2500
        (last,) = ask(sqlite_store, limit=1, offset=2400, newest_first=newest_first)
        assert last == rows[2400]


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("query", [{}, {"gpus": ("GPU-0003",)}, {"pods": ("job-3", "job-4", "job-5")}])
@pytest.mark.parametrize("worth", [0, 1, 100, 1000])
def test_deep_offsets_give_the_rows_of_that_place(
    filled: SqliteStore, query: dict[str, Any], newest_first: bool, worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.sqlite_reader._WORTH_COUNTING", worth)
    whole = ask(filled, limit=100_000, newest_first=newest_first, **query)
    for offset in (1, 2, 99, 160, 161, 999, 1199, 1200, 1500, 3333, 9999, 19_199, 19_201, 30_000):
        assert ask(filled, limit=7, offset=offset, newest_first=newest_first, **query) == whole[offset : offset + 7], (
            offset
        )


def test_names_that_were_forgotten_are_looked_up_again(filled: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ask(filled, limit=500)
    monkeypatch.setattr("stores.sqlite_reader._NAMES_KNOWN", 3)
    for name in ("GPU-0001", "GPU-0002"):
        assert len(ask(filled, gpus=(name,))) == 100
    assert ask(filled, limit=500) == before


def test_a_broken_statement_is_an_error_of_sqlite(filled: SqliteStore) -> None:
    with filled._reading() as connection:
        reader = Reader(connection, filled._names)
        with pytest.raises(sqlite3.OperationalError):
            reader._execute("SELECT nothing FROM {p}reading")
