"""What is particular to roll-ups in SQLite."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from stores.base import StoreError, StoreUnavailable
from stores.rollups.sqlite import SqliteRollups
from stores.rollups.windows import COUNT, STEP_NS, TOTAL, WindowKey
from tests.stores.rollups.conftest import FOREVER
from tests.stores.rollups.making import BEGIN, HOUR, UTIL, gpu, host, table, windows

MINUTE = STEP_NS["1m"]

_WRITER = """
import sys
from stores.rollups.sqlite import SqliteRollups
from tests.stores.rollups.conftest import FOREVER
from tests.stores.rollups.making import BEGIN, UTIL, host, table
rollups = SqliteRollups(sys.argv[1], retention=FOREVER)
for number in range(30):
    rows = [(host(f"{sys.argv[2]}-{place}"), BEGIN + number * 60_000_000_000, {UTIL: {"total": 1.0}}) for place in range(5)]
    rollups.write([table("1m", "host", rows)])
"""


def write_minutes(rollups: SqliteRollups, minutes: range, key: WindowKey) -> None:
    for number in minutes:
        rollups.write([table("1m", "host", [(key, BEGIN + number * MINUTE, {UTIL: {TOTAL: float(number)}})])])


def rows(rollups: SqliteRollups, query: str) -> list[tuple[object, ...]]:
    with rollups.files["1m"].reading() as connection:
        return connection.execute(query).fetchall()


def test_a_full_block_has_one_chunk_for_each_metric_and_stripe(sqlite_rollups: SqliteRollups) -> None:
    write_minutes(sqlite_rollups, range(200), host("a"))
    chunks = rows(sqlite_rollups, "SELECT block, count(*) FROM chunk GROUP BY block ORDER BY block")
    assert [count for _, count in chunks[:2]] == [1, 1]
    assert len(chunks) == 4
    assert max(int(str(count)) for _, count in chunks) <= 12
    assert len(rows(sqlite_rollups, "SELECT * FROM open")) <= 2
    assert len(windows(sqlite_rollups, "1m", "host", UTIL, [TOTAL])) == 200


def test_late_windows_are_merged_too(sqlite_rollups: SqliteRollups) -> None:
    write_minutes(sqlite_rollups, range(200), host("a"))
    for number in (3, 70, 4, 71):
        rollup = table("1m", "host", [(host("a"), BEGIN + number * MINUTE, {UTIL: {TOTAL: -1.0}})])
        sqlite_rollups.write([rollup])
    write_minutes(sqlite_rollups, range(200, 260), host("a"))
    found = windows(sqlite_rollups, "1m", "host", UTIL, [TOTAL])
    assert [(start - BEGIN) // MINUTE for (_, start), stats in found.items() if stats[TOTAL] == -1] == [3, 4, 70, 71]
    chunks = rows(sqlite_rollups, "SELECT count(*) FROM chunk GROUP BY block ORDER BY block")
    assert [count for (count,) in chunks[:2]] == [1, 1]


def test_one_write_may_have_windows_of_many_blocks_and_stripes(sqlite_rollups: SqliteRollups) -> None:
    hosts = [host(f"h{number:03d}") for number in range(300)]
    starts = [BEGIN + number * HOUR for number in range(5)]
    given = [(key, start, {UTIL: {TOTAL: 1.0}}) for key in hosts for start in starts]
    sqlite_rollups.write([table("1m", "host", given)])
    assert len(rows(sqlite_rollups, "SELECT * FROM chunk")) == 5 * 3
    assert len(windows(sqlite_rollups, "1m", "host", UTIL, [TOTAL])) == len(given)


def test_retention_drops_whole_blocks_and_keys_without_windows(tmp_path: Path) -> None:
    rollups = SqliteRollups(tmp_path / "r.sqlite3", retention={"1m": 3600.0, "1h": 0.0})
    write_minutes(rollups, range(180), host("a"))
    old = [(gpu(number), BEGIN, {UTIL: {TOTAL: 1.0}}) for number in range(3)]
    rollups.write(
        [table("1h", "gpu", old), table("1m", "model", [(WindowKey(model="old"), BEGIN, {UTIL: {TOTAL: 1.0}})])]
    )
    rollups.apply_retention(BEGIN + 150 * MINUTE)
    found = windows(rollups, "1m", "host", UTIL, [TOTAL])
    assert [(start - BEGIN) // MINUTE for _, start in found] == list(range(60, 180))
    assert rows(rollups, "SELECT DISTINCT level FROM key") == [("host",)]
    assert len(windows(rollups, "1h", "gpu", UTIL, [TOTAL])) == 3
    # A number that comes back has nothing of the key that had it.
    rollups.write([table("1m", "model", [(WindowKey(model="new"), BEGIN + HOUR, {UTIL: {TOTAL: 2.0}})])])
    assert windows(rollups, "1m", "model", UTIL, [TOTAL]) == {(WindowKey(model="new"), BEGIN + HOUR): {TOTAL: 2.0}}
    rollups.close()


def test_dropped_blocks_are_no_longer_open(sqlite_rollups: SqliteRollups) -> None:
    write_minutes(sqlite_rollups, range(90), host("a"))
    sqlite_rollups.drop("1m", BEGIN, BEGIN + 2 * HOUR)
    assert rows(sqlite_rollups, "SELECT * FROM open") == []
    assert rows(sqlite_rollups, "SELECT * FROM chunk") == []


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "r.sqlite3")
    processes = [subprocess.Popen([sys.executable, "-c", _WRITER, path, name]) for name in "abc"]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    rollups = SqliteRollups(path, retention=FOREVER)
    assert len(windows(rollups, "1m", "host", UTIL, [TOTAL])) == 3 * 5 * 30
    rollups.close()


def test_a_locked_file_is_unavailable_and_nothing_of_the_write_stays(tmp_path: Path) -> None:
    rollups = SqliteRollups(tmp_path / "r.sqlite3", retention=FOREVER, timeout=0.1)
    other = sqlite3.connect(rollups.files["1m"].path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    given = table("1m", "host", [(host("a"), BEGIN, {UTIL: {TOTAL: 1.0, COUNT: 1.0}})])
    with pytest.raises(StoreUnavailable, match=r"r-1m\.sqlite3: is locked by another process"):
        rollups.write([given])
    assert windows(rollups, "1m", "host", UTIL, [TOTAL]) == {}
    other.execute("ROLLBACK")
    other.close()
    rollups.write([given])
    assert len(windows(rollups, "1m", "host", UTIL, [TOTAL])) == 1
    rollups.close()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r-1h.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"r-1h\.sqlite3: is not an SQLite file"):
        SqliteRollups(tmp_path / "r.sqlite3", retention=FOREVER)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # newer Pythons warn of any fork with threads
def test_a_child_writes_with_connections_of_its_own(sqlite_rollups: SqliteRollups) -> None:
    write_minutes(sqlite_rollups, range(1), host("a"))
    child = os.fork()
    if child == 0:
        write_minutes(sqlite_rollups, range(1, 3), host("a"))
        os._exit(len(windows(sqlite_rollups, "1m", "host", UTIL, [TOTAL])))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert len(windows(sqlite_rollups, "1m", "host", UTIL, [TOTAL])) == 3
