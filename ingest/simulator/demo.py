"""The demo scenario: a small fleet in which there is something to see from the first minute on, and for as long as it runs.

Every host has a role; the roles are given in turn. Faults are of the first host of a role. Four hosts show all of them.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.simulator.faults import NAMED, Expected, events_of
from ingest.simulator.fleet import FleetShape, SimFleet
from ingest.simulator.gpu import MEMORY_MIB, Job, SimGpu, SimHost

# The utilisation in percent at a time in seconds.
Load = Callable[[float, random.Random], float]

XID_FALLEN_OFF, XID_DOUBLE_BIT = 79, 48
FALLS_OFF_S = 15.0  # the GPU reports XID 79
MISSING_S = 25.0  # and is gone
DOUBLE_BIT_S = 40.0  # another GPU's memory fails, and its job dies
RESTART_S = 160.0  # that job goes on without the GPU
BAD_AIRFLOW = 16.0  # °C


def steady(level: float) -> Load:
    """The same load all the time."""
    return lambda seconds, rng: level


def sawtooth(level: float, period_s: float, pause_s: float, first_s: float) -> Load:
    """Load that falls to a little for ``pause_s`` of each period, first at ``first_s``, while a checkpoint is written."""
    return lambda seconds, rng: level if (seconds - first_s) % period_s >= pause_s else 12.0


def bursts(base: float, wave: float, period_s: float) -> Load:
    """The load of a service: a slow wave of requests, and bursts on top."""

    def load(seconds: float, rng: random.Random) -> float:
        if rng.random() < 0.12:
            return rng.uniform(80.0, 100.0)
        return base + wave * math.sin(2 * math.pi * seconds / period_s)

    return load


class _Part(NamedTuple):
    """What runs on some eighths of a host; with ``each``, in a pod for each GPU."""

    eighths: int
    team: str
    pod: str
    load: Load
    memory: float  # share of the GPU's
    tensor: float
    swing: float = 1.0
    each: bool = False


_PRETRAIN = _Part(8, "research", "pretrain-llm", steady(97.0), 0.93, 0.75)
_VISION = _Part(8, "vision", "train-vision", sawtooth(93.0, 600.0, 30.0, 330.0), 0.8, 0.5, swing=3.0)
_NOTEBOOKS = _Part(5, "notebooks", "notebook", steady(0.0), 0.35, 0.0, swing=0.0, each=True)
_FINETUNE = _Part(4, "research", "finetune-llm", steady(86.0), 0.7, 0.6, swing=4.0)
_RANKING = _Part(4, "serving", "ranking", bursts(30.0, 15.0, 900.0), 0.5, 0.2, swing=8.0, each=True)
_CHAT = _Part(6, "serving", "chat", bursts(45.0, 25.0, 1500.0), 0.85, 0.3, swing=8.0, each=True)
_SPEECH = _Part(8, "speech", "train-speech", sawtooth(78.0, 210.0, 32.0, 30.0), 0.6, 0.4, swing=6.0)
# GPUs that no part takes are free. On hosts without any part short jobs come and go.
_ROLES: tuple[tuple[_Part, ...], ...] = (
    (_PRETRAIN,),
    (_VISION,),
    (_NOTEBOOKS,),
    (_FINETUNE, _RANKING),
    (_PRETRAIN,),
    (_CHAT,),
    (_SPEECH,),
    (),
)
_THROTTLED, _HOT, _FAILING = 0, 1, 3  # hosts
# The load of the throttled GPU is over 90 %, so that its clock is seen too.
_BUSY_AND_SLOW = (Expected("clock_low", "warning", for_s=600.0),)


@dataclass(slots=True)
class _Work:
    """A job on its GPUs, and its load over time."""

    gpus: list[SimGpu]
    load: Load
    job: Job

    def start(self) -> None:
        for gpu in self.gpus:
            gpu.start_job(self.job)

    def end(self) -> None:
        for gpu in self.gpus:
            gpu.end_job()
        self.gpus = []


@dataclass(slots=True)
class _Script:
    """Events in the order of their times."""

    events: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.events.pop(0)[1]()


class DemoFleet(SimFleet):
    """A fleet of jobs of different shapes, a team that holds idle GPUs, a hot host and a throttled GPU. From second 15 on one GPU
    fails with XID 79 and is missing, and another has XID 48, which ends its job."""

    job_namespace = "synthetic-batch"

    def __init__(self, shape: FleetShape, seconds: float = 0.0) -> None:
        self._works: list[_Work] = []
        self._pods: Counter[str] = Counter()
        self._roles = {number: _ROLES[(number - 1) % len(_ROLES)] for number in range(1, shape.hosts + 1)}
        self._script = _Script()
        self._idle: list[SimGpu] = []
        super().__init__(shape, seconds)
        self._air(self.hosts)
        self._plan_faults()
        hosts = {host.name: host for host in self.hosts}
        for gpu in self._idle:
            self.course.note("idle_held", hosts[gpu.identity.hostname], gpu, math.inf, NAMED["idle_held"].events)

    def step(self, seconds: float) -> None:
        """Move the whole fleet on by ``seconds``."""
        until = self.seconds + seconds
        self._script.run(until)
        for work in self._works:
            load = min(100.0, max(0.0, work.load(until, self._rng)))
            for gpu in work.gpus:
                gpu.job = work.job._replace(load=load)
        super().step(seconds)

    def _start_jobs(self, host: SimHost) -> None:
        role = self._roles[host.number]
        if not role:
            super()._start_jobs(host)
            return
        host.next_job = math.inf
        free = list(host.gpus)
        for part in role:
            count = round(part.eighths * len(host.gpus) / 8)
            taken, free = free[:count], free[count:]
            for gpus in [[gpu] for gpu in taken] if part.each else [taken]:
                self._start(part, gpus)

    def _start(self, part: _Part, gpus: list[SimGpu]) -> None:
        job = Job(
            name=f"{part.pod}-{self._pods[part.pod]}",
            ends=math.inf,
            load=0.0,
            swing=part.swing,
            memory_mib=float(round(MEMORY_MIB * part.memory)),
            tensor=part.tensor,
            namespace=f"synthetic-{part.team}",
        )
        self._pods[part.pod] += 1
        work = _Work(gpus, part.load, job)
        work.start()
        if part is _NOTEBOOKS:
            self._idle += gpus
        self._works.append(work)

    def _air(self, hosts: Sequence[SimHost]) -> None:
        """Give each GPU the air that its place in the host has."""
        for number, host in enumerate(hosts):
            for place, gpu in enumerate(host.gpus):
                gpu.warmer = place % 4 + self._rng.uniform(-1.0, 1.0) + (BAD_AIRFLOW if number == _HOT else 0.0)

    def _plan_faults(self) -> None:
        throttled = self.hosts[_THROTTLED].gpus[-1 - len(self.hosts[_THROTTLED].gpus) // 3]
        throttled.faults["throttle"] = math.inf
        throttled.clock_events += 1
        self.course.note(
            "throttle", self.hosts[_THROTTLED], throttled, math.inf, (*NAMED["throttle"].events, *_BUSY_AND_SLOW)
        )
        if len(self.hosts) <= _FAILING:
            return
        host = self.hosts[_FAILING]
        failing, lost = host.gpus[0], host.gpus[-1]

        def fail(gpu: SimGpu, xid: int) -> None:
            self.fail(gpu, xid)
            self.course.note("xid", host, gpu, math.inf, events_of("xid", xid))

        def lose() -> None:
            lost.faults.update(missing=math.inf)
            self.course.note("missing", host, lost, math.inf, ())  # its XID has said it

        self._script.events = [
            (FALLS_OFF_S, lambda: fail(lost, XID_FALLEN_OFF)),
            (MISSING_S, lose),
            (DOUBLE_BIT_S, lambda: fail(failing, XID_DOUBLE_BIT)),
            (RESTART_S, self._restart),
        ]

    def fail(self, gpu: SimGpu, xid: int) -> None:
        """An XID error of a GPU. It ends the whole job that runs there."""
        gpu.report_xid(xid)
        for work in self._works:
            if gpu in work.gpus:
                work.end()
        self._works = [work for work in self._works if work.gpus]

    def _restart(self) -> None:
        """Start the job that died again, on the GPUs that are left of it."""
        free = [gpu for gpu in self.hosts[_FAILING].gpus if gpu.job is None and not gpu.xid]
        if free:
            self._start(_FINETUNE, free)


SCENARIOS: dict[str, type[SimFleet]] = {"random": SimFleet, "demo": DemoFleet}
