"""How costs grow with the size of batches, the number of subscribers, and the size of log and store: none may rise faster than its cause.

    python -m bench.growth                             # all, on InfluxDB: build/growth.json
    python -m bench.growth --parts batch log --store sqlite
    python -m bench.growth --docs                      # write what is in build/growth.json into docs/performance.md

Costs are CPU seconds of the processes; the publisher's is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.pipeline import STORES, Pipeline, cpu_of, memory_of
from bench.plot import Axis, Line, save_chart
from bench.query import UTIL
from bench.report import IMAGES, described, load, put_section, save, table
from bench.stores import fleet as made_gpus
from bench.watch import STEP_S, MadeFleet, publish
from broker.client.client import BrokerClient, Message, fetch_stats
from readings.times import SECOND
from tests.ingest.processes import Fleet

GPUS, METRICS = 1_000, 25
STEP_READINGS = GPUS * METRICS
BATCHES = (25, 100, 400, 1_000, 5_000)
SUBSCRIBERS = (1, 2, 4, 8)
# Messages of 100 readings in the log.
LOGS = (10_000, 40_000, 160_000, 640_000)
# Hours of 250 GPUs with 4 metrics, each 10 s, in the store.
HOURS = (1, 4, 12, 24)
STORE_GPUS = 250


def messages(made: MadeFleet, steps: int) -> Iterator[bytes]:
    """A log of so many reports, the last of them as of now."""
    now = time.time_ns()
    for step in range(-steps, 0):
        yield from made.step(now + step * STEP_S * SECOND)


def of_batches(folder: Path, store: str) -> Iterator[dict[str, Any]]:
    """Two million readings from the log to the store, in messages of growing size."""
    steps = 2_000_000 // STEP_READINGS
    for batch in BATCHES:
        with Pipeline(folder / f"batch-{batch}", store, {}, watch=False) as pipeline:
            pipeline.collector.wait_for("subscribed")
            asyncio.run(publish(pipeline.port, messages(MadeFleet(GPUS, batch), 1)))  # who the GPUs are
            pipeline.wait_until_collected()
            before, began = pipeline.cpu(), time.monotonic()
            asyncio.run(publish(pipeline.port, messages(MadeFleet(GPUS, batch), steps)))
            pipeline.wait_until_collected()
            seconds = time.monotonic() - began
            readings = steps * STEP_READINGS
            cost = {
                name: (after - before[name]) / readings * 1e6 for name, after in pipeline.cpu().items() if name != "api"
            }
            yield {"batch": batch, "cpu_s_per_million": cost, "readings_a_second": readings / seconds}


def of_subscribers(folder: Path, store: str) -> Iterator[dict[str, Any]]:
    """A million readings from the broker to more and more subscribers, each of which commits what it gets."""
    for count in SUBSCRIBERS:
        fleet = Fleet(folder / f"subscribers-{count}")
        fleet.broker.start()
        try:
            fleet.broker.wait_for("listening on")
            before = cpu_of(fleet.broker.pid)
            asyncio.run(_deliver(fleet.port, count, 1_000_000 // STEP_READINGS))
            cost = cpu_of(fleet.broker.pid) - before
        finally:
            fleet.kill_all()
        yield {"subscribers": count, "broker_cpu_s_per_million": cost, "for_each": cost / count}


async def _deliver(port: int, count: int, steps: int) -> None:
    sent = list(messages(MadeFleet(GPUS, 100), steps))

    async def subscribe(number: int) -> None:
        client = await BrokerClient.connect("127.0.0.1", port)
        await client.subscribe(f"subscriber-{number}", -2)
        got = 0
        while got < len(sent):
            received = [each for each in await client.receive() if isinstance(each, Message)]
            got += len(received)
            await client.ack(received[-1].offset)
        await client.close()

    await asyncio.gather(publish(port, iter(sent)), *(subscribe(number) for number in range(count)))


def of_logs(folder: Path, store: str) -> Iterator[dict[str, Any]]:
    """Starting a broker on a log of growing size, publishing to it, and reading from its middle."""
    fleet = Fleet(folder / "log", RETENTION_AGE="0", RETENTION_BYTES="0", FSYNC="interval")
    made, written = MadeFleet(GPUS, 100), 0
    try:
        for count in LOGS:
            fleet.broker.start()
            fleet.broker.wait_for("listening on")
            before = cpu_of(fleet.broker.pid)
            steps = (count - written) * 100 // STEP_READINGS
            asyncio.run(publish(fleet.port, messages(made, steps)))
            publishing = (cpu_of(fleet.broker.pid) - before) / (steps * STEP_READINGS) * 1e6
            written += steps * STEP_READINGS // 100
            fleet.broker.stop()
            began = time.monotonic()
            fleet.broker.start()
            fleet.broker.wait_for("listening on")
            started, cpu, memory = (
                time.monotonic() - began,
                cpu_of(fleet.broker.pid),
                memory_of(fleet.broker.pid, "RssAnon"),
            )
            found = [asyncio.run(_read_at(fleet.port, written // 2 + number)) for number in range(20)]
            size = fetch_stats("127.0.0.1", fleet.port)["bytes"]
            fleet.broker.stop()
            yield {
                "messages": written, "mib": size / (1 << 20), "publishing_cpu_s_per_million": publishing, "start_s": started, "start_cpu_s": cpu,
                "memory_mib": memory, "first_message_ms": statistics.median(found) * 1e3,
            }  # fmt: skip
    finally:
        fleet.kill_all()


async def _read_at(port: int, offset: int) -> float:
    """Seconds until the message at an offset is there."""
    client = await BrokerClient.connect("127.0.0.1", port)
    began = time.perf_counter()
    await client.subscribe("reader", offset)
    await client.receive()
    seconds = time.perf_counter() - began
    await client.close()
    return seconds


def of_stores(folder: Path, store: str) -> Iterator[dict[str, Any]]:
    """Writing to a store that holds more and more, and asking it for what is new."""
    with Pipeline(folder / "store", store, {}, watch=False) as pipeline:
        end_ns, filled = time.time_ns() // SECOND * SECOND, 0
        for hours in HOURS:
            before, own = pipeline.cpu(), _children_cpu()
            arguments = [
                "--fill",
                str(end_ns - filled * 3600 * SECOND),
                "--hours",
                str(hours - filled),
                "--gpus",
                str(STORE_GPUS),
            ]
            subprocess.run(
                [sys.executable, "-m", "bench.query", *arguments],
                env=pipeline.fleet.environ,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            readings = (hours - filled) * 360 * STORE_GPUS * 4
            cost = {"writer": (_children_cpu() - own) / readings * 1e6}
            if store == "influxdb":
                cost["influxd"] = (pipeline.cpu()["influxd"] - before["influxd"]) / readings * 1e6
            filled = hours
            start = f"start_time={end_ns // SECOND - 300}&end_time={end_ns // SECOND}"
            asked = {
                "fleet over 5 minutes": f"/api/v1/query?metric={UTIL}&{start}&every=10s",
                "one GPU's newest 100": f"/api/v1/gpus/{made_gpus(1)[0].uuid}/telemetry?metric_name={UTIL}&limit=100",
                "a page of 100 of all": "/api/v1/telemetry?limit=100",
            }
            yield {"hours": hours, "readings": hours * 360 * STORE_GPUS * 4, "cpu_s_per_million": cost,
                   "ms": {name: _median_ms(pipeline, path) for name, path in asked.items()}}  # fmt: skip


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _median_ms(pipeline: Pipeline, path: str, rounds: int = 21) -> float:
    times = []
    for _ in range(rounds):
        reply = pipeline.ask(path)
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status} {reply.body[:300]!r}")
        times.append(reply.seconds * 1e3)
    return statistics.median(times)


PARTS: dict[str, Callable[[Path, str], Iterator[dict[str, Any]]]] = {
    "batch": of_batches,
    "subscribers": of_subscribers,
    "log": of_logs,
    "store": of_stores,
}


def write_docs() -> None:
    """Tables and curves of build/growth.json."""
    kept, results = load("growth")
    text: list[str] = []

    def show(name: str, title: str, x: Axis, y: Axis, lines: list[Line]) -> None:
        save_chart(IMAGES / f"growth-{name}.svg", title, x, y, lines)
        text.append(f"\n![{title}](images/growth-{name}.svg)\n")

    def line(part: str, label: str, x: str, pick: Callable[[Mapping[str, Any]], float]) -> Line:
        return Line(label, [(each[x], pick(each)) for each in results[part]])

    cost = Axis("CPU, s for a million readings")
    if batches := results.get("batch"):
        names = list(batches[0]["cpu_s_per_million"])
        text.append("From the log to the store, by readings in a message:\n")
        text.append(table(["readings in a message", *names, "readings/s"], [
            [f"{each['batch']:,}", *(f"{each['cpu_s_per_million'][name]:.2f}" for name in names), f"{each['readings_a_second']:,.0f}"] for each in batches
        ]))  # fmt: skip
        show("batch", "CPU by the size of batches", Axis("readings in a message", log=True), cost,
             [line("batch", name, "batch", lambda each, name=name: each["cpu_s_per_million"][name]) for name in names])  # type: ignore[misc]  # fmt: skip
    if subscribers := results.get("subscribers"):
        text.append("\nThe broker, by the number of subscribers that read all of it:\n")
        text.append(table(["subscribers", "broker, s/M", "for each"], [
            [str(each["subscribers"]), f"{each['broker_cpu_s_per_million']:.2f}", f"{each['for_each']:.3f}"] for each in subscribers
        ]))  # fmt: skip
        show("subscribers", "The broker's CPU by subscribers", Axis("subscribers"), cost,
             [line("subscribers", "broker", "subscribers", lambda each: each["broker_cpu_s_per_million"])])  # fmt: skip
    if logs := results.get("log"):
        text.append("\nThe broker, by the size of its log:\n")
        text.append(table(["messages", "log, MiB", "publishing, s/M", "start, s", "start, CPU s", "memory, MiB", "first message from the middle, ms"], [
            [f"{each['messages']:,}", f"{each['mib']:,.0f}", *(f"{each[name]:.2f}" for name in ("publishing_cpu_s_per_million", "start_s", "start_cpu_s")),
             f"{each['memory_mib']:.0f}", f"{each['first_message_ms']:.1f}"] for each in logs
        ]))  # fmt: skip
        show("log", "Publishing, and starting, by the size of the log", Axis("log, MiB", log=True), Axis("CPU, s"),
             [line("log", "publishing a million readings", "mib", lambda each: each["publishing_cpu_s_per_million"]),
              line("log", "start", "mib", lambda each: each["start_cpu_s"])])  # fmt: skip
    if stores := results.get("store"):
        names = [*stores[0]["cpu_s_per_million"]]
        asked = [*stores[0]["ms"]]
        text.append(
            "\nThe store, by what it holds: CPU of what is written then, and the median of questions about the newest:\n"
        )
        text.append(table(["readings", *(f"{name}, s/M" for name in names), *(f"{name}, ms" for name in asked)], [
            [f"{each['readings']:,}", *(f"{each['cpu_s_per_million'][name]:.2f}" for name in names), *(f"{each['ms'][name]:.1f}" for name in asked)]
            for each in stores
        ]))  # fmt: skip
        show("store", "Questions by what the store holds", Axis("readings in the store", log=True), Axis("ms"),
             [line("store", name, "readings", lambda each, name=name: each["ms"][name]) for name in asked])  # type: ignore[misc]  # fmt: skip
    put_section("growth", "\n".join([*text, "", described(kept)]))


def main() -> None:
    """Measure each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--store", choices=STORES, default="influxdb")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--append", action="store_true", help="keep what is in build/growth.json of other parts")
    parser.add_argument("--docs", action="store_true", help="measure nothing: write docs/performance.md")
    options = parser.parse_args()
    if options.docs:
        write_docs()
        return
    results: dict[str, list[dict[str, Any]]] = load("growth")[1] if options.append else {}
    for part in options.parts:
        results[part] = []
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-growth-") as name:
            for found in PARTS[part](Path(name), options.store):
                results[part].append(found)
                print(part, found, flush=True)
        save("growth", results)


if __name__ == "__main__":
    main()
