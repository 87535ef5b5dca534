"""What fleets of growing size cost: the whole pipeline as processes, fed by a made fleet, while a dashboard is open.

    python -m bench.fleet                                   # all sizes, 3 minutes each, on InfluxDB: build/fleet.json
    python -m bench.fleet --sizes 10000x25 --minutes 30     # GPUs x metrics, every 10 s
    python -m bench.fleet --store sqlite --set FLUSH_INTERVAL=1s
    python -m bench.fleet --sizes 10000x25 --soak 6         # hours: whether memory grows; SIGTERM ends it with what there is
    python -m bench.fleet --docs                            # write what is in build/fleet.json into docs/performance.md

The fleet's messages come from a process that is not counted (bench.generator). First the pipeline runs by itself with one open
dashboard: CPU and memory by process, and the age of the newest reading of GPUs drawn by lot, asked once a second. Then, with data
still coming in, questions and pages are asked one at a time, over one connection. Their times are those of the whole answer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.generator import Generator
from bench.pipeline import STORES, Pipeline
from bench.plot import Axis, Line, save_chart
from bench.report import IMAGES, described, load, put_section, save, table
from bench.watch import GPUS_PER_HOST, STEP_S
from readings.times import SECOND, parse_time
from tests.dashboard.browser.pages import PATHS
from tests.ingest.processes import wait_until

UTIL = "DCGM_FI_DEV_GPU_UTIL"
POWER = "DCGM_FI_DEV_POWER_USAGE"
SIZES = ("250x25", "1000x10", "1000x25", "1000x100", "5000x25", "10000x10", "10000x25", "25000x25")
# As the dashboard does by itself.
REFRESH_S = 5.0
AGE_EVERY_S = 1.0
MEMORY_EVERY_S = 5.0
# What grows in this time, or in a third of a shorter run, are caches that fill.
WARM_UP_S = 1200.0
PROGRESS_EVERY_S = 600.0
# Of the questions for ages. An answer that is lost after hours is told, and no reason to lose the rest.
MOST_FAILED = 0.001
ROUNDS, FEWEST_ROUNDS, MOST_ASKING_S = 20, 5, 180.0
# Not the page of an event: it may be that there is none.
PAGES = {name: path for name, path in PATHS.items() if name != "event"}


class Size(NamedTuple):
    """A fleet."""

    gpus: int
    metrics: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Of ``10000x25``. Raises ValueError."""
        gpus, _, metrics = text.partition("x")
        return cls(int(gpus), int(metrics))

    @property
    def readings_a_second(self) -> float:
        """How many readings it makes."""
        return self.gpus * self.metrics / STEP_S

    def __str__(self) -> str:
        return f"{self.gpus}x{self.metrics}"


def uuid_of(number: int) -> str:
    """The id of the made fleet's GPU."""
    return f"GPU-{number:08x}-1111-2222-3333-444444444444"


def questions(size: Size) -> dict[str, Callable[[], str]]:
    """The five most used: each call gives a path, of another GPU each time."""
    return {
        "the fleet over 5 minutes": lambda: f"/api/v1/query?metric={UTIL}&start_time=-5m",
        "ten busiest hosts over 5 minutes": lambda: f"/api/v1/query?metric={UTIL}&start_time=-5m&by=host&top=10",
        "one GPU's newest 100": lambda: (
            f"/api/v1/gpus/{uuid_of(random.randrange(size.gpus))}/telemetry?metric_name={UTIL}&limit=100"
        ),
        "/api/v1/hosts": lambda: "/api/v1/hosts",
        "/api/v1/fleet": lambda: "/api/v1/fleet",
    }


def pages(size: Size) -> dict[str, Callable[[], str]]:
    """Each page of the dashboard."""
    host, gpu = f"node-{size.gpus // GPUS_PER_HOST // 2:05}", uuid_of(size.gpus // 2)
    return {f"page {name}": lambda path=path: path.format(host=host, gpu=gpu) for name, path in PAGES.items()}  # type: ignore[misc]


class Repeated:
    """Calls a function every so many seconds, in a thread of its own."""

    def __init__(self, call: Callable[[], None], every_s: float) -> None:
        self.failed = 0
        self._call, self._every_s = call, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            try:
                self._call()
            except OSError:
                self.failed += 1
            due = max(due + self._every_s, time.monotonic())

    def stop(self) -> None:
        """Return when the call under way has ended."""
        self._stop.set()
        self._thread.join()


@contextmanager
def open_dashboard(pipeline: Pipeline) -> Iterator[None]:
    """What the fleet's page asks while it is open."""

    def refresh() -> None:
        minute = int(time.time()) // 60 * 60
        bands = f"/api/v1/fleet/bands?every=60s&start_time={minute - 3600}&end_time={minute + 60}&metric="
        for path in ("/api/v1/fleet", f"{bands}{UTIL}", f"{bands}{POWER}", "/events/attention"):
            pipeline.ask(path)

    pipeline.ask("/")
    refreshing = Repeated(refresh, REFRESH_S)
    try:
        yield
    finally:
        refreshing.stop()


def measure(
    size: Size, store: str, minutes: float, batch: int, settings: Mapping[str, str], folder: Path | None
) -> dict[str, Any]:
    """One fleet: its figures by name."""
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="bench-fleet-") as name,
        Pipeline(Path(name), store, settings) as pipeline,
    ):
        generator = Generator(pipeline.port, size.gpus, size.metrics, batch, Path(name) / "generator.log")
        try:
            return measure_running(pipeline, generator, size, minutes) | {
                "store": store,
                "batch": batch,
                "settings": dict(settings),
            }
        finally:
            generator.stop()


