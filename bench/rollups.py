"""What roll-ups cost: their disk and the CPU of making and writing them, beside the raw readings of the same simulated days.

    python -m bench.rollups                                   # 1,000 GPUs x 25 metrics, 10 s, 24 h: half an hour
    python -m bench.rollups --raw-hours 1 --stores influxdb   # … a quarter of that: most raw readings are not stored
    python -m bench.rollups --read                            # only how fast windows come back: tiers made directly

Raw readings and windows go through the stores' own write(): readings in blocks of five minutes, minutes one by one as the
roller writes them, hours when they are over. InfluxDB keeps raw readings in shards of an hour, as with RETENTION_PERIOD=24h; it is given
time to compact, and then stopped: what counts are its files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.api import STORES, start_influxd
from ingest.simulator.fleet import DEFAULT_METRICS, FleetShape, SimFleet
from readings.catalogue import is_counter
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND
from stores.aggregate.arrays import ReadingSource
from stores.aggregate.functions import Floats
from stores.base import Store
from stores.influxdb import InfluxStore
from stores.rollups.combining import combine
from stores.rollups.influxdb import InfluxRollups
from stores.rollups.partials import NEVER_NS, SourcePartials
from stores.rollups.sqlite import SqliteRollups
from stores.rollups.windows import (
    LEVELS,
    STEP_NS,
    Level,
    RollupStore,
    Tier,
    WindowKey,
    WindowTable,
    stats_of,
)  # fmt: skip
from stores.sqlite import SqliteStore
from tests.influxd import Influxd

INTERVAL_NS = 10 * SECOND
_STEPS = 6  # of a minute
_GPUS_A_HOST = 8
_ROUNDS = 9
_RAW_RETENTION = 47 * 3600.0  # InfluxDB makes shards of an hour for it
_FOREVER: dict[Tier, float] = dict.fromkeys(STEP_NS, 0.0)
# An influxd that puts into its files at once what it would leave in its log for hours.
_COMPACTS_SOON = {
    "INFLUXD_STORAGE_CACHE_SNAPSHOT_WRITE_COLD_DURATION": "5s",
    "INFLUXD_STORAGE_COMPACT_FULL_WRITE_COLD_DURATION": "10s",
}
_TICKS = os.sysconf("SC_CLK_TCK")


class Simulated:
    """The readings of a simulated fleet, a minute at a time."""

    def __init__(self, gpus: int) -> None:
        self.fleet = SimFleet(FleetShape(hosts=-(-gpus // _GPUS_A_HOST), gpus_per_host=_GPUS_A_HOST))
        self._gpus = [gpu for host in self.fleet.hosts for gpu in host.gpus]
        self.gpus: list[Gpu] = [gpu.identity for gpu in self._gpus]
        self.sources = [ReadingSource(gpu.uuid, gpu.mig_id, gpu.hostname, gpu.model_name) for gpu in self.gpus]
        self._newest: Floats | None = None

    def minute(self) -> Floats:
        """Values by step, GPU and metric."""
        values = np.empty((_STEPS, len(self._gpus), len(DEFAULT_METRICS)))
        for step in range(_STEPS):
            self.fleet.step(INTERVAL_NS / SECOND)
            values[step] = [[gpu.value(name) for name in DEFAULT_METRICS] for gpu in self._gpus]
        return values

    def partials(self, values: Floats, start_ns: int) -> SourcePartials:
        """What a window of a minute is made of."""
        shape = values.shape[1:]
        steps = np.diff(values, axis=0, prepend=values[:1] if self._newest is None else self._newest[np.newaxis])
        self._newest = values[-1]
        counts_up = np.array([is_counter(name) for name in DEFAULT_METRICS])
        return SourcePartials(
            start_ns,
            start_ns + STEP_NS["1m"],
            self.sources,
            DEFAULT_METRICS,
            count=np.full(shape, float(_STEPS)),
            total=values.sum(axis=0),
            low=values.min(axis=0),
            high=values.max(axis=0),
            last=values[-1],
            last_ns=np.full(shape, start_ns + (_STEPS - 1) * INTERVAL_NS) if len(values) else np.full(shape, NEVER_NS),
            steps=np.where(counts_up, float(_STEPS), 0.0) + np.zeros(shape),
            increase=np.where(counts_up, steps.sum(axis=0), 0.0),
            carried=np.where(counts_up, steps[0], np.nan),
        )


@dataclass
class Cost:
    """CPU seconds of this process and of the server."""

    server: Influxd | None
    ours: float = 0.0
    servers: float = 0.0
    _began: tuple[float, float] = field(default=(0.0, 0.0))

    def __enter__(self) -> None:
        self._began = time.process_time(), _cpu(self.server)

    def __exit__(self, *_: object) -> None:
        self.ours += time.process_time() - self._began[0]
        self.servers += _cpu(self.server) - self._began[1]

    def per_million(self, readings: int) -> str:
        """As text."""
        server = f" + server {self.servers / readings * 1e6:.3f}" if self.server else ""
        return f"{self.ours / readings * 1e6:.3f}{server} CPU s per million readings"


def _cpu(server: Influxd | None) -> float:
    """Seconds of CPU that it has used."""
    if server is None or server.process is None:
        return 0.0
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Readings(NamedTuple):
    """How many readings there were, and how many of them were stored."""

    made: int
    stored: int


def fill(
    store: Store, rollups: RollupStore, server: Influxd | None, options: argparse.Namespace, end_ns: int
) -> Readings:
    """Write raw readings and their windows; prints the costs."""
    simulated, readings, stored = Simulated(options.gpus), 0, 0
    raw, making, writing = Cost(server), Cost(server), Cost(server)
    begin_ns = end_ns - options.hours * STEP_NS["1h"]
    raw_from_ns = begin_ns if options.raw_hours is None else end_ns - options.raw_hours * STEP_NS["1h"]
    for hour_ns in range(begin_ns, end_ns, STEP_NS["1h"]):
        hour: SourcePartials | None = None
        waiting: list[tuple[int, Floats]] = []
        minutes = []
        for start_ns in range(hour_ns, hour_ns + STEP_NS["1h"], STEP_NS["1m"]):
            values = simulated.minute()
            readings += values.size
            minutes.append(simulated.partials(values, start_ns))
            if start_ns >= raw_from_ns:
                waiting.append((start_ns, values))
                stored += values.size
            if len(waiting) == 5:
                block = PointBlock(simulated.gpus, list(DEFAULT_METRICS), list(_points(waiting)))
                waiting.clear()
                with raw:
                    store.write([block])
        for minute in minutes:
            with making:
                tables = combine(minute, "1m", minute.begins_ns)
                hour = minute if hour is None else hour.merge_later(minute)
            with writing:
                rollups.write(tables)
        assert hour is not None
        with making:
            tables = combine(hour, "1h", hour_ns)
        with writing:
            rollups.write(tables)
    print(f"  {readings:,} readings, {stored:,} stored raw. Raw: {raw.per_million(stored)}", flush=True)
    print(f"  roll-ups: making {making.per_million(readings)}, writing {writing.per_million(readings)}", flush=True)
    return Readings(readings, stored)


def _points(minutes: list[tuple[int, Floats]]) -> Iterator[Point]:
    for start_ns, values in minutes:
        for step, of_gpus in enumerate(values.tolist()):
            for place, of_metrics in enumerate(of_gpus):
                yield place, start_ns + step * INTERVAL_NS, of_metrics


def report(readings: Readings, hours: int, sizes: dict[str, int]) -> None:
    """Print the bytes of raw and of each tier."""
    a_reading = sizes.pop("raw") / readings.stored
    raw = a_reading * readings.made
    print(f"  raw {raw / 1e6:9,.1f} MB   {a_reading:.2f} B a reading", flush=True)
    for name, size in sizes.items():
        print(f"  {name:<3} {size / 1e6:9,.1f} MB   {size / raw:7.2%} of raw", flush=True)
    print(f"  all tiers {sum(sizes.values()) / raw:.2%} of raw over the same {hours} hours (goal 15 %)", flush=True)


def settle(server: Influxd, folder: Path) -> None:
    """Start it anew so that it soon compacts, wait until all is in its files and steady, then stop it."""
    server.stop()
    os.environ.update(_COMPACTS_SOON)
    server.start()
    steady, before = 0, -1
    while steady < 10:
        time.sleep(3)
        waiting = sum(path.stat().st_size for path in folder.rglob("*.wal"))
        steady = steady + 1 if size_of(folder) == before and not waiting else 0
        before = size_of(folder)
    server.stop()


def size_of(folder: Path) -> int:
    """The bytes that all files in a folder take on the disk: of some InfluxDB takes more by name, but leaves them empty."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it compacts
            size += path.stat().st_blocks * 512
    return size


