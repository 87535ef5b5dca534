"""Collectors that read one log, are killed at any step and take the lease from one another, all in one thread and by one seed.

    python -m pytest tests/ingest/rollups/test_simulation.py

Each step is one that a process could be killed after, or in which another may be at work: what a collector writes, sees, records
and commits; what the roller reads, writes and settles.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ingest.rollups.feed import RollupFeed
from ingest.rollups.roller import Roller, RollupConfig, RollupLeaseLost
from inventory.models import RollupState
from inventory.rollup_touches import touches
from readings.model import Gpu, PointBlock
from readings.times import SECOND
from stores.memory import MemoryStore
from stores.rollups.windows import WindowTable
from tests.ingest.rollups.keeping import KeptWindows, assert_right
from tests.stores.rollups.reckoning import ENERGY, POWER, UTIL, XID, Given, blocks_of, gpu

HERE = "a store"
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
START = 490_000 * HOUR + 50 * MINUTE
NAMES = (UTIL, ENERGY, POWER, XID)
# A GPU, some that are cut into instances, and one that moves between two hosts.
FLEET = [gpu(f"G{number}", host=number // 3, model="AB"[number % 2]) for number in range(5)] + [
    gpu("M", mig_id, host=1) for mig_id in ("", "1", "2")
]
MOVER = [gpu("T", host=0), gpu("T", host=1)]


class Killed(BaseException):
    """As by kill -9."""


class Disturbed(KeptWindows):
    """Something else happens before and after each write."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def write(self, tables: Sequence[WindowTable]) -> None:
        self._world.disturb(takeover=True)
        self._world.step()
        super().write(tables)
        self._world.step()
        self._world.disturb(takeover=True)


class Process:
    """One life of a collector: the log from where its id committed last."""

    def __init__(self, world: World, collector: str) -> None:
        self.world = world
        self.collector = collector
        self.position = world.committed[collector]
        self.feed = RollupFeed(lambda: HERE, f"{collector}:{world.lives}")
        world.lives += 1
        self.roller = Roller(
            world.raw,
            world.kept,
            self.feed,
            RollupConfig(),
            store=HERE,
            newest_ns=lambda: None,
            now_ns=lambda: world.now_ns,
            clock=self._clock,
        )
        make = self.roller.maker.make

        def make_disturbed(*args: Any, **more: Any) -> Any:
            made = make(*args, **more)
            world.disturb()
            return made

        self.roller.maker.make = make_disturbed  # type: ignore[method-assign]

    def _clock(self) -> float:
        self.world.step()
        return self.world.now_ns / SECOND

    def collect(self, most: int = 3) -> None:
        """Write some messages, and mostly record and commit them."""
        chance = self.world.chance
        upto = min(len(self.world.log), self.position + chance.randint(1, most))
        taken = [self.world.log[number] for number in range(self.position, upto) if self.world.is_for(self, number)]
        if taken:
            self.world.raw.write(taken)
            self.world.step()
            self.feed.see(taken)
        self.position = upto
        self.world.step()
        if chance.random() < 0.7:
            self.commit()

    def commit(self) -> None:
        """Record what was touched, then commit."""
        self.feed.save()
        self.world.step()
        self.world.committed[self.collector] = self.position

    def roll(self, *, everything: bool = False) -> None:
        """A turn, if it can have the lease."""
        if self.roller.holds_lease or self.roller.acquire():
            try:
                self.roller.turn(everything=everything)
            except RollupLeaseLost:
                self.world.counts["lost leases"] += 1
            if self.world.processes[self.collector] is not self:
                self.roller.drop()  # the next life has begun