def measure_running(pipeline: Pipeline, generator: Generator, size: Size, minutes: float) -> dict[str, Any]:
    """The figures of a pipeline that a fleet has begun to feed."""
    # The whole fleet is known, and two further reports have come to rest.
    wait_until(lambda: len(generator.reports()) >= 3 and _count(pipeline) == size.gpus, "the fleet to be known", 300)
    with open_dashboard(pipeline):
        found = measure_steady(pipeline, generator, size, minutes * 60)
        times = ask_each(pipeline, {**questions(size), **pages(size)})
    reports = generator.reports()
    return found | {
        "gpus": size.gpus, "metrics": size.metrics, "readings_a_second": size.readings_a_second, "times": times,
        "generator_late_s": max(each["late_s"] for each in reports),
        "load": os.getloadavg()[0],
    }  # fmt: skip


def _count(pipeline: Pipeline) -> int:
    return int(json.loads(pipeline.ask("/api/v1/gpus?page_size=1").body)["count"])


def measure_steady(pipeline: Pipeline, generator: Generator, size: Size, seconds: float) -> dict[str, Any]:
    """CPU, memory and ages while it runs."""
    ages: list[float] = []
    memory: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def ask_age() -> None:
        uuid = uuid_of(random.randrange(size.gpus))
        reply = pipeline.ask(f"/api/v1/gpus/{uuid}/telemetry?metric_name={UTIL}&limit=1")
        newest = json.loads(reply.body)["data"][0]["timestamp"]
        ages.append(time.time() - parse_time(newest) / SECOND)

    asking = Repeated(ask_age, AGE_EVERY_S)
    sent, before, began = generator.reports()[-1]["sent"], pipeline.cpu(), time.monotonic()
    with ended_by_sigterm() as stop:
        told = 0.0
        while (elapsed := time.monotonic() - began) < seconds and not stop.is_set():
            for name, mib in pipeline.memory().items():
                memory[name].append((elapsed, mib))
            if elapsed - told >= PROGRESS_EVERY_S:
                told = elapsed
                grown = ", ".join(spelled_growth(name, each[-1][1], growth(each)) for name, each in memory.items())
                print(f"  after {elapsed / 60:.0f} min, MiB: {grown}", flush=True)
            stop.wait(min(MEMORY_EVERY_S, max(0.0, seconds - elapsed)))
    after, lasted = pipeline.cpu(), time.monotonic() - began
    asking.stop()
    if asking.failed > MOST_FAILED * (asking.failed + len(ages)):
        raise RuntimeError(f"{asking.failed} of {asking.failed + len(ages)} questions for the newest reading failed")
    cpu = {name: after[name] - before[name] for name in after}
    readings = lasted * size.readings_a_second
    return {
        "seconds": lasted,
        "sent": generator.reports()[-1]["sent"] - sent,
        "cpu_share": {name: each / lasted for name, each in cpu.items()},
        "cpu_s_per_million": {name: each / readings * 1e6 for name, each in cpu.items()},
        "age_s": {
            "p50": statistics.median(ages),
            "p99": quantile(ages, 0.99),
            "count": len(ages),
            "failed": asking.failed,
        },
        "memory_mib": {name: each[-1][1] for name, each in memory.items()},
        "memory_peak_mib": pipeline.memory("VmHWM"),
        "memory_mib_an_hour": {name: growth(each)._asdict() for name, each in memory.items()},
        "memory_by_minute": {name: by_minute(each) for name, each in memory.items()},
    }


