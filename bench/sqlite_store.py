"""How fast the SQLite store takes a collector's flushes, how much disk a reading needs, and how fast rows come back.

    python -m bench.sqlite_store                       # whole points, small points, points in parts
    python -m bench.sqlite_store --cases live          # 10,000 GPUs x 25 metrics each 10 s, a flush each second

Each flush is what messages of ten points decode to, stored in one durable transaction. Only the time inside ``write()``
counts, as CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from readings.model import Gpu, Point, PointBlock
from stores.aggregate.buckets import Buckets
from stores.base import Position, ReadingsQuery, SeriesQuery
from stores.sqlite import SqliteStore

START = 1_752_871_200_000_000_000
SECOND = 1_000_000_000
INTERVAL = 10 * SECOND
ROUNDS = 25
_POINTS_A_MESSAGE = 10


class Case(NamedTuple):
    """A fleet, and how its points come: each in so many flushes of a part of its metrics."""

    gpus: int
    metrics: int
    parts: int = 1
    flushes_an_interval: int = 1


CASES = {
    "25 metrics": Case(256, 25),
    "10 metrics": Case(256, 10),
    "3 metrics": Case(256, 3),
    "2 metrics": Case(256, 2),
    "ten parts": Case(256, 10, parts=10),
    "ten parts of 25": Case(256, 25, parts=10),
    "small fleet": Case(16, 25),
    "live": Case(10_000, 25, flushes_an_interval=10),
}


def fleet(count: int) -> list[Gpu]:
    """Made-up GPUs, eight to a host."""
    return [
        Gpu(
            uuid=f"GPU-{number:08x}-86f3-7a43-b711-4771313afc50",
            hostname=f"mtv5-dgx1-hgpu-{number // 8:03d}",
            gpu_id=number % 8,
            device=f"nvidia{number % 8}",
            model_name="NVIDIA H100 80GB HBM3",
            pod=f"train-{number}",
            namespace="ml",
        )
        for number in range(count)
    ]


def flushes(case: Case, total: int) -> Iterator[list[PointBlock]]:
    """What each flush holds, decoded anew as a collector does."""
    chance = random.Random(1)
    gpus, metrics = fleet(case.gpus), [f"DCGM_FI_DEV_METRIC_{number}" for number in range(case.metrics)]
    made, at = 0, START
    share = -(-len(gpus) // case.flushes_an_interval)
    while made < total:
        for first in range(0, len(gpus), share):
            numbers = range(first, min(first + share, len(gpus)))
            values = {number: [chance.random() * 100 for _ in metrics] for number in numbers}
            for part in range(case.parts):
                names = metrics[part :: case.parts]
                yield [
                    _message(gpus, names, numbers[start : start + _POINTS_A_MESSAGE], at, values, part, case.parts)
                    for start in range(0, len(numbers), _POINTS_A_MESSAGE)
                ]
                made += len(numbers) * len(names)
        at += INTERVAL


def _message(
    gpus: Sequence[Gpu],
    names: list[str],
    numbers: range,
    at: int,
    values: dict[int, list[float]],
    part: int,
    parts: int,
) -> PointBlock:
    points: list[Point] = [
        (place, at + number * 1_000_003 % INTERVAL, list(values[number][part::parts]))
        for place, number in enumerate(numbers)
    ]
    block = PointBlock([gpus[number] for number in numbers], names, points)
    return msgspec.json.decode(msgspec.json.encode(block), type=PointBlock)


def measure(name: str, case: Case, readings: int, folder: Path) -> SqliteStore:
    """Fill an empty store and print what it took."""
    store = SqliteStore(folder / f"{name.replace(' ', '-')}.sqlite3")
    written, busy, slowest = 0, 0.0, 0.0
    stop, asked = threading.Event(), list[float]()
    reader = threading.Thread(target=_ask_meanwhile, args=(store, stop, asked))
    if name == "live":
        reader.start()
    for blocks in flushes(case, readings):
        began, cpu = time.perf_counter(), time.thread_time()
        written += store.write(blocks).written
        busy += time.thread_time() - cpu
        slowest = max(slowest, time.perf_counter() - began)
    stop.set()
    assert store.stats().readings == written
    store.close()  # empties the write-ahead log into the file
    size = store.path.stat().st_size
    store = SqliteStore(store.path)
    print(
        f"{name:<16} {written / busy:>10,.0f} readings/CPU s   {busy / written * 1e6:6.2f} CPU s/million"
        f"   {size / written:6.1f} B/reading   slowest write {slowest * 1e3:4.0f} ms",
        flush=True,
    )
    if name == "live":
        reader.join()
        print(
            f"{'':16} a reader's last 100 of a GPU: {statistics.median(asked):.1f} ms median, {max(asked):.1f} ms worst, of {len(asked)}"
        )
    return store


def _ask_meanwhile(store: SqliteStore, stop: threading.Event, asked: list[float]) -> None:
    query = ReadingsQuery(gpus=(fleet(100)[-1].uuid,), metric_names=("DCGM_FI_DEV_METRIC_3",))
    while not stop.wait(0.2):
        began = time.perf_counter()
        store.page(query)
        asked.append((time.perf_counter() - began) * 1e3)


def ask(store: SqliteStore, case: Case) -> None:
    """Print how long pages take."""
    one, other = fleet(case.gpus)[case.gpus // 2], f"DCGM_FI_DEV_METRIC_{case.metrics // 2}"
    stats = store.stats()
    newest = stats.newest_ns or START
    middle = Position((START + newest) // 2, one.uuid, other)
    hour = SeriesQuery(metric_name=other, buckets=Buckets(newest - 3600 * SECOND, newest, 300 * SECOND), by="model")
    calls: dict[str, Callable[[], object]] = {
        name: partial(store.page, query)
        for name, query in {
            "newest 100 of a GPU": ReadingsQuery(gpus=(one.uuid,)),
            "newest 100 of a GPU and metric": ReadingsQuery(gpus=(one.uuid,), metric_names=(other,)),
            "newest 1000 of a GPU and metric": ReadingsQuery(gpus=(one.uuid,), metric_names=(other,), limit=1000),
            "newest page of the fleet (100)": ReadingsQuery(),
            "newest page of the fleet (1000)": ReadingsQuery(limit=1000),
            "a page in the middle, by cursor": ReadingsQuery(after=middle),
            "a page in the middle, by offset": ReadingsQuery(offset=(stats.readings or 0) // 2),
            "newest 100 of a host": ReadingsQuery(hostnames=(one.hostname,)),
            "newest 100 of a metric": ReadingsQuery(metric_names=(other,)),
            "newest 100 of a pod": ReadingsQuery(pods=(one.pod,)),
            "newest 100 of a host that is not there": ReadingsQuery(hostnames=("nowhere",)),
        }.items()
    }
    calls |= {"mean by model of an hour": lambda: store.series(hour), "stats": store.stats}
    for label, call in calls.items():
        times: list[float] = []
        while len(times) < ROUNDS and sum(times) < 3000:
            began = time.perf_counter()
            call()
            times.append((time.perf_counter() - began) * 1e3)
        print(f"    {label:<42} {statistics.median(times):9.2f} ms median {max(times):9.2f} ms worst")
    began = time.thread_time()
    rows = sum(len(portion) for portion in store.stream(ReadingsQuery(limit=None)))
    print(f"    {'everything, as a stream':<42} {rows / (time.thread_time() - began):9,.0f} rows/CPU s")
    began = time.perf_counter()
    dropped = store.apply_retention(START + (newest - START) // 4)
    print(f"    {'retention':<42} {dropped / (time.perf_counter() - began):9,.0f} readings/s")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=2_000_000)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=[name for name in CASES if name != "live"])
    parser.add_argument("--ask", action="store_true", help="also read what was written")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-sqlite-") as folder:
        for name in options.cases:
            store = measure(name, CASES[name], options.readings, Path(folder))
            if options.ask:
                ask(store, CASES[name])
            store.close()


if __name__ == "__main__":
    main()
