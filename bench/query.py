"""How fast /api/v1/query answers about a day of a fleet, on both stores, asked over HTTP.

    python -m bench.query                                  # 247 GPUs, 24 h, a reading each 10 s, 4 metrics: 8.5 M readings
    python -m bench.query --folder /tmp/day --fill-only    # make the data once …
    python -m bench.query --folder /tmp/day                # … and ask again and again
    python -m bench.query --metrics 25 --stores sqlite     # points of 25 metrics: 53 M readings

It starts gunicorn (2 workers) and an influxd of its own; all share the machine. Each question is asked a number of times, one after
the other, as many as fit into --seconds (three at least). Server CPU is what influxd used for one answer, all its threads together.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench.api import STORES, environment, serving, start_influxd
from bench.stores import fleet
from readings.model import Point, PointBlock
from readings.times import SECOND, format_time
from tests.influxd import Influxd

INTERVAL_NS = 10 * SECOND
UTIL, TEMP, POWER, FB_USED = METRICS = [
    f"DCGM_FI_DEV_{name}" for name in ("GPU_UTIL", "GPU_TEMP", "POWER_USAGE", "FB_USED")
]
_TICKS = os.sysconf("SC_CLK_TCK")


class Question(NamedTuple):
    """What is asked over the whole day, and within how many ms 95 of 100 answers are wanted on influxdb (0: none is)."""

    name: str
    parameters: dict[str, str]
    wanted: int = 0


QUESTIONS = [
    Question("mean by host, 5m", {"metric": UTIL, "by": "host", "every": "5m"}, 500),
    Question("sum by host, 5m", {"metric": POWER, "agg": "sum", "by": "host", "every": "5m"}, 3000),
    Question("p95 by host, 5m", {"metric": POWER, "agg": "p95", "by": "host", "every": "5m"}, 3000),
    Question("sum of the fleet", {"metric": POWER, "agg": "sum"}),
    Question("max by GPU, top 10", {"metric": TEMP, "agg": "max", "by": "gpu", "top": "10", "every": "5m"}),
    Question("last by GPU, 1h", {"metric": FB_USED, "agg": "last", "by": "gpu", "every": "1h"}),
    Question("mean of one GPU", {"metric": UTIL, "uuid": fleet(1)[0].uuid}),
    Question("mean by pod, 5m", {"metric": FB_USED, "by": "pod", "every": "5m"}),
]


def metric_names(count: int) -> list[str]:
    """The metrics of a point: the four that are asked for, and as many more as it takes."""
    return METRICS + [f"DCGM_FI_DEV_FIELD_{number}" for number in range(5, count + 1)]


def blocks(gpus: int, hours: float, end_ns: int, metrics: int = len(METRICS)) -> Iterator[PointBlock]:
    """A block for each five minutes. Most metrics are whole numbers, as DCGM's are; power is not."""
    chance = random.Random(1)
    described, names = fleet(gpus), metric_names(metrics)
    steps = int(hours * 3600 * SECOND // INTERVAL_NS)
    for first in range(0, steps, 30):
        points: list[Point] = []
        for step in range(first, min(first + 30, steps)):
            at = end_ns - (steps - step) * INTERVAL_NS
            for place in range(gpus):
                values = [
                    float(chance.randrange(101)), float(chance.randrange(25, 90)),
                    round(chance.uniform(60, 700), 3), float(chance.randrange(81_000)),
                ]  # fmt: skip
                values += [chance.random() for _ in range(metrics - len(values))]
                points.append((place, at + place * 1_000_003, list(values)))
        yield PointBlock(described, names, points)


def fill(gpus: int, hours: float, end_ns: int, metrics: int) -> None:
    """The collector's own work on ready-made blocks, in the store and the inventory that the settings name."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")
    import django

    django.setup()
    from django.core.management import call_command

    from inventory.sync.memory import save_sightings
    from inventory.sync.sightings import Sightings
    from stores.open import get_store

    call_command("migrate", verbosity=0)
    sightings, written, began, busy = Sightings(), 0, time.perf_counter(), 0.0
    for block in blocks(gpus, hours, end_ns, metrics):
        before = time.process_time()
        written += get_store().write([block]).written
        busy += time.process_time() - before
        sightings.add(block)
    save_sightings(sightings)
    seconds = time.perf_counter() - began
    print(f"  {written:,} readings filled in, in {seconds:.0f} s; the store's part {busy:.1f} CPU s", flush=True)


def paths(end_ns: int, hours: float, metrics: int) -> Iterator[tuple[str, str, int]]:
    """Name, path and goal (see Question) of each request: windows over the whole day, then pages of rows."""
    whole = {"start_time": format_time(end_ns - int(hours * 3600) * SECOND), "end_time": format_time(end_ns)}
    last_hour = whole | {"start_time": format_time(end_ns - 3600 * SECOND)}
    for name, parameters, wanted in QUESTIONS:
        yield name, f"query?{urllib.parse.urlencode(parameters | whole)}", wanted
    by_host = {"by": "host", "every": "5m"}
    last = {"metric": metric_names(metrics)[-1], **by_host}
    yield "mean of last metric", f"query?{urllib.parse.urlencode(last | whole)}", 0
    yield "mean by host, hour", f"query?{urllib.parse.urlencode({'metric': UTIL, **by_host} | last_hour)}", 0
    yield "last 100 of one", f"gpus/{fleet(1)[0].uuid}/telemetry?metric_name={UTIL}&limit=100", 0
    yield "newest 100 of all", "telemetry?limit=100", 0
    yield "newest 1000 of all", "telemetry?limit=1000", 0


def measure(
    environ: dict[str, str], server: Influxd | None, end_ns: int, hours: float, seconds: float, metrics: int
) -> None:
    """Print the times of each question."""
    with serving(environ) as (url, _):
        _wake_all_workers(url)
        for name, asked, wanted in paths(end_ns, hours, metrics):
            path = f"/api/v1/{asked}"
            spent: list[float] = []
            used = _cpu(server)
            until = time.monotonic() + seconds
            while len(spent) < 4 or time.monotonic() < until:
                began = time.perf_counter()
                with urllib.request.urlopen(url + path, timeout=120) as answer:
                    size = len(answer.read())
                spent.append((time.perf_counter() - began) * 1e3)
            told = sorted(spent[1:])  # the first opens connections
            p50, p95 = statistics.median(told), told[min(len(told) - 1, int(len(told) * 0.95))]
            cpu = f"   server CPU {(_cpu(server) - used) / len(spent):5.2f} s" if server else ""
            goal = f"   goal {wanted}" if server and wanted else ""
            print(
                f"  {name:<20} p50 {p50:7,.0f} ms   p95 {p95:7,.0f} ms   {len(told):>3} answers of {size:>9,} B{cpu}{goal}",
                flush=True,
            )
        _measure_stats(url)


def _wake_all_workers(url: str) -> None:
    """Each worker opens its store with its first question: that is no part of an answer's time."""

    def ask(number: int) -> None:
        urllib.request.urlopen(f"{url}/api/v1/query?metric={UTIL}&start_time=-{number}d", timeout=120).read()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(1, 17)))