def on_sqlite(folder: Path, options: argparse.Namespace, end_ns: int) -> None:
    """Fill SQLite files and measure them."""
    path = folder / "readings.sqlite3"
    store, rollups = SqliteStore(path), SqliteRollups(path, retention=_FOREVER)
    readings = fill(store, rollups, None, options, end_ns)
    store.close()
    rollups.close()
    sizes = {"raw": path.stat().st_size}
    sizes |= {tier: path.with_name(f"readings-{tier}.sqlite3").stat().st_size for tier in STEP_NS}
    report(readings, options.hours, sizes)


def on_influxdb(folder: Path, server: Influxd, options: argparse.Namespace, end_ns: int) -> None:
    """Fill buckets of an influxd and measure their folders."""
    config = server.config(bucket="raw", retention=_RAW_RETENTION)
    store = InfluxStore(config)
    rollups = InfluxRollups(config, retention=_FOREVER)
    readings = fill(store, rollups, server, options, end_ns)
    buckets = {name: server.bucket(bucket) for name, bucket in (("raw", "raw"), ("1m", "raw_1m"), ("1h", "raw_1h"))}
    store.close()
    rollups.close()
    data = folder / "influxd" / "engine" / "data"
    settle(server, folder / "influxd" / "engine")
    report(readings, options.hours, {name: size_of(data / bucket["id"]) for name, bucket in buckets.items() if bucket})


