"""How fast the SQLite store writes and answers, beside a plain table with one row of columns per reading.

    python -m bench.sqlite_store --readings 2000000

Both write the same made-up fleet (256 GPUs, 10 metrics, one point every 5 s), one block of all GPUs per transaction,
with the same durability (WAL, synchronous=FULL), into an empty folder on the disk that --folder names. The peer is
what one writes first: a table with a column for each field, an index for a GPU's readings and one for times, and
``INSERT … ON CONFLICT`` through executemany.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from readings.model import Gpu, Point, PointBlock
from stores.base import Position, ReadingsQuery
from stores.sqlite import SqliteStore

START = 1_752_871_354_000_000_000
SECOND = 1_000_000_000
ROUNDS = 25


class Subject(Protocol):
    """What is measured."""

    name: str

    def write(self, blocks: Sequence[PointBlock]) -> None:
        """Store blocks in one durable transaction."""

    def query(self, query: ReadingsQuery) -> int:
        """Answer a query; returns how many rows."""

    def drop(self, oldest_ns: int) -> int:
        """Drop what is older; returns how many readings."""

    def close(self) -> None:
        """Let go of the file."""


class OurStore:
    """The project's store."""

    name = "store"

    def __init__(self, folder: Path) -> None:
        self._store = SqliteStore(folder / "store.sqlite3")
        self.path = self._store.path

    def write(self, blocks: Sequence[PointBlock]) -> None:
        self._store.write(blocks)

    def query(self, query: ReadingsQuery) -> int:
        return len(self._store.page(query))

    def drop(self, oldest_ns: int) -> int:
        return self._store.apply_retention(oldest_ns)

    def close(self) -> None:
        self._store.close()


class PlainTable:
    """The peer."""

    name = "plain table"
    _COLUMNS = "time, metric, value, uuid, mig_id, gpu_id, device, model_name, hostname, container, pod, namespace"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "plain.sqlite3"
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA cache_size = -32768",
            f"CREATE TABLE reading ({self._COLUMNS})",
            "CREATE UNIQUE INDEX of_gpu ON reading (uuid, metric, time)",
            "CREATE INDEX by_time ON reading (time)",
        ):
            self._connection.execute(statement)

    def write(self, blocks: Sequence[PointBlock]) -> None:
        rows = [
            (
                time_ns, name, value, gpu.uuid, gpu.mig_id, gpu.gpu_id, gpu.device, gpu.model_name, gpu.hostname,
                gpu.container, gpu.pod, gpu.namespace,
            )
            for block in blocks
            for index, time_ns, values in block.points
            for gpu in (block.gpus[index],)
            for name, value in zip(block.metric_names, values, strict=True)
            if value is not None
        ]  # fmt: skip
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            f"INSERT INTO reading VALUES ({', '.join('?' * 12)})"
            " ON CONFLICT (uuid, metric, time) DO UPDATE SET value = excluded.value",
            rows,
        )
        self._connection.execute("COMMIT")

    def query(self, query: ReadingsQuery) -> int:
        conditions, values = ["1"], list[Any]()
        for column, wanted in (
            ("uuid", query.gpus), ("metric", query.metric_names), ("hostname", query.hostnames), ("pod", query.pods),
        ):  # fmt: skip
            if wanted:
                conditions.append(f"{column} IN ({', '.join('?' * len(wanted))})")
                values += wanted
        if query.start_ns is not None:
            conditions.append("time >= ?")
            values.append(query.start_ns)
        if query.after is not None:
            conditions.append("(time < ? OR (time = ? AND (uuid, metric) > (?, ?)))")
            values += [query.after.time_ns, query.after.time_ns, query.after.gpu, query.after.metric_name]
        found = self._connection.execute(
            f"SELECT {self._COLUMNS} FROM reading WHERE {' AND '.join(conditions)}"
            " ORDER BY time DESC, uuid, metric LIMIT ? OFFSET ?",
            (*values, query.limit, query.offset),
        )
        return len(found.fetchall())

    def drop(self, oldest_ns: int) -> int:
        return self._connection.execute("DELETE FROM reading WHERE time < ?", (oldest_ns,)).rowcount

    def close(self) -> None:
        self._connection.close()


