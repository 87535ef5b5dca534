"""The simulate source: a synthetic fleet that gives readings at a steady interval."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from ingest.concurrency import pause
from ingest.samples import RefusedRow, Sample
from ingest.shard import WHOLE, Shard
from ingest.simulator.fleet import FleetShape, SimFleet
from ingest.streamer.live import Give, SourceBatch
from readings.checks import Refused, parse_value


class SimulateSource:
    """A LiveSource. The whole fleet is simulated, and our shard's hosts are reported: so all shards share one fleet."""

    def __init__(self, shape: FleetShape, interval: float, shard: Shard = WHOLE) -> None:
        self.name = f"a synthetic fleet of {shape.hosts} hosts with {shape.gpus_per_host} GPUs each"
        self._fleet = SimFleet(shape)
        self._hosts = [host for host in self._fleet.hosts if shard.has(host.name)]
        self._interval = interval

    async def run(self, give: Give, stop: asyncio.Event, *, once: bool) -> None:
        """Give the fleet's readings every interval until ``stop``; with ``once`` one time."""
        due = time.monotonic()
        while True:
            give(await asyncio.to_thread(self._next))
            due = max(due + self._interval, time.monotonic())
            if once or await pause(stop, due - time.monotonic()):
                return

    def _next(self) -> SourceBatch:
        self._fleet.step(self._interval)
        now_ns = time.time_ns()
        samples: list[Sample] = []
        refused: list[RefusedRow] = []
        for host in self._hosts:
            for gpu, name, value in self._fleet.readings(host):
                if value < 2_147_483_632:
                    samples.append(Sample(gpu, name, now_ns, value))
                    continue
                text = format(value, ".0f")  # as an exporter writes it
                try:
                    samples.append(Sample(gpu, name, now_ns, parse_value(text)))
                except Refused as error:
                    refused.append(RefusedRow(0, error.reason, error.detail, f'{name}{{UUID="{gpu.uuid}"}} {text}'))
        return SourceBatch(samples, refused, Counter(row.reason for row in refused))
