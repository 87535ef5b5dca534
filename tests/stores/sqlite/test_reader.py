"""How queries are answered: by looking at how much, and from wherever rows lie."""

from __future__ import annotations

from typing import Any

import pytest

from stores.base import Position, ReadingsQuery
from stores.sqlite import SqliteStore, reader
from tests.stores.making import MINUTE, SECOND, START, ask, fleet, gpu, keys, one

_STEPS = 120
_METRICS = [f"m{number}" for number in range(10)]
_READINGS = 16 * len(_METRICS) * _STEPS


@pytest.fixture
def filled(sqlite_store: SqliteStore) -> SqliteStore:
    """16 GPUs with 10 metrics each, every 10 s for 20 minutes, and one GPU that reported once, long before."""
    gpus = [gpu(number, pod=f"job-{number}") for number in range(16)]
    sqlite_store.write([one(gpu(77, hostname="old"), START - 10_000 * MINUTE, m0=1.0)])
    for step in range(_STEPS):
        sqlite_store.write([fleet(gpus, START + step * 10 * SECOND, _METRICS)])
    return sqlite_store


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many readings each row holds that is decoded."""
    sizes: list[int] = []
    for name in ("stored_points", "recent_points"):
        original = getattr(reader, name)

        def counting(*values: Any, original: Any = original) -> Any:
            points = original(*values)
            sizes.append(points.values.size)
            return points

        monkeypatch.setattr(reader, name, counting)
    return sizes


@pytest.mark.parametrize(
    ("query", "most"),
    [
        # A block has 4800 readings. Two of them are not merged yet: of those, whole rows are decoded.
        (ReadingsQuery(gpus=("GPU-0003",)), 10_000),
        (ReadingsQuery(gpus=("GPU-0003",), metric_names=("m4",)), 10_500),
        (ReadingsQuery(gpus=("GPU-0003",), newest_first=False, start_ns=START + 5 * MINUTE), 5000),
        (ReadingsQuery(metric_names=("m4",)), 5000),
        (ReadingsQuery(), 5000),
        (ReadingsQuery(newest_first=False), 5000),
        (ReadingsQuery(after=Position(START + 5 * MINUTE, "GPU-0003", "m4")), 5000),
        (ReadingsQuery(pods=("job-3",)), 10_000),
        (ReadingsQuery(hostnames=("host-001",), metric_names=("m4",)), 10_500),
        (ReadingsQuery(hostnames=("nowhere",)), 0),
        # A GPU that has been silent for a week is found where it was, not looked for through all that came since.
        (ReadingsQuery(gpus=("GPU-0077",)), 10),
        (ReadingsQuery(hostnames=("old",)), 10),
        (ReadingsQuery(metric_names=("none",)), 0),
    ],
)
def test_no_more_is_decoded_than_needed(
    filled: SqliteStore, decoded: list[int], query: ReadingsQuery, most: int
) -> None:
    filled.page(query)
    assert sum(decoded) <= most


def test_stats_and_names_look_at_no_reading(filled: SqliteStore) -> None:
    asked: list[str] = []
    with filled.file.reading() as connection:
        connection.set_trace_callback(asked.append)
    assert filled.stats().readings == _READINGS + 1
    assert len(filled.metric_names()) == len(filled.metric_names("GPU-0003")) == 10
    assert filled.metric_names("GPU-0077") == ["m0"]
    assert len(asked) >= 8
    assert not [
        statement for statement in asked if any(f"FROM {table}" in statement for table in ("block", "chunk", "recent"))
    ]


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
@pytest.mark.parametrize("at_once", [1, 100, 1000, 200_000])
def test_deep_offsets_give_the_rows_of_that_place(
    filled: SqliteStore, query: dict[str, Any], newest_first: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.sqlite.reader.READ_AT_ONCE", at_once)
    whole = ask(filled, limit=100_000, newest_first=newest_first, **query)
    for offset in (1, 2, 99, 160, 161, 999, 1199, 1200, 1500, 3333, 9999, 19_199, 19_201, 30_000):
        assert ask(filled, limit=7, offset=offset, newest_first=newest_first, **query) == whole[offset : offset + 7], (
            offset
        )


def test_names_that_were_forgotten_are_looked_up_again(filled: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ask(filled, limit=500)
    monkeypatch.setattr("stores.sqlite.reader._NAMES_KNOWN", 3)
    for name in ("GPU-0001", "GPU-0002"):
        assert len(ask(filled, gpus=(name,))) == 100
    assert ask(filled, limit=500) == before