def blocks_of(gpus: Sequence[Gpu], metrics: Sequence[str], total: int) -> Iterator[PointBlock]:
    """Blocks of all GPUs at one time, each GPU a little later than the one before."""
    chance = random.Random(1)
    made, at = 0, START
    while made < total:
        points: list[Point] = [
            (place, at + place * 1_000_003, [chance.random() * 100 for _ in metrics]) for place in range(len(gpus))
        ]
        yield PointBlock(list(gpus), list(metrics), points)
        made += len(gpus) * len(metrics)
        at += 5 * SECOND


def bytes_written() -> int:
    """What this process has had written to the disk, as the kernel counts it; 0 where it does not."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def measure(
    subject: Subject, path: Path, blocks: Iterator[PointBlock], per_write: int, queries: dict[str, ReadingsQuery]
) -> None:
    """Print one subject's figures."""
    written, busy, slowest, newest = 0, 0.0, 0.0, START
    io_before = bytes_written()
    while batch := [block for _, block in zip(range(per_write), blocks, strict=False)]:
        began = time.perf_counter()
        subject.write(batch)
        took = time.perf_counter() - began
        busy, slowest = busy + took, max(slowest, took)
        written += sum(block.count() for block in batch)
        newest = batch[-1].points[-1][1]
    written_bytes = bytes_written() - io_before
    print(
        f"{subject.name}: wrote {written:,} readings at {written / busy:,.0f}/s, slowest write {slowest * 1e3:.0f} ms,"
    )
    print(f"    {path.stat().st_size / written:.0f} B on disk and {written_bytes / written:,.0f} B written per reading")
    for label, query in queries.items():
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            rows = subject.query(query)
            times.append((time.perf_counter() - began) * 1e3)
            if sum(times) > 5000:
                break
        print(f"    {label:<42} {statistics.median(times):9.2f} ms median {max(times):9.2f} ms worst {rows:6} rows")
    began = time.perf_counter()
    dropped = subject.drop(START + (newest - START) // 4)
    took = time.perf_counter() - began
    print(f"    retention dropped {dropped:,} at {dropped / took:,.0f}/s")


def main() -> None:
    """Measure the store and its peer, one after the other, on the same readings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=2_000_000)
    parser.add_argument("--gpus", type=int, default=256)
    parser.add_argument("--metrics", type=int, default=10)
    parser.add_argument("--blocks-per-write", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--only", choices=("store", "plain"), help="leave the other out")
    options = parser.parse_args()

    gpus = [
        Gpu(
            uuid=f"GPU-{number:08x}-86f3-7a43-b711-4771313afc50",
            hostname=f"mtv5-dgx1-hgpu-{number // 8:03d}",
            gpu_id=number % 8,
            device=f"nvidia{number % 8}",
            model_name="NVIDIA H100 80GB HBM3",
            pod=f"train-{number}",
            namespace="ml",
        )
        for number in range(options.gpus)
    ]
    metrics = [f"DCGM_FI_DEV_METRIC_{number}" for number in range(options.metrics)]
    one, other = gpus[len(gpus) // 2], metrics[len(metrics) // 2]
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-sqlite-") as name:
        makers: dict[str, Callable[[Path], OurStore | PlainTable]] = {"store": OurStore, "plain": PlainTable}
        for key, make in makers.items():
            if options.only not in (None, key):
                continue
            subject = make(Path(name))
            rounds = options.readings // (options.gpus * options.metrics)
            middle = Position(START + rounds // 2 * 5 * SECOND, one.uuid, other)
            queries = {
                "newest 100 of a GPU": ReadingsQuery(gpus=(one.uuid,)),
                "newest 100 of a GPU and metric": ReadingsQuery(gpus=(one.uuid,), metric_names=(other,)),
                "newest 1000 of a GPU and metric": ReadingsQuery(gpus=(one.uuid,), metric_names=(other,), limit=1000),
                "newest page of the fleet (100)": ReadingsQuery(),
                "newest page of the fleet (1000)": ReadingsQuery(limit=1000),
                "a page in the middle, by cursor": ReadingsQuery(after=middle),
                "a page in the middle, by offset": ReadingsQuery(offset=options.readings // 2),
                "newest 100 of a host": ReadingsQuery(hostnames=(one.hostname,)),
                "newest 100 of a metric": ReadingsQuery(metric_names=(other,)),
                "newest 100 of a pod": ReadingsQuery(pods=(one.pod,)),
                "newest 100 of a host that is not there": ReadingsQuery(hostnames=("nowhere",)),
            }
            blocks = blocks_of(gpus, metrics, options.readings)
            measure(subject, subject.path, blocks, options.blocks_per_write, queries)
            subject.close()


if __name__ == "__main__":
    main()