class World:
    """Raw, roll-ups, a log, and collectors that all read it, or ``apart``, each a part of it.

    ``trouble`` is how likely a step is the last one of a process.
    """

    def __init__(self, seed: int, collectors: int, trouble: float, *, apart: bool = False) -> None:
        self.chance = random.Random(seed)
        self.trouble = trouble
        self.apart = apart
        self.raw, self.kept = MemoryStore(), Disturbed(self)
        self.now_ns = START
        self.given: dict[tuple[str, str, int], Given] = {}
        self.log: list[PointBlock] = []
        self.counts: Counter[str] = Counter()
        self.lives = 0
        self.calm = False
        self._depth = 0
        names = [f"collector-{number}" for number in range(collectors)]
        self.committed = dict.fromkeys(names, 0)
        self.processes = {name: Process(self, name) for name in names}

    def is_for(self, process: Process, number: int) -> bool:
        """Whether a process reads this message."""
        return not self.apart or list(self.processes).index(process.collector) == number % len(self.processes)

    # What happens.

    def publish(self, ages: Sequence[int] = (3, 20, 70, 150, 3700), late: float = 20.0) -> None:
        """A message: of this moment, or late, or again. ``ages`` in seconds."""
        chance = self.chance
        if self.log and chance.random() < 5 * self.trouble:
            self.log.append(chance.choice(self.log))
            return
        behind = chance.choice(ages) if chance.random() < late * self.trouble else 0
        self.log += blocks_of(
            reading
            for of in chance.sample([*FLEET, chance.choice(MOVER)], chance.randint(1, len(FLEET)))
            for reading in self._point(of, self.now_ns - (behind * SECOND + chance.randrange(3) * SECOND))
        )

    def _point(self, of: Gpu, time_ns: int) -> list[Given]:
        if (of.id, UTIL, time_ns) in self.given:
            return []
        elapsed = (time_ns - START) / SECOND
        values = {
            UTIL: self.chance.randrange(100),
            ENERGY: 1000 + elapsed % 900,
            POWER: 300 + self.chance.random(),
            XID: 0,
        }
        found = [Given(of, name, time_ns, float(values[name])) for name in NAMES]
        self.given |= {(of.id, each.name, time_ns): each for each in found}
        return found

    def step(self) -> None:
        """A process may be killed here."""
        if not self.calm and self.chance.random() < self.trouble:
            raise Killed

    def disturb(self, *, takeover: bool = False) -> None:
        """While one process is at work others are too."""
        if self.calm or self._depth or self.chance.random() > 25 * self.trouble:
            return
        self._depth += 1
        for _ in range(self.chance.randint(1, 2)):
            self.publish((30, 45, 60, 75, 90, 105), late=1 / self.trouble)  # into what is being made
        for process in list(self.processes.values()):
            self.act(process.collector, lambda each: each.collect(most=50))
        if takeover and self.chance.random() < 0.3:
            self._take_over()
        self._depth -= 1

    def _take_over(self) -> None:
        """Another process rolls up meanwhile: another collector, or the next life of one that was thought dead."""
        others = [each.collector for each in self.processes.values() if not each.roller.holds_lease]
        if not others:
            others = [self.chance.choice(list(self.processes))]
            self.processes[others[0]] = Process(self, others[0])
        self.end_lease()
        self.act(self.chance.choice(others), lambda each: each.roll(everything=True))

    def act(self, name: str, what: Callable[[Process], None]) -> None:
        """Let a collector do something; if it is killed the next life begins."""
        process = self.processes[name]
        try:
            what(process)
        except Killed:
            self.kill(process)

    def kill(self, process: Process) -> None:
        self.counts["kills"] += 1
        self.counts.update(process.roller.maker.made)
        process.roller.drop()  # its threads end with it
        if self.processes[process.collector] is process:
            self.processes[process.collector] = Process(self, process.collector)
        if self.chance.random() < 0.5:
            self.end_lease()

    def end_lease(self) -> None:
        RollupState.objects.update(lease_until="2020-01-01T00:00:00Z")

    def play(self, steps: int) -> None:
        """So many things, in any order."""
        chance = self.chance
        for _ in range(steps):
            name = chance.choice(list(self.processes))
            match chance.choices(
                ("time", "publish", "collect", "roll", "kill", "settle"), (30, 40, 40, 30, 20 * self.trouble, 4)
            )[0]:
                case "time":
                    self.now_ns += chance.choice((1, 5, 10, 10, 20)) * SECOND
                case "publish":
                    self.publish()
                case "collect":
                    self.act(name, Process.collect)
                case "roll":
                    self.act(name, Process.roll)
                case "kill":
                    self.kill(self.processes[name])
                case "settle":
                    self.settle()

    def settle(self) -> None:
        """Nothing new comes, nobody is killed, everything is read and rolled up: then all is right."""
        self.calm = True
        self.end_lease()
        while any(position < len(self.log) for position in self.committed.values()):
            for process in list(self.processes.values()):
                process.collect(most=50)
        for process in list(self.processes.values()):
            process.commit()
        while touches(HERE):
            for process in list(self.processes.values()):
                process.roll(everything=True)
        self.counts["windows"] += assert_right(self.kept, list(self.given.values()), HERE)
        self.calm = False

    def end(self) -> None:
        """The threads end."""
        for process in self.processes.values():
            self.counts.update(process.roller.maker.made)
            process.roller.drop()