def _measure_stats(url: str) -> None:
    began = time.perf_counter()
    urllib.request.urlopen(f"{url}/api/v1/stats", timeout=60).read()
    print(f"  {'/api/v1/stats, first':<20} {(time.perf_counter() - began) * 1e3:7,.0f} ms", flush=True)


def _cpu(server: Influxd | None) -> float:
    """Seconds of CPU that it has used."""
    if server is None or server.process is None:
        return 0.0
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def run(folder: Path, options: argparse.Namespace) -> None:
    """Fill what is not filled, and ask."""
    for storage in options.stores:
        print(f"{storage}:", flush=True)
        server = start_influxd(folder) if storage == "influxdb" else None
        if storage == "influxdb" and server is None:
            print("  skipped: no influxd here: run make influxd")
            continue
        try:
            environ = environment(folder, storage, server)
            filled = folder / f"{storage}.end"
            if not filled.exists():
                end_ns = time.time_ns() // SECOND * SECOND
                again = ["--fill", str(end_ns)]
                for name in ("gpus", "hours", "metrics"):
                    again += [f"--{name}", str(getattr(options, name))]
                subprocess.run([sys.executable, "-m", "bench.query", *again], env=environ, check=True)
                filled.write_text(str(end_ns))
            if not options.fill_only:
                end_ns = int(filled.read_text())
                measure(environ, server, end_ns, options.hours, options.seconds, options.metrics)
        finally:
            if server is not None:
                server.stop()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=247)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--metrics", type=int, default=len(METRICS), help="of each point, 4 or more [%(default)s]")
    parser.add_argument("--seconds", type=float, default=5, help="of each question [%(default)s]")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--folder", type=Path, help="where the data is kept and found again")
    parser.add_argument("--fill-only", action="store_true", help="only make the data")
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill is not None:
        fill(options.gpus, options.hours, options.fill, options.metrics)
    elif options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        run(options.folder, options)
    else:
        with tempfile.TemporaryDirectory(prefix="bench-query-") as name:
            run(Path(name), options)


if __name__ == "__main__":
    main()
