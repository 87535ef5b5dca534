"""How long a reading takes from its publication until the web service answers with it, under load.

    python -m bench.latency                      # 1,000 and 50,000 readings/s, FLUSH_INTERVAL of 10 s and 1 s, on InfluxDB
    python -m bench.latency --store sqlite
    python -m bench.latency --docs               # write what is in build/latency.json into docs/performance.md

Beside a made fleet (bench.generator) one GPU more publishes a reading some times a second. The web service is asked for that GPU's
newest readings twenty times a second; a reading's latency ends when an answer with it has arrived, so it is up to 0.05 s too long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.fleet import UTIL, quantile
from bench.generator import Generator
from bench.pipeline import STORES, Pipeline
from bench.plot import Axis, Line, save_chart
from bench.report import IMAGES, described, load, put_section, save, table
from bench.watch import STEP_S
from broker.client.client import BrokerClient
from readings.batch import encode_block
from readings.model import Gpu, PointBlock
from readings.times import parse_time
from tests.ingest.processes import wait_until

METRICS = 25
RATES = (1_000, 50_000)
FLUSHES = ("10s", "1s")
ASK_EVERY_S = 0.05
# So many that all which are on their way fit into one answer.
NEWEST = 100
PROBE = Gpu(uuid="GPU-probe", hostname="node-probe", gpu_id=0, model_name="NVIDIA H100 80GB HBM3")


async def measure_latencies(pipeline: Pipeline, count: int, every_s: float) -> list[float]:
    """Publish so many readings at random moments, on average one in ``every_s``, and wait for each. Seconds."""
    client = await BrokerClient.connect("127.0.0.1", pipeline.port)
    waiting: dict[int, float] = {}
    found: list[float] = []
    known = asyncio.Event()

    async def publish() -> None:
        for number in range(-1, count):  # the first one is to make the GPU known, and is not counted
            await asyncio.sleep(random.uniform(0, 2 * every_s))
            if number == 0:
                await known.wait()
            time_ns = time.time_ns()
            block = PointBlock([PROBE], [UTIL], [(0, time_ns, [float(number % 100)])])
            waiting[time_ns] = time.monotonic()
            await client.publish(encode_block(block, batch_id="", source="probe", collected_at="", live=True))

    async def ask() -> None:
        path = f"/api/v1/gpus/{PROBE.uuid}/telemetry?metric_name={UTIL}&limit={NEWEST}"
        while len(found) < count:
            await asyncio.sleep(ASK_EVERY_S)
            reply = await asyncio.to_thread(pipeline.ask, path)
            now = time.monotonic()
            if reply.status == 200:  # else the GPU is not known yet
                for row in json.loads(reply.body)["data"]:
                    published = waiting.pop(parse_time(row["timestamp"]), None)
                    if published is not None and known.is_set():
                        found.append(now - published)
                    known.set()

    async with asyncio.timeout(count * every_s * 2 + 120):
        await asyncio.gather(publish(), ask())
    await client.close()
    return found


def measure(rate: int, store: str, flush: str, count: int, warm_up: float, folder: Path | None) -> dict[str, Any]:
    """The figures of one rate and setting, after ``warm_up`` seconds with the fleet known."""
    gpus = rate * STEP_S // METRICS
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="bench-latency-") as name,
        Pipeline(Path(name), store, {"FLUSH_INTERVAL": flush}, watch=False) as pipeline,
    ):
        generator = Generator(pipeline.port, gpus, METRICS, 100, Path(name) / "generator.log")
        try:
            wait_until(lambda: len(generator.reports()) >= 3, "the fleet to be known", 300)
            time.sleep(warm_up)
            before, began = pipeline.cpu(), time.monotonic()
            # As many in flight at once as one answer holds.
            times = asyncio.run(measure_latencies(pipeline, count, 0.25))
            cpu = {name: (after - before[name]) / (time.monotonic() - began) for name, after in pipeline.cpu().items()}
            late = max(each["late_s"] for each in generator.reports())
        finally:
            generator.stop()
    return {
        "store": store, "rate": rate, "flush": flush, "count": len(times), "p50": statistics.median(times), "p99": quantile(times, 0.99),
        "worst": max(times), "quantiles": [(share, quantile(times, share / 100)) for share in (1, *range(5, 100, 5), 99)],
        "cpu_share": cpu, "generator_late_s": late,
    }  # fmt: skip


def write_docs() -> None:
    """A table and the curves of build/latency.json."""
    kept, results = load("latency")
    text = [
        "From the publication of a reading until the web service answers with it, in seconds:\n",
        table(
            ["store", "readings/s", "FLUSH_INTERVAL", "p50", "p99", "worst", "readings measured"],
            [[each["store"], f"{each['rate']:,}", each["flush"], *(f"{each[name]:.2f}" for name in ("p50", "p99", "worst")), str(each["count"])]
             for each in results],
        ),
        "\n![From publication to the answer, in seconds](images/latency.svg)\n",
        described(kept),
    ]  # fmt: skip
    shown = [each for each in results if each["store"] == "influxdb"] or results
    lines = [Line(f"{each['rate']:,}/s, flush {each['flush']}", each["quantiles"]) for each in shown]
    title = f"From publication to the answer, {shown[0]['store']}"
    save_chart(IMAGES / "latency.svg", title, Axis("% of readings that took at most so long"), Axis("s"), lines)
    put_section("latency", "\n".join(text))


def main() -> None:
    """Measure each rate with each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=int, nargs="+", default=RATES, help="readings a second [%(default)s]")
    parser.add_argument("--flush", nargs="+", default=FLUSHES, help="FLUSH_INTERVAL [%(default)s]")
    parser.add_argument("--store", choices=STORES, default="influxdb")
    parser.add_argument(
        "--warm-up", type=float, default=180.0, metavar="SECONDS",
        help="before the first is followed [%(default)s]: a collector's first minutes are rolled up from raw readings",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=300, help="readings to follow [%(default)s]")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--append", action="store_true", help="keep what is in build/latency.json of other cases")
    parser.add_argument("--docs", action="store_true", help="measure nothing: write docs/performance.md")
    options = parser.parse_args()
    if options.docs:
        write_docs()
        return
    results: list[dict[str, Any]] = load("latency")[1] if options.append else []
    for rate in options.rates:
        for flush in options.flush:
            found = measure(rate, options.store, flush, options.count, options.warm_up, options.folder)
            print(printed(found), flush=True)
            same = ("store", "rate", "flush")
            results = [each for each in results if any(each[name] != found[name] for name in same)] + [found]
            save("latency", results)


def printed(found: Mapping[str, Any]) -> str:
    """A line for a reader."""
    cpu = ", ".join(f"{name} {share:.0%}" for name, share in found["cpu_share"].items())
    return (
        f"{found['store']}, {found['rate']:,} readings/s, FLUSH_INTERVAL={found['flush']}: p50 {found['p50']:.2f} s, p99 {found['p99']:.2f} s,"
        f" worst {found['worst']:.2f} s of {found['count']}; CPU {cpu}; the generator was {found['generator_late_s']:.1f} s late at worst"
    )


if __name__ == "__main__":
    main()
