from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from readings.model import PointBlock
from stores.sqlite import SqliteStore
from tests.stores.making import MINUTE, SECOND, START, ask, fleet, gpu, one, several


def _count(store: SqliteStore, table: str) -> int:
    with store._reading() as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count


def _minutes(store: SqliteStore) -> list[tuple[Any, ...]]:
    with store._reading() as connection:
        return connection.execute("SELECT * FROM minute ORDER BY minute").fetchall()


def test_identities_are_kept_once(sqlite_store: SqliteStore) -> None:
    gpus = [gpu(1), gpu(2), gpu(2, pod="job")]
    for step in range(10):
        sqlite_store.write([fleet(gpus, START + step * MINUTE), fleet([gpu(1)], START + step * MINUTE, ["other"])])
    assert _count(sqlite_store, "identity") == 3
    other = SqliteStore(sqlite_store.path)
    other.write([fleet(gpus, START + 11 * MINUTE)])
    other.close()
    assert _count(sqlite_store, "identity") == 3
    assert _count(sqlite_store, "series") == 5


def test_minutes_know_how_many_readings_they_hold(sqlite_store: SqliteStore) -> None:
    minute = START // MINUTE
    begin = minute * MINUTE
    times = [begin, begin + 59 * SECOND, begin + MINUTE]
    for _ in range(2):
        sqlite_store.write([several(gpu(), [(time_ns, 1.0) for time_ns in times])])
    assert _minutes(sqlite_store) == [
        (minute, 2, begin, begin + 59 * SECOND),
        (minute + 1, 1, begin + MINUTE, begin + MINUTE),
    ]
    sqlite_store.write([several(gpu(), [(begin + 5, 1.0), (begin, 7.0)])])
    assert _minutes(sqlite_store)[0] == (minute, 3, begin, begin + 59 * SECOND)


def test_counts_always_equal_what_is_there(sqlite_store: SqliteStore) -> None:
    for step in range(30):
        sqlite_store.write([fleet([gpu(number % 5) for number in range(step)], START + step % 7 * 25 * SECOND)])
        sqlite_store.apply_retention(START + step * 3 * SECOND)
        assert _count(sqlite_store, "reading") == sqlite_store.stats().readings


def test_series_and_identities_know_where_their_readings_are(sqlite_store: SqliteStore) -> None:
    minute = START // MINUTE
    for step in (5, 9, 2, 7):
        sqlite_store.write([one(gpu(), (minute + step) * MINUTE, a=1.0)])
    for table in ("series", "identity"):
        with sqlite_store._reading() as connection:
            bounds = connection.execute(f"SELECT first_minute, last_minute FROM {table}").fetchall()
        assert bounds == [(minute + 2, minute + 9)]


def test_bounds_hold_when_two_stores_write(sqlite_store: SqliteStore) -> None:
    other = SqliteStore(sqlite_store.path)
    for step in range(200):
        writer = sqlite_store if step % 2 else other
        writer.write([one(gpu(), START + (100 + step * (-1) ** step) * MINUTE, a=float(step))])
    other.close()
    assert len(ask(sqlite_store, gpus=("GPU-0000",), limit=1000)) == 200


def test_a_duplicate_metric_name_in_a_block_is_harmless(sqlite_store: SqliteStore) -> None:
    sqlite_store.write([PointBlock([gpu()], ["a", "a"], [(0, START, [1.0, 2.0])])])
    assert [row.value for row in ask(sqlite_store)] == [2.0]
    assert sqlite_store.stats().readings == 1


def test_what_is_remembered_is_bounded(sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.sqlite_writer._IDS_KNOWN", 50)
    for step in range(200):
        sqlite_store.write([fleet([gpu(step)], START + step * MINUTE)])
    with sqlite_store._writing() as writer:
        assert len(writer._identities) < 60
        assert sum(map(len, writer._series.values())) < 60
        assert len(writer._series_seen) <= 66
        assert len(writer._identities_seen) <= 66
    assert len(ask(sqlite_store, limit=1000)) == 400


def test_the_table_itself_takes_no_infinity(sqlite_store: SqliteStore) -> None:
    with sqlite_store._writing() as writer, pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        writer.connection.execute("INSERT INTO reading VALUES (1, 1, 1, ?, 1)", (float("inf"),))
