"""What the SQLite store promises beyond the contract: durability, several processes, clear errors."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from stores.base import StoreError, StoreUnavailable
from stores.sqlite import SqliteStore
from tests.stores.making import MINUTE, SECOND, START, TEMP, UTIL, ask, fleet, gpu, keys, one, values

ROOT = Path(__file__).resolve().parents[3]

_WRITE_FOR_EVER = """
import sys
from stores.sqlite import SqliteStore
from tests.stores.making import START, SECOND, fleet, gpu
store = SqliteStore(sys.argv[1])
gpus = [gpu(number) for number in range(16)]
for step in range(1_000_000):
    store.write([fleet(gpus, START + step * SECOND)])
    sys.stdout.write(f"{step}\\n")
    sys.stdout.flush()
"""

_WRITE_SOME = """
import sys
from stores.sqlite import SqliteStore
from tests.stores.making import START, SECOND, fleet, gpu
store = SqliteStore(sys.argv[1])
for step in range(60):
    store.write([fleet([gpu(number) for number in range(16)], START + step * SECOND)])
    if step % 20 == 19:
        store.apply_retention(START)
store.close()
"""

_FORK = """
import os, sys, threading
from stores.sqlite import SqliteStore
from stores.base import ReadingsQuery
from tests.stores.making import START, fleet, gpu
store = SqliteStore(sys.argv[1])
store.write([fleet([gpu(1)], START)])
# At the fork one thread holds the write lock, and another connection is idle in the pool.
held, release = threading.Event(), threading.Event()
def hold():
    with store.file.writing():
        held.set()
        release.wait()
assert len(store.page(ReadingsQuery())) == 2
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    assert len(store.page(ReadingsQuery())) == 2
    store.write([fleet([gpu(2)], START)])
    assert len(store.page(ReadingsQuery())) == 4
    os._exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