def windows(tier: Tier, level: Level, keys: list[WindowKey], first_ns: int, count: int) -> WindowTable:
    """Made-up windows of one metric."""
    chance = np.random.default_rng(1)
    rows = len(keys) * count
    stats = {
        stat: chance.integers(0, 100, (rows, 1)).astype(np.float64) for stat in stats_of(DEFAULT_METRICS[0], level)
    }
    starts = first_ns + np.repeat(np.arange(count), len(keys)) * STEP_NS[tier]
    return WindowTable(tier, level, keys, DEFAULT_METRICS[:1], np.tile(np.arange(len(keys)), count), starts, stats)


def read(rollups: RollupStore, server: Influxd | None, end_ns: int) -> None:
    """Print how long questions of one metric take."""
    few, many = ([WindowKey(hostname=f"host-{number:05d}", model="H100") for number in range(n)] for n in (125, 1250))
    gpus = [WindowKey(f"GPU-{n:08x}-86f3-7a43-b711", "", f"host-{n // 8:05d}", "H100") for n in range(10_000)]
    hour, minute = STEP_NS["1h"], STEP_NS["1m"]
    for table in (
        windows("1h", "host", few, end_ns - 720 * hour, 696),
        windows("1h", "host", many, end_ns - 24 * hour, 24),
        windows("1h", "gpu", gpus, end_ns - 24 * hour, 24),
        windows("1m", "host", many, end_ns - 60 * minute, 60),
        windows("1m", "fleet", [WindowKey()], end_ns - 1440 * minute, 1440),
    ):
        rollups.write([table])
    questions: dict[str, Callable[[], WindowTable]] = {}

    def ask(name: str, tier: Tier, level: Level, windows: int, gpus: tuple[str, ...] = ()) -> None:
        assert level in LEVELS[tier]
        start_ns = end_ns - windows * STEP_NS[tier]
        questions[name] = lambda: rollups.read(
            tier, level, DEFAULT_METRICS[0], ("total", "count"), start_ns, end_ns, gpus=gpus
        )

    ask("30 days of 125 hosts (the last day of 1,250), hours", "1h", "host", 720)
    ask("24 h of 1,250 hosts, hours", "1h", "host", 24)
    ask("24 h of 10,000 GPUs, hours", "1h", "gpu", 24)
    ask("24 h of one GPU, hours", "1h", "gpu", 24, (gpus[5000].uuid,))
    ask("5 min of 1,250 hosts, minutes", "1m", "host", 5)
    ask("60 min of 1,250 hosts, minutes", "1m", "host", 60)
    ask("24 h of the fleet, minutes", "1m", "fleet", 1440)
    for name, question in questions.items():
        spent, cost = [], Cost(server)
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            with cost:
                answer = question()
            spent.append((time.perf_counter() - began) * 1e3)
        servers = f" + server {cost.servers / _ROUNDS * 1e3:4.0f}" if server else ""
        print(
            f"  {name:<52} {len(answer):>8,} windows  p50 {statistics.median(spent):7.1f} ms  slowest {max(spent):7.1f} ms"
            f"  CPU {cost.ours / _ROUNDS * 1e3:6.1f}{servers} ms",
            flush=True,
        )


def run(folder: Path, options: argparse.Namespace) -> None:
    """Measure on each store."""
    end_ns = time.time_ns() // STEP_NS["1h"] * STEP_NS["1h"]
    for storage in options.stores:
        print(f"{storage}:", flush=True)
        if storage == "sqlite":
            if options.read:
                read(SqliteRollups(folder / "read.sqlite3", retention=_FOREVER), None, end_ns)
            else:
                on_sqlite(folder, options, end_ns)
            continue
        server = start_influxd(folder)
        if server is None:
            print("  skipped: no influxd here: run make influxd")
            continue
        try:
            if options.read:
                read(InfluxRollups(server.config(bucket="read"), retention=_FOREVER), server, end_ns)
            else:
                on_influxdb(folder, server, options, end_ns)
        finally:
            server.stop()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument(
        "--raw-hours",
        type=int,
        help="store raw readings of the last so many hours only, and count them as more; needed for more than 46 hours",
    )
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--folder", type=Path, help="where the data is made and stays; else in a temporary folder")
    parser.add_argument("--read", action="store_true", help="measure reading instead")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        run(options.folder, options)
    else:
        with tempfile.TemporaryDirectory(prefix="bench-rollups-") as name:
            run(Path(name), options)


if __name__ == "__main__":
    main()
