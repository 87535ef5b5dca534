"""How fast questions about long ranges are answered from the hours of roll-ups: a day of 1,250 hosts, and 30 days of 125.

    python -m bench.longrange                               # on InfluxDB
    python -m bench.longrange --store sqlite --append       # the same on the embedded store, into the same table
    python -m bench.longrange --hosts 50 --month-hosts 10   # smaller
    python -m bench.longrange --docs                        # writes the last figures into docs/performance.md

The hours of the hosts are made directly, through the roll-ups' own write(): days one by one, and the last day hour by hour as the
roller writes it. There are no raw readings and no other levels. InfluxDB is given time to put all into its files. The question goes through the
whole of Django in one process, without a server and a network around it. Every answer is compared with what was written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np

from bench.api import ROOT, STORES, environment, start_influxd
from bench.report import described, load, put_section, save, table
from ingest.simulator.fleet import DEFAULT_METRICS
from readings.model import Gpu, PointBlock
from readings.times import SECOND, format_time
from stores.aggregate.functions import Floats
from stores.rollups.windows import COUNT, HIGH, LAST, LOW, MEANS, STEP_NS, TOTAL, WindowKey, WindowTable, stats_of
from tests.influxd import Influxd

HOUR_NS = STEP_NS["1h"]
MODEL = "NVIDIA H100 80GB HBM3"
GPUS_A_HOST = 8
READINGS_A_GPU = 360  # in an hour: one each 10 s
READINGS = GPUS_A_HOST * READINGS_A_GPU
# Of these a host's hours have the same statistics: counters and codes have others.
GAUGES = tuple(name for name in DEFAULT_METRICS if MEANS in stats_of(name, "host"))
# Answers are rounded to 12 digits.
_ROUNDED = 1e-11
_SETTLE_SECONDS = 60.0
# What InfluxDB keeps in its log for ten minutes goes into its files at once.
SETTLES_SOON = {"INFLUXD_STORAGE_CACHE_SNAPSHOT_WRITE_COLD_DURATION": "1s"}


class WrongAnswer(Exception):
    """An answer is not what was written. The text says where."""


@dataclass(frozen=True, slots=True)
class LongQuestion:
    """The mean of a metric by host and hour, of so many hosts and hours; ``top`` 0: of all hosts. The goal is the median's."""

    name: str
    hosts: int
    hours: int
    top: int
    goal_ms: float

    @property
    def groups(self) -> int:
        """How many hosts the answer has."""
        return min(self.top, self.hosts) if self.top else self.hosts

    def path(self, end_ns: int) -> str:
        """What is asked for."""
        asked = {"metric": GAUGES[0], "by": "host", "every": "1h"} | ({"top": str(self.top)} if self.top else {})
        times = {"start_time": format_time(end_ns - self.hours * HOUR_NS), "end_time": format_time(end_ns)}
        return f"/api/v1/query?{urlencode(asked | times)}"


class HostHours(NamedTuple):
    """Made-up hours: the sums of all readings by hour, host and metric, all of them whole numbers. The first hour begins at ``start_ns``."""

    start_ns: int
    hostnames: list[str]
    totals: Floats

    @classmethod
    def of(cls, hosts: int, hours: int, metrics: int, start_ns: int) -> HostHours:
        """Hours of readings from 0 to 100."""
        totals = np.random.default_rng(1).integers(0, 100 * READINGS, (hours, hosts, metrics), endpoint=True)
        return cls(start_ns, [f"hgpu-{number:05d}" for number in range(hosts)], totals.astype(np.float64))

    def table(self, first: int, end: int) -> WindowTable:
        """The windows of some hours."""
        hosts, metrics = self.totals.shape[1:]
        totals = self.totals[first:end].reshape(-1, metrics)
        means = totals / READINGS
        stats = {
            COUNT: np.full(totals.shape, float(READINGS)), TOTAL: totals, LOW: np.floor(means / 2), HIGH: np.ceil(means),
            LAST: np.floor(means), MEANS: totals / READINGS_A_GPU,
        }  # fmt: skip
        keys = [WindowKey(hostname=name, model=MODEL) for name in self.hostnames]
        starts_ns = self.start_ns + np.repeat(np.arange(first, end), hosts) * HOUR_NS
        places = np.tile(np.arange(hosts), end - first)
        return WindowTable("1h", "host", keys, GAUGES[:metrics], places, starts_ns, stats)


