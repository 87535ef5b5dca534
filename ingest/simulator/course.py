"""The course of named faults in a fleet: they begin at their times, change readings while they last, and end."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ingest.simulator.faults import BY_LOT, NAMED, XIDS_BY_LOT, Expected, Frozen, PlannedFault, events_of
from ingest.simulator.gpu import SimGpu, SimHost

# What nobody takes is forgotten, the oldest first.
_MOST_BEGUN = 10_000
# After so long nothing of a host's silence is left in what rules look at.
_SETTLED_S = 3900.0


class BegunFault(NamedTuple):
    """A fault that has begun. ``lasts_s`` is inf if it stays; ``uuid`` is empty if it is of no single GPU."""

    name: str
    hostname: str
    uuid: str
    lasts_s: float
    events: tuple[Expected, ...]


class FaultyFleet(Protocol):
    """What a course needs of its fleet."""

    seconds: float
    hosts: list[SimHost]

    def fail(self, gpu: SimGpu, xid: int) -> None:
        """Have an XID error."""

    def hold(self, gpu: SimGpu) -> None:
        """Have a pod on the GPU."""


@dataclass(slots=True)
class _Running:
    planned: PlannedFault
    gpus: list[SimGpu]
    frozen: dict[str, float] = field(default_factory=dict)


class FaultCourse:
    """The faults of one fleet. ``planned`` come at their times; by lot come ``rate`` an hour, of those that ``metrics`` show."""

    def __init__(self, planned: Sequence[PlannedFault], rate: float, metrics: Sequence[str], seed: int) -> None:
        self.begun: deque[BegunFault] = deque(maxlen=_MOST_BEGUN)
        self._planned = sorted(planned, key=lambda fault: fault.starts_s)
        self._running: list[_Running] = []
        self._rng = random.Random(f"{seed} faults")  # noqa: S311 - made-up faults, nothing secret
        self._rate = rate / 3600
        self._first_s = math.inf
        self._names = [name for name in BY_LOT if set(NAMED[name].metrics) <= set(metrics)]
        self._next_s = self._rng.expovariate(self._rate) if rate else math.inf

    def note(
        self, name: str, host: SimHost | None, gpu: SimGpu | None, lasts_s: float, events: Sequence[Expected]
    ) -> None:
        """Write down that a fault has begun."""
        uuid = gpu.identity.uuid if gpu else ""
        self.begun.append(BegunFault(name, host.name if host else "", uuid, lasts_s, tuple(events)))

    def step(self, fleet: FaultyFleet, seconds: float) -> None:
        """Begin and end what is due at the fleet's time, which has moved on by ``seconds``, and change the readings."""
        self._first_s = min(self._first_s, fleet.seconds)
        while self._planned and self._planned[0].starts_s <= fleet.seconds:
            self._begin(fleet, self._planned.pop(0))
        while self._next_s <= fleet.seconds:
            self._draw(fleet)
            self._next_s += self._rng.expovariate(self._rate)
        if not self._running:
            return
        ended = [running for running in self._running if running.planned.ends_s <= fleet.seconds]
        for running in ended:
            self._end(running)
        self._running = [running for running in self._running if running.planned.ends_s > fleet.seconds]
        for running in self._running:
            for gpu in running.gpus:
                gpu.forced.clear()
        for running in self._running:
            for gpu in running.gpus:
                self._change(running, gpu, fleet.seconds - running.planned.starts_s, seconds)

    def _draw(self, fleet: FaultyFleet) -> None:
        """Begin a fault by lot, on a GPU that has none; of a host that was not silent lately, so that each fault shows."""
        rng = self._rng
        host = rng.choice(fleet.hosts)
        if host.silent_until > fleet.seconds - _SETTLED_S:
            return
        taken = {id(gpu) for running in self._running for gpu in running.gpus}
        free = [number for number, gpu in enumerate(host.gpus) if id(gpu) not in taken and not gpu.faults]
        name = rng.choice(self._names)
        if NAMED[name].place == "host" and len(free) < len(host.gpus):
            return
        gpu = rng.choice(free) if free and NAMED[name].place == "gpu" else None
        if gpu is None and NAMED[name].place == "gpu":
            return
        argument = float(rng.choice(XIDS_BY_LOT)) if name == "xid" else NAMED[name].argument
        ends = fleet.seconds + NAMED[name].length_s if NAMED[name].length_s else math.inf
        self._begin(fleet, PlannedFault(name, argument, host.number, gpu, fleet.seconds, ends))

    def _begin(self, fleet: FaultyFleet, planned: PlannedFault) -> None:
        fault, name = planned.fault, planned.name
        host = None if planned.host is None else fleet.hosts[planned.host - 1]
        gpu = host.gpus[planned.gpu] if host and planned.gpu is not None else None
        lasts = planned.ends_s - planned.starts_s
        events = events_of(name, planned.argument)
        if name == "missing" and gpu and gpu.xid == 79:
            events = ()  # the XID has said it
        if name == "metric_vanished" and fleet.seconds - self._first_s < _SETTLED_S:
            events = ()  # nobody knows yet what is usual
        if gpu is None:
            for each in fleet.hosts if host is None else [host]:
                each.silent_until = planned.ends_s
        elif name == "xid":
            fleet.fail(gpu, int(planned.argument))
        elif name == "gpu_replaced":
            gpu.swap()
        elif name == "gpu_reset":
            gpu.reset()
        elif not (fault.forced or fault.rates or fault.adds):
            gpu.faults[name] = planned.ends_s
            gpu.clock_events += name == "throttle"
        else:
            running = _Running(planned, [gpu])
            for metric, force in fault.forced.items():
                if force is Frozen.READING:
                    running.frozen[metric] = gpu.value(metric) + gpu.counted.get(metric, 0.0)
            for metric, factor in fault.adds.items():
                gpu.counted[metric] = gpu.counted.get(metric, 0.0) + factor * planned.argument
            if fault.held:
                fleet.hold(gpu)
            self._running.append(running)
        self.note(name, host, gpu, lasts, events)

    @staticmethod
    def _end(running: _Running) -> None:
        for gpu in running.gpus:
            gpu.forced.clear()
            if running.planned.fault.held:
                gpu.end_job()

    @staticmethod
    def _change(running: _Running, gpu: SimGpu, age_s: float, seconds: float) -> None:
        argument, fault = running.planned.argument, running.planned.fault
        for metric, force in fault.forced.items():
            match force:
                case Frozen.READING:
                    gpu.forced[metric] = running.frozen[metric]
                case float() | int() | None:
                    gpu.forced[metric] = force
                case _:
                    gpu.forced[metric] = force(argument, age_s)
        for metric, factor in fault.rates.items():
            grown = gpu.counted.get(metric, 0.0) + factor * argument * seconds
            gpu.counted[metric] = grown