@contextmanager
def ended_by_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets. A terminal's Ctrl-C would end the services, too."""
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def ask_each(pipeline: Pipeline, asked: Mapping[str, Callable[[], str]]) -> dict[str, dict[str, float]]:
    """p50, p95 and the best of each question in ms, all asked in turn, and the bytes of the last answer.

    ROUNDS times, fewer where that takes too long.
    """
    spent: dict[str, list[float]] = defaultdict(list)
    found: dict[str, dict[str, float]] = {}
    began = time.monotonic()
    for number in range(ROUNDS):
        if number >= FEWEST_ROUNDS and time.monotonic() - began > MOST_ASKING_S:
            break
        for name, path in asked.items():
            reply = pipeline.ask(path())
            if reply.status != 200:
                raise RuntimeError(f"{path()}: {reply.status} {reply.body[:300]!r}")
            spent[name].append(reply.seconds * 1e3)
            found[name] = {"bytes": len(reply.body)}
    for name, times in spent.items():
        found[name] |= {"p50": statistics.median(times), "p95": quantile(times, 0.95), "best": min(times)}
        found[name]["count"] = len(times)
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """The value of that rank."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Growth(NamedTuple):
    """MiB an hour after the warm-up, and the standard error of that. Neighbouring samples are alike, so the true error is larger."""

    slope: float
    error: float


def growth(points: Sequence[tuple[float, float]]) -> Growth:
    """How memory grows, by least squares, from (seconds, MiB); zeros where too few points are left."""
    warm = min(WARM_UP_S, points[-1][0] / 3) if points else 0.0
    later = [(at / 3600, mib) for at, mib in points if at >= warm]
    if len(later) < 3:
        return Growth(0.0, 0.0)
    slope, intercept = statistics.linear_regression(*zip(*later, strict=True))
    mean = statistics.fmean(at for at, _ in later)
    left = sum((mib - intercept - slope * at) ** 2 for at, mib in later) / (len(later) - 2)
    return Growth(slope, math.sqrt(left / sum((at - mean) ** 2 for at, _ in later)))


def by_minute(points: Sequence[tuple[float, float]]) -> list[tuple[int, float]]:
    """(Minute, MiB): the first sample of each."""
    first: dict[int, float] = {}
    for at, mib in points:
        first.setdefault(int(at // 60), mib)
    return list(first.items())


def spelled_growth(name: str, mib: float, grown: Growth) -> str:
    """The newest figure of a process, and how it grows."""
    return f"{name} {mib:.0f} ({grown.slope:+.1f} ± {grown.error:.1f} an hour)"


def printed(found: Mapping[str, Any]) -> str:
    """Some lines for a reader."""
    cpu = ", ".join(
        f"{name} {share:.1%} ({found['cpu_s_per_million'][name]:.2f})" for name, share in found["cpu_share"].items()
    )
    memory = ", ".join(
        spelled_growth(name, mib, Growth(**found["memory_mib_an_hour"][name]))
        for name, mib in found["memory_mib"].items()
    )
    ages = "p50 {p50:.1f} s, p99 {p99:.1f} s; {count} answers, {failed} failed".format(**found["age_s"])
    times = "\n".join(
        f"    {name:<34} p50 {each['p50']:7.1f} ms   p95 {each['p95']:7.1f} ms" for name, each in found["times"].items()
    )
    return (
        f"{found['gpus']:,} GPUs x {found['metrics']} metrics on {found['store']} {found['settings'] or ''}\n"
        f"  CPU of a core (s for a million readings): {cpu}\n  data age {ages}\n"
        f"  memory, MiB: {memory}\n{times}\n  the generator was {found['generator_late_s']:.1f} s late at worst; load {found['load']:.1f}"
    )


def write_docs() -> None:
    """Tables and curves of build/fleet.json."""
    kept, results = load("fleet")
    results = sorted(
        results, key=lambda each: (each["store"], len(each["settings"]), case_of(each), each["gpus"], each["metrics"])
    )
    names = [
        name
        for name in ("collector", "broker", "watch", "api", "influxd")
        if any(name in each["cpu_share"] for each in results)
    ]
    rows = [
        [f"{each['gpus']:,} × {each['metrics']}", case_of(each)]
        + [f"{each['cpu_share'].get(name, 0):.1%}" for name in names]
        + [
            f"{each['cpu_s_per_million']['collector']:.2f}",
            f"{each['age_s']['p50']:.1f}",
            f"{each['age_s']['p99']:.1f}",
            f"{each['load']:.1f}",
        ]
        for each in results
    ]
    text = [
        "CPU in parts of one core, by process, with one dashboard open; the collector's also in seconds for a million readings. The age is that"
        " of a GPU's newest reading, which is made every 10 s.\n",
        table(
            ["GPUs × metrics", "store, settings", *names, "collector, s/M", "age p50, s", "age p99, s", "load"], rows
        ),
    ]
    asked = list(dict.fromkeys(name for each in results for name in each["times"]))
    text += [
        "\nMilliseconds until the whole answer was there while data came in, p50 and p95:\n",
        table(
            [
                "question",
                *(
                    f"{each['gpus']:,} × {each['metrics']}, {case_of(each)}"
                    for each in results
                    if each["metrics"] == 25
                ),
            ],
            [
                [f"`{name}`" if name.startswith("/") else name]
                + [
                    f"{each['times'][name]['p50']:.0f} / {each['times'][name]['p95']:.0f}"
                    for each in results
                    if each["metrics"] == 25
                ]
                for name in asked
            ],
        ),
    ]
    text += ["\nMemory of its own in MiB (RssAnon), by process:\n", table(["GPUs × metrics", "store, settings", *names], [
        [f"{each['gpus']:,} × {each['metrics']}", case_of(each), *(f"{each['memory_mib'].get(name, 0):.0f}" for name in names)] for each in results
    ])]  # fmt: skip
    text += memory_over_time(results, names)
    curve = [each for each in max(by_store(results), key=len) if each["metrics"] == 25]

    def line(name: str, pick: Callable[[dict[str, Any]], float]) -> Line:
        return Line(name, [(each["gpus"], pick(each)) for each in curve])

    gpus = Axis("GPUs, 25 metrics each 10 s", log=True)
    costs = [
        line(name, lambda each, name=name: each["cpu_s_per_million"][name])  # type: ignore[misc]
        for name in names
        if name in curve[0]["cpu_share"]
    ]
    times = [
        line(name, lambda each, name=name: each["times"][name]["p95"])  # type: ignore[misc]
        for name in asked
        if not name.startswith("page ")
    ]
    save_chart(
        IMAGES / "fleet-cpu.svg",
        "CPU for a million readings, by process",
        gpus,
        Axis("CPU, s for a million readings"),
        costs,
    )
    save_chart(
        IMAGES / "fleet-questions.svg", "Five questions while data comes in, p95", gpus, Axis("ms", log=True), times
    )
    text += [
        "\n![CPU for a million readings, by process](images/fleet-cpu.svg)",
        "\n![Five questions while data comes in](images/fleet-questions.svg)",
    ]
    put_section("fleet", "\n".join([*text, "", described(kept)]))


def memory_over_time(results: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Of the longest run, if that was longer than its warm-up: a line, and a curve by process."""
    longest = max(results, key=lambda each: float(each["seconds"]))
    if longest["seconds"] < 1.5 * WARM_UP_S or "memory_by_minute" not in longest:
        return []
    curves = [Line(name, longest["memory_by_minute"][name]) for name in names if name in longest["memory_by_minute"]]
    title = (
        f"Memory of {longest['gpus']:,} GPUs, {longest['metrics']} metrics, over {longest['seconds'] / 3600:.1f} hours"
    )
    save_chart(IMAGES / "fleet-memory.svg", title, Axis("minutes"), Axis("MiB"), curves)
    grown = ", ".join(
        "{} {slope:+.1f} ± {error:.1f}".format(name, **longest["memory_mib_an_hour"][name])
        for name in names
        if name in longest["memory_mib_an_hour"]
    )
    return [
        f"\n{title} ({case_of(longest)}); MiB an hour after the first {WARM_UP_S / 60:.0f} minutes: {grown}.\n",
        f"![{title}](images/fleet-memory.svg)",
    ]