def check(body: Any, question: LongQuestion, written: HostHours) -> None:
    """Raise WrongAnswer unless every value of a decoded answer is what was written, and the hosts are those that are wanted."""
    if body["tier"] != "1h":
        raise WrongAnswer(f"it is from tier {body['tier']}, not 1h")
    if len(body["data"]) != question.groups:
        raise WrongAnswer(f"it has {len(body['data']):,} hosts, not {question.groups:,}")
    times = [format_time(written.start_ns + hour * HOUR_NS) for hour in range(question.hours)]
    places = {name: place for place, name in enumerate(written.hostnames)}
    totals = written.totals[:, :, 0]
    chosen = [places[series["group"]["host"]] for series in body["data"]]
    if len(set(chosen)) != len(chosen):
        raise WrongAnswer("it has a host twice")
    for place, series in zip(chosen, body["data"], strict=True):
        if [at for at, _ in series["points"]] != times:
            raise WrongAnswer(f"{written.hostnames[place]} has other hours")
        values = np.array([value for _, value in series["points"]], dtype=np.float64)
        differ = ~np.isclose(values, totals[:, place] / READINGS, rtol=_ROUNDED, atol=0)
        if differ.any():
            at, value = series["points"][int(differ.argmax())]
            raise WrongAnswer(f"{written.hostnames[place]} at {at} has {value}")
    if question.top:
        whole = totals.sum(axis=0)
        if whole[chosen].tolist() != sorted(whole.tolist(), reverse=True)[: question.groups]:
            raise WrongAnswer("its hosts are not those with the largest means, largest first")


def ask_inside(question: LongQuestion, metrics: int, calls: int, influxd_folder: Path | None) -> dict[str, Any]:
    """In a process of its own, with the settings of the service: make the hours, ask, and return the figures in ms."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")
    from django.core.servers.basehttp import get_internal_wsgi_application
    from django.test import RequestFactory

    application = get_internal_wsgi_application()
    end_ns = time.time_ns() // HOUR_NS * HOUR_NS
    written = HostHours.of(question.hosts, question.hours, metrics, end_ns - question.hours * HOUR_NS)
    began = time.perf_counter()
    fill(written, end_ns)
    filled = time.perf_counter() - began
    if influxd_folder is not None:
        wait_for_files(influxd_folder)
    spent, spent_cpu = [], []
    for _ in range(1 + calls):
        environ = RequestFactory(HTTP_HOST="127.0.0.1").get(question.path(end_ns)).environ
        began, began_cpu = time.perf_counter(), time.process_time()
        response = application(environ, lambda *_: None)  # type: ignore[arg-type]
        answer = b"".join(response)
        spent.append((time.perf_counter() - began) * 1e3)
        spent_cpu.append((time.process_time() - began_cpu) * 1e3)
        response.close()
        body = json.loads(answer)
        if "data" not in body:
            raise WrongAnswer(answer.decode())
        check(body, question, written)
    return {
        "windows": written.totals[:, :, 0].size, "metrics": metrics, "fill_s": filled, "bytes": len(answer), "calls": calls,
        "first_ms": spent[0], "p50_ms": float(np.median(spent[1:])), "p95_ms": float(np.percentile(spent[1:], 95)),
        "max_ms": max(spent[1:]), "cpu_p50_ms": float(np.median(spent_cpu[1:])),
    }  # fmt: skip


def fill(written: HostHours, end_ns: int) -> None:
    """The windows into the roll-ups, the fleet into the inventory, and how far the hours are into the state."""
    from django.core.management import call_command

    from inventory.rollup_state import advance, open_state
    from inventory.sync.memory import save_sightings
    from inventory.sync.sightings import Sightings
    from stores.open import get_store, reset_store, store_key
    from stores.rollups.open import get_rollups

    call_command("migrate", verbosity=0)
    get_store().ping()  # the key of a store in a file comes from that file
    rollups = get_rollups()
    assert rollups is not None
    hours = len(written.totals)
    bounds = [*range(0, hours - 24, 24), *range(max(0, hours - 24), hours + 1)]
    for first, end in pairwise(bounds):
        rollups.write([written.table(first, end)])
    gpus = [
        Gpu(uuid=f"GPU-{place:05d}-{index}", hostname=name, gpu_id=index, device=f"nvidia{index}", model_name=MODEL)
        for place, name in enumerate(written.hostnames)
        for index in range(GPUS_A_HOST)
    ]
    sightings = Sightings()
    for at in (written.start_ns, end_ns - 10 * SECOND):
        sightings.add(PointBlock(gpus, [GAUGES[0]], [(place, at, [50.0]) for place in range(len(gpus))]))
    save_sightings(sightings)
    open_state(store_key(), written.start_ns - 1)
    advance(store_key(), minutes_until_ns=written.start_ns, hours_until_ns=end_ns, newest_ns=end_ns - 10 * SECOND)
    reset_store()  # the first question opens all


def wait_for_files(influxd_folder: Path) -> None:
    """Wait until nothing is left in the logs of an influxd. Raises TimeoutError."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while sum(path.stat().st_size for path in influxd_folder.rglob("*.wal")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"influxd has not written its files in {_SETTLE_SECONDS:g} s")
        time.sleep(0.2)


