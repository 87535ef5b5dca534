"""The simulate source: a synthetic fleet that gives readings at a steady interval, on request with a past."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from ingest.samples import RefusedRow, Sample
from ingest.shard import WHOLE, Shard
from ingest.simulator.demo import SCENARIOS
from ingest.simulator.fleet import FleetShape
from ingest.simulator.truth import TruthFile
from ingest.streamer.live import Give, SourceBatch
from readings.checks import Refused, parse_value
from telemetry_site.concurrency import pause

HISTORY_STEP_S = 30.0
# The past is made at once, in memory. A larger fleet's is coarser.
_MOST_OF_HISTORY = 1_000_000
_LEAST_NOT_A_VALUE = 2_147_483_632


class SimulateSource:
    """A LiveSource. The whole fleet is simulated, and our shard's hosts are reported: so all shards share one fleet.

    With ``history`` (seconds) it first gives the fleet's readings of that time before now, at a coarse step. ``truth`` gets the faults.
    """

    def __init__(
        self,
        shape: FleetShape,
        interval: float,
        shard: Shard = WHOLE,
        *,
        history: float = 0.0,
        truth: TruthFile | None = None,
    ) -> None:
        self.name = f"a synthetic fleet of {shape.hosts} hosts with {shape.gpus_per_host} GPUs each"
        most_steps = _MOST_OF_HISTORY // (shape.hosts * shape.gpus_per_host * len(shape.metrics))
        self._past_steps = min(int(history // HISTORY_STEP_S), most_steps)
        self._past_step = history / max(1, self._past_steps)
        self._fleet = SCENARIOS[shape.scenario](shape, -self._past_steps * self._past_step)
        self._hosts = [host for host in self._fleet.hosts if shard.has(host.name)]
        self._interval = interval
        self._names = {host.name for host in self._hosts} | {""}
        self._metrics = shape.metrics
        self._truth = truth

    async def run(self, give: Give, stop: asyncio.Event, *, once: bool) -> None:
        """Give the past, then the fleet's readings every interval until ``stop``; with ``once`` one time."""
        start_ns = time.time_ns()
        for steps_back in range(self._past_steps, 0, -1):
            time_ns = start_ns - round(steps_back * self._past_step * 1e9)
            give(await asyncio.to_thread(self._next, self._past_step, time_ns))
            if stop.is_set():
                return
        due = time.monotonic()
        while True:
            give(await asyncio.to_thread(self._next, self._interval, time.time_ns()))
            due = max(due + self._interval, time.monotonic())
            if once or await pause(stop, due - time.monotonic()):
                return

    def _next(self, seconds: float, time_ns: int) -> SourceBatch:
        """Move the fleet on by ``seconds``; its readings then, as of ``time_ns``."""
        self._fleet.step(seconds)
        begun = self._fleet.course.begun
        while begun:
            fault = begun.popleft()
            if self._truth is not None and fault.hostname in self._names:
                self._truth.write(fault, time_ns, seconds, self._metrics)
        samples: list[Sample] = []
        refused: list[RefusedRow] = []
        for host in self._hosts:
            for gpu, name, value in self._fleet.readings(host):
                if value < _LEAST_NOT_A_VALUE:
                    samples.append(Sample(gpu, name, time_ns, value))
                    continue
                text = format(value, ".0f")  # as an exporter writes it
                try:
                    samples.append(Sample(gpu, name, time_ns, parse_value(text)))
                except Refused as error:
                    refused.append(RefusedRow(0, error.reason, error.detail, f'{name}{{UUID="{gpu.uuid}"}} {text}'))
        return SourceBatch(samples, refused, Counter(row.reason for row in refused))