release.set()
thread.join()
store.write([fleet([gpu(3)], START)])
assert len(store.page(ReadingsQuery())) == 6
store.close()
"""


def _python(script: str, *arguments: Path | str) -> list[str]:
    return [sys.executable, "-c", script, *map(str, arguments)]


def _integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        answer: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        return answer


def test_it_survives_closing_and_opening(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "readings.sqlite3"
    for number in range(3):
        store = SqliteStore(path)
        store.write([one(gpu(number), START, U=float(number))])
        store.close()
    store = SqliteStore(str(path))
    assert values(ask(store)) == [0.0, 1.0, 2.0]
    store.close()


def test_a_killed_writer_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "readings.sqlite3"
    for round_number in range(3):
        process = subprocess.Popen(_python(_WRITE_FOR_EVER, path), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        wanted = 20 + 37 * round_number
        for line in process.stdout:
            if int(line) >= wanted:
                break
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        last = int(rest.split()[-1]) if rest.split() else wanted
        store = SqliteStore(path)
        for step in range(last + 1):
            at = START + step * SECOND
            assert len(ask(store, start_ns=at, end_ns=at + 1)) == 32
        stats = store.stats()
        assert (stats.readings or 0) % 32 == 0
        assert stats.readings == len(ask(store, limit=100_000))
        store.close()
        assert _integrity(path) == "ok"


def test_a_commit_waits_for_the_disk(sqlite_store: SqliteStore) -> None:
    with sqlite_store.file.writing() as writer:
        assert writer.connection.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert writer.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_several_processes_write_the_same_readings_once(tmp_path: Path) -> None:
    # Both also find no file, and make it at the same time.
    path = tmp_path / "readings.sqlite3"
    processes = [subprocess.Popen(_python(_WRITE_SOME, path), cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    store = SqliteStore(path)
    rows = ask(store, limit=100_000)
    assert len(rows) == len(set(keys(rows))) == 60 * 32 == store.stats().readings
    assert store.stats().series == 32
    store.close()


def test_a_reader_sees_what_another_store_writes(tmp_path: Path) -> None:
    writer, reader = SqliteStore(tmp_path / "r.sqlite3"), SqliteStore(tmp_path / "r.sqlite3")
    for step in range(5):
        writer.write([fleet([gpu(step)], START + step)])
        assert len(ask(reader)) == 2 * (step + 1)
        assert ask(reader)[0].uuid == f"GPU-{step:04d}"
    writer.close()
    assert len(ask(reader)) == 10
    reader.close()


def test_ids_that_another_process_dropped_are_not_used_again(tmp_path: Path) -> None:
    one_store, other = SqliteStore(tmp_path / "r.sqlite3"), SqliteStore(tmp_path / "r.sqlite3")
    one_store.write([fleet([gpu(1), gpu(2)], START)])
    assert other.apply_retention(START + MINUTE) == 4
    one_store.write([fleet([gpu(1), gpu(2)], START + 2 * MINUTE)])
    assert len(ask(other)) == 4
    assert ask(other) == ask(one_store)
    assert other.metric_names("GPU-0001") == [TEMP, UTIL]
    one_store.close()
    other.close()


def test_a_fork_takes_no_lock_and_no_connection_along(tmp_path: Path) -> None:
    path = tmp_path / "readings.sqlite3"
    done = subprocess.run(_python(_FORK, path), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert _integrity(path) == "ok"


def test_many_threads_read_while_a_transaction_is_open(sqlite_store: SqliteStore) -> None:
    sqlite_store.write([fleet([gpu(1)], START)])
    found: list[int] = []
    with closing(sqlite3.connect(sqlite_store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM block")
        threads = [threading.Thread(target=lambda: found.append(len(ask(sqlite_store)))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.execute("ROLLBACK")
    assert found == [2] * 8


def test_a_locked_file_is_unavailable_and_then_works(sqlite_store: SqliteStore) -> None:
    with closing(sqlite3.connect(sqlite_store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"readings\.sqlite3: is locked by another process") as caught:
            sqlite_store.write([one(gpu(), START, U=1.0)])
        assert caught.value.retriable
        with pytest.raises(StoreUnavailable, match="locked"):
            sqlite_store.apply_retention(START)
        assert ask(sqlite_store) == []
        other.execute("ROLLBACK")
    sqlite_store.write([one(gpu(), START, U=1.0)])
    assert values(ask(sqlite_store)) == [1.0]


def test_a_full_disk_is_unavailable_and_nothing_of_the_write_stays(sqlite_store: SqliteStore) -> None:
    gpus = [gpu(number) for number in range(64)]
    sqlite_store.write([fleet(gpus, START)])
    with sqlite_store.file.writing() as writer:
        pages = writer.connection.execute("PRAGMA page_count").fetchone()[0]
        writer.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    blocks = [fleet([*gpus, gpu(99)], START + step * SECOND) for step in range(1, 100)]
    with pytest.raises(StoreUnavailable, match="the disk is full") as caught:
        sqlite_store.write(blocks)
    assert "\n" not in str(caught.value)
    assert sqlite_store.stats().readings == 128
    assert len(ask(sqlite_store, limit=10_000)) == 128
    # The failed connection was given up, and with it the limit: there is space again.
    sqlite_store.write(blocks)
    assert sqlite_store.stats().readings == 128 + 99 * 130


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "readings.sqlite3"
    store = SqliteStore(path)
    store.write([fleet([gpu(number) for number in range(64)], START + step * SECOND) for step in range(50)])
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(64 * 1024)
        file.write(b"\xa5" * (size - 64 * 1024))
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=r"readings\.sqlite3: is damaged: restore it") as caught:
        ask(store, limit=100_000)
    assert not caught.value.retriable
    with pytest.raises(StoreError, match="damaged"):
        store.apply_retention(START + MINUTE)
    store.close()


@pytest.mark.parametrize(
    "content", [b"timestamp,metric_name\n" * 100, b"\x00" * 5000, b"SQLite format 3\x00" + b"x" * 500]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "readings.sqlite3"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"readings\.sqlite3: ") as caught:
        SqliteStore(path)
    assert not caught.value.retriable
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="it is a folder"):
        SqliteStore(tmp_path)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"r\.sqlite3: cannot make its folder .*/file: File exists"):
        SqliteStore(tmp_path / "file" / "r.sqlite3")


@contextmanager
def _without_rights() -> Iterator[None]:
    """Root may write everywhere: take its rights away for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_without_write_permission_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with _without_rights(), pytest.raises(StoreError, match="its folder must be writable") as caught:
            SqliteStore(folder / "readings.sqlite3")
        assert not caught.value.retriable
        folder.chmod(0o755)