def measure(
    question: LongQuestion, store: str, metrics: int, calls: int, folder: Path, server: Influxd | None
) -> dict[str, Any]:
    """The figures of one question, with what was asked. Raises RuntimeError if the answer is wrong, or there is none."""
    environ = environment(folder / question.name, store, server)
    # Only the roll-ups have what is asked for.
    environ |= {"RETENTION_PERIOD": "1h", "INFLUXDB_BUCKET": question.name, "VERBOSITY": "0"}
    (folder / question.name).mkdir()
    inside = {
        "question": asdict(question), "metrics": metrics, "calls": calls, "folder": str(server.folder) if server else None,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bench.longrange", "--inside", json.dumps(inside)],
        env=environ, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{store}, {question.name}: {done.stderr.strip()}")
    return {"store": store, **asdict(question), **json.loads(done.stdout)}


def told(figures: dict[str, Any]) -> str:
    """A line for a reader."""
    return (
        f"{figures['store']}, {_asked(figures)}: first {figures['first_ms']:,.0f} ms, p50 {figures['p50_ms']:,.0f},"
        f" p95 {figures['p95_ms']:,.0f}, max {figures['max_ms']:,.0f} ms of {figures['calls']} (goal {figures['goal_ms']:,.0f});"
        f" our CPU {figures['cpu_p50_ms']:,.0f} ms; {figures['windows']:,} windows filled in, in {figures['fill_s']:.1f} s"
    )


def _asked(figures: dict[str, Any]) -> str:
    hours = figures["hours"]
    length = f"{hours // 24} days" if hours > 24 and hours % 24 == 0 else f"{hours} hours"
    top = f", top {figures['top']}" if figures["top"] else ""
    return f"{length} of {figures['hosts'] * GPUS_A_HOST:,} GPUs on {figures['hosts']:,} hosts{top}"


HEAD = ("question", "store", "windows", "answer, kB", "first", "p50", "p95", "max", "goal of p50", "our CPU")


def document() -> None:
    """Write the page's section."""
    kept, results = load("longrange")
    rows = [
        [
            _asked(each), each["store"], f"{each['windows']:,}", f"{each['bytes'] / 1e3:,.0f}",
            *(f"{each[name]:,.0f}" for name in ("first_ms", "p50_ms", "p95_ms", "max_ms", "goal_ms", "cpu_p50_ms")),
        ]
        for each in sorted(results, key=lambda each: each["hours"])
    ]  # fmt: skip
    text = [
        f"The mean by host and hour, in ms. The first call opens the store and its roll-ups; the others are {results[0]['calls']} calls after it.\n",
        table(HEAD, rows),
        "",
        described(kept),
    ]
    put_section("longrange", "\n".join(text))


def run(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Ask both questions of one store."""
    questions = (
        LongQuestion("day", options.hosts, 24, options.top, 300.0),
        LongQuestion("month", options.month_hosts, options.days * 24, 0, 1000.0),
    )
    server = None
    if options.store == "influxdb":
        os.environ.update(SETTLES_SOON)
        server = start_influxd(folder)
        if server is None:
            raise SystemExit("skipped: no influxd here: run make influxd")
    results = []
    try:
        for question in questions:
            if question.hosts:
                results.append(measure(question, options.store, options.metrics, options.calls, folder, server))
                print(told(results[-1]), flush=True)
    finally:
        if server is not None:
            server.stop()
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=STORES, default="influxdb")
    parser.add_argument("--hosts", type=int, default=1250, help="of the day; 0: leave it out [%(default)s]")
    parser.add_argument("--top", type=int, default=100, help="hosts in the day's answer; 0: all [%(default)s]")
    parser.add_argument("--month-hosts", type=int, default=125, help="of the month; 0: leave it out [%(default)s]")
    parser.add_argument("--days", type=int, default=30, help="of the month [%(default)s]")
    parser.add_argument(
        "--metrics",
        type=int,
        default=4,
        choices=range(1, len(GAUGES) + 1),
        metavar="N",
        help="of each window [%(default)s]",
    )
    parser.add_argument("--calls", type=int, default=20, help="after the first [%(default)s]")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--append", action="store_true", help="keep what is in build/longrange.json of other stores")
    parser.add_argument("--docs", action="store_true", help="measure nothing: write docs/performance.md")
    parser.add_argument("--inside", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.docs:
        document()
        return
    if options.inside is not None:
        asked, of_server = options.inside, options.inside["folder"]
        question = LongQuestion(**asked["question"])
        print(
            json.dumps(ask_inside(question, asked["metrics"], asked["calls"], Path(of_server) if of_server else None))
        )
        return
    results = [each for each in load("longrange")[1] if each["store"] != options.store] if options.append else []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-longrange-") as name:
        results += run(options, Path(name))
    print(save("longrange", results))


if __name__ == "__main__":
    main()
