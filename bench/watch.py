"""What judging costs: a broker, and a watch that judges a made fleet as fast as its readings come.

    python -m bench.watch                                    # 10,000 GPUs x 25 metrics each 10 s, on SQLite
    python -m bench.watch --gpus 1000 --steps 12 --batch 100

First it judges a log that is there already, for the CPU time of a million readings; then a fleet that reports now, for the share of one
core with all that goes with it (commits, clock, lease). CPU time and memory are those of the watch's process.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from broker.client.client import BrokerClient, fetch_stats
from ingest.simulator.fleet import DEFAULT_METRICS
from readings.batch import encode_block
from readings.model import Gpu, PointBlock
from readings.times import SECOND
from tests.ingest.processes import Fleet, Service, wait_until

STEP_S = 10
GPUS_PER_HOST = 8
# A pod has so many GPUs, in one of so many namespaces; a fifth of the GPUs is free.
GPUS_PER_POD, NAMESPACES, HELD = 4, 12, 0.8
# How a metric goes: where it begins, how far it strays, how much it grows in a step.
_SHAPES: dict[str, tuple[float, float, float]] = {
    "DCGM_FI_DEV_SM_CLOCK": (1_800, 60, 0),
    "DCGM_FI_DEV_MEM_CLOCK": (2_600, 0, 0),
    "DCGM_FI_DEV_MEMORY_TEMP": (60, 5, 0),
    "DCGM_FI_DEV_GPU_TEMP": (55, 5, 0),
    "DCGM_FI_DEV_POWER_USAGE": (450, 80, 0),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": (1e12, 0, 4.5e6),
    "DCGM_FI_DEV_GPU_UTIL": (70, 25, 0),
    "DCGM_FI_DEV_FB_FREE": (20_000, 1_000, 0),
    "DCGM_FI_DEV_FB_USED": (60_000, 1_000, 0),
    "DCGM_FI_DEV_FB_RESERVED": (600, 0, 0),
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": (10_000, 3_000, 0),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": (0.7, 0.2, 0),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": (0.4, 0.1, 0),
    "DCGM_FI_PROF_DRAM_ACTIVE": (0.4, 0.1, 0),
    "DCGM_FI_PROF_PCIE_TX_BYTES": (1e9, 2e8, 0),
    "DCGM_FI_PROF_PCIE_RX_BYTES": (1e9, 2e8, 0),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=10_000, help="[%(default)s]")
    parser.add_argument(
        "--steps", type=int, default=9, help="of 10 s, that the fleet reports while it is measured [%(default)s]"
    )
    parser.add_argument("--backlog", type=int, default=12, help="steps in the log at the start [%(default)s]")
    parser.add_argument("--batch", type=int, default=1_000, help="readings of a message [%(default)s]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-watch-") as folder:
        fleet = Fleet(Path(folder), FSYNC="never", VERBOSITY="1")
        watch = Service("watch", fleet, "watch")
        fleet.migrate()
        try:
            measure(fleet, watch, MadeFleet(options.gpus, options.batch), options.backlog, options.steps)
        finally:
            watch.kill()
            fleet.kill_all()


def measure(fleet: Fleet, watch: Service, made: MadeFleet, backlog: int, steps: int) -> None:
    """Judge the backlog, then the fleet as it reports."""
    fleet.broker.start()
    fleet.broker.wait_for("listening on")
    readings = made.gpus * len(DEFAULT_METRICS)
    print(f"{made.gpus:,} GPUs x {len(DEFAULT_METRICS)} metrics each {STEP_S} s, {made.readings:,} readings a message")
    watch.start()
    watch.wait_for("judging as")
    before = watch.cpu_seconds()
    now = time.time_ns()
    asyncio.run(
        publish(fleet.port, (each for step in range(-backlog, 0) for each in made.step(now + step * STEP_S * SECOND)))
    )
    wait_until(lambda: _judged(fleet), "the watch to judge the backlog", 600)
    took = watch.cpu_seconds() - before
    print(
        f"  a log of {backlog * readings / 1e6:.1f} M readings: {took:.1f} s CPU, {took / (backlog * readings / 1e6):.2f} s for a million"
    )
    asyncio.run(report(fleet.port, made, 2))  # to come to rest
    before, began = watch.cpu_seconds(), time.monotonic()
    asyncio.run(report(fleet.port, made, steps))
    wait_until(lambda: _judged(fleet), "the watch to judge all", 60)
    share = (watch.cpu_seconds() - before) / (time.monotonic() - began)
    print(f"  as it reports, {steps} times: {share:.1%} of one core, peak memory {watch.peak_mib():.0f} MiB")
    status, seconds = watch.stop()
    print(
        f"  stopped with status {status} after {seconds:.1f} s: {watch.log.splitlines()[-1].partition('stopped: ')[2]}"
    )


def _judged(fleet: Fleet) -> bool:
    stats = fetch_stats("127.0.0.1", fleet.port, timeout=30)
    return any(
        each["id"] == "watch" and each["committed_offset"] == stats["latest_offset"] for each in stats["subscribers"]
    )


async def report(port: int, made: MadeFleet, steps: int) -> None:
    """The fleet's messages of each step, spread over its seconds."""
    for _ in range(steps):
        began = time.monotonic()
        messages = list(made.step(time.time_ns()))
        for second in range(STEP_S):
            share = messages[len(messages) * second // STEP_S : len(messages) * (second + 1) // STEP_S]
            await publish(port, iter(share))
            await asyncio.sleep(max(0.0, began + second + 1 - time.monotonic()))


async def publish(port: int, messages: Iterator[bytes]) -> None:
    """Publish all, and wait for the answers."""
    client = await BrokerClient.connect("127.0.0.1", port)
    try:
        last = None
        for each in messages:
            last = client.publish(each)
            await client.drain()
        if last is not None:
            await last
    finally:
        await client.close()


class MadeFleet:
    """A fleet in which nothing is wrong. ``batch``: readings of a message, at most, but at least those of one GPU."""

    def __init__(self, gpus: int, batch: int, metric_names: Sequence[str] = DEFAULT_METRICS) -> None:
        self.gpus = gpus
        self.metric_names = list(metric_names)
        self._described = [_gpu(number, gpus) for number in range(gpus)]
        self._rng = np.random.default_rng(1)
        self._step = 0
        self._at_once = max(1, batch // len(self.metric_names))
        self.readings = self._at_once * len(self.metric_names)

    def step(self, time_ns: int) -> Iterator[bytes]:
        """The messages of one report."""
        return self.part(0, 1, time_ns)

    def part(self, number: int, of: int, time_ns: int) -> Iterator[bytes]:
        """The messages of a part of the fleet, of so many equal ones. The first part begins a report."""
        self._step += number == 0
        begin, end = self.gpus * number // of, self.gpus * (number + 1) // of
        values = np.zeros((end - begin, len(self.metric_names)))
        for column, name in enumerate(self.metric_names):
            first, around, grows = _SHAPES.get(name, (0.0, 0.0, 0.0))
            values[:, column] = first + around * self._rng.uniform(-1, 1, end - begin) + grows * self._step
        rows = values.round(3).tolist()
        for start in range(begin, end, self._at_once):
            until = min(end, start + self._at_once)
            some = rows[start - begin : until - begin]
            block = PointBlock(
                self._described[start:until],
                self.metric_names,
                [(index, time_ns, list[float | None](row)) for index, row in enumerate(some)],
            )
            yield encode_block(block, batch_id="", source="streamer-1", collected_at="", live=True)


def _gpu(number: int, gpus: int) -> Gpu:
    job = number // GPUS_PER_POD
    held = number < gpus * HELD
    return Gpu(
        uuid=f"GPU-{number:08x}-1111-2222-3333-444444444444",
        hostname=f"node-{number // GPUS_PER_HOST:05}",
        gpu_id=number % GPUS_PER_HOST,
        device=f"nvidia{number % GPUS_PER_HOST}",
        model_name="NVIDIA H100 80GB HBM3",
        namespace=f"team-{job % NAMESPACES}" if held else "",
        pod=f"job-{job}" if held else "",
        container="main" if held else "",
    )


if __name__ == "__main__":
    main()