def test_a_file_without_write_permission_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        SqliteStore(folder / "readings.sqlite3").close()
        folder.chmod(0o555)
        (folder / "readings.sqlite3").chmod(0o444)
        with _without_rights(), pytest.raises(StoreError, match=r"readings\.sqlite3: ") as caught:
            SqliteStore(folder / "readings.sqlite3")
        assert not caught.value.retriable
        folder.chmod(0o755)


def test_a_deleted_file_is_made_anew_rather_than_written_unseen(
    sqlite_store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    sqlite_store.write([fleet([gpu(1)], START)])
    assert len(ask(sqlite_store)) == 2
    for each in sqlite_store.path.parent.iterdir():
        each.unlink()
    sqlite_store.write([fleet([gpu(2)], START)])
    assert [row.uuid for row in ask(sqlite_store)] == ["GPU-0002", "GPU-0002"]
    assert "opening it anew" in caplog.text
    other = SqliteStore(sqlite_store.path)
    assert len(ask(other)) == 2
    other.close()


def test_a_reader_follows_a_file_that_was_replaced(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    sqlite_store.write([fleet([gpu(1)], START)])
    assert len(ask(sqlite_store)) == 2
    replacement = SqliteStore(tmp_path / "other.sqlite3")
    replacement.write([fleet([gpu(5), gpu(6)], START)])
    replacement.close()
    for each in tmp_path.glob("readings.sqlite3-*"):
        each.unlink()
    (tmp_path / "other.sqlite3").rename(sqlite_store.path)
    assert {row.uuid for row in ask(sqlite_store)} == {"GPU-0005", "GPU-0006"}


def test_ping_is_unavailable_when_the_file_cannot_be_had(sqlite_store: SqliteStore) -> None:
    sqlite_store.ping()
    folder = sqlite_store.path.parent
    for each in folder.iterdir():
        each.unlink()
    sqlite_store.path.mkdir()
    with pytest.raises(StoreUnavailable, match="it is a folder"):
        sqlite_store.ping()


def test_bytes_are_those_on_the_disk(sqlite_store: SqliteStore) -> None:
    sqlite_store.write([fleet([gpu(number) for number in range(64)], START + step) for step in range(50)])
    on_disk = sum(each.stat().st_size for each in sqlite_store.path.parent.glob("readings.sqlite3*"))
    assert 0.5 * on_disk < sqlite_store.stats().bytes <= on_disk


def test_readers_that_overlap_do_not_let_the_log_grow_for_ever(
    sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = sqlite_store.path.with_name("readings.sqlite3-wal")
    monkeypatch.setattr("stores.sqlite.connections._WAL_BYTES_KEPT", 100_000)
    gpus = [gpu(number) for number in range(64)]
    with closing(sqlite3.connect(sqlite_store.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM recent").fetchall()
        for step in range(20):
            sqlite_store.write([fleet(gpus, START + step * MINUTE)])
        assert log.stat().st_size > 100_000
        reader.execute("COMMIT")
    sqlite_store.write([fleet(gpus, START + 30 * MINUTE)])
    assert log.stat().st_size == 0
    with sqlite_store.file.writing() as writer:
        assert writer.connection.execute("PRAGMA busy_timeout").fetchone() == (200,)
    assert sqlite_store.stats().readings == 21 * 128


def test_an_error_in_the_middle_of_a_write_leaves_nothing_behind(sqlite_store: SqliteStore) -> None:
    sqlite_store.write([fleet([gpu(1)], START)])
    short = fleet([gpu(2), gpu(3)], START)
    short.points[1] = (1, START, [1.0])
    with pytest.raises(ValueError, match="zip"):
        sqlite_store.write([fleet([gpu(4)], START), short])
    assert {row.uuid for row in ask(sqlite_store)} == {"GPU-0001"}
    sqlite_store.write([fleet([gpu(4)], START)])
    assert {row.uuid for row in ask(sqlite_store)} == {"GPU-0001", "GPU-0004"}


def test_close_while_others_read(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "r.sqlite3")
    store.write([fleet([gpu(number) for number in range(64)], START + step * SECOND) for step in range(100)])
    outcomes: list[str] = []
    started = threading.Barrier(5)

    def read() -> None:
        started.wait()
        try:
            for _ in range(1000):
                ask(store, limit=1000)
        except StoreError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    store.close()
    for thread in threads:
        thread.join()
    assert [outcome.endswith("the store is closed") for outcome in outcomes] == [True] * 4