def case_of(found: Mapping[str, Any]) -> str:
    """Its store, and what was set."""
    return ", ".join([found["store"], *(f"{name}={value}" for name, value in found["settings"].items())])


def by_store(results: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Results that differ in size only."""
    cases: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for each in results:
        cases[case_of(each)].append(each)
    yield from cases.values()


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes",
        type=Size.parse,
        nargs="+",
        default=[Size.parse(each) for each in SIZES],
        help="GPUs x metrics [%(default)s]",
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="that each runs before it is asked [%(default)s]")
    parser.add_argument("--soak", type=float, default=0.0, metavar="HOURS", help="that each runs instead")
    parser.add_argument("--store", choices=STORES, default="influxdb")
    parser.add_argument("--batch", type=int, default=100, help="readings of a message [%(default)s, as BATCH_SIZE]")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of all services")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--append", action="store_true", help="keep what is in build/fleet.json of other cases")
    parser.add_argument("--docs", action="store_true", help="measure nothing: write docs/performance.md")
    options = parser.parse_args()
    if options.docs:
        write_docs()
        return
    settings = dict(each.split("=", 1) for each in options.set)
    results: list[dict[str, Any]] = load("fleet")[1] if options.append else []
    for size in options.sizes:
        found = measure(
            size, options.store, options.soak * 60 or options.minutes, options.batch, settings, options.folder
        )
        print(printed(found), flush=True)
        same = ("gpus", "metrics", "store", "settings", "batch")
        results = [each for each in results if any(each[name] != found[name] for name in same)] + [found]
        save("fleet", results)


if __name__ == "__main__":
    main()
