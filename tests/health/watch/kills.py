"""Kill watch, broker and database while a log is judged; then compare events and their steps with those of a run without kills.

    python -m tests.health.watch.kills [--kills N] [--steps N] [--seed N] [--database postgresql|sqlite]

All are real processes, and each kill is a SIGKILL (of PostgreSQL SIGQUIT, which ends it as a crash does). Both runs read copies of one
log, so the broker's times of the messages are the same.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from broker.client.client import BrokerClient
from readings.times import SECOND
from tests.health.watch.feeding import STEP_NS, as_messages, faulty_blocks
from tests.ingest.processes import Fleet, Service
from tests.postgres import Postgres, folder_for_cluster, required_bin

logger = logging.getLogger(__name__)

STARTED = "judging as"
_EVENTS = """
    SELECT id, rule, entity_kind, entity, subject, opened, closed, severity, state, count, hostname, slot, model_name, namespace, pod,
           summary, details, action, quiet
    FROM health_event ORDER BY opened, rule, entity, subject
"""
_STEPS = "SELECT event_id, kind, at, severity, text FROM health_eventtransition ORDER BY id"
Row = tuple[Any, ...]


@dataclass
class Outcome:
    """Events of one run, each with its steps in order, how often what was killed, and how often before all was judged."""

    events: list[Row]
    kills: Counter[str] = field(default_factory=Counter)
    on_the_way: int = 0

    @property
    def steps(self) -> int:
        return sum(len(event[-1]) for event in self.events)


class JudgedFleet(Fleet):
    """A broker on a copy of a log, a watch, and a database of their own."""

    def __init__(self, folder: Path, log: Path, postgres: Postgres | None, name: str) -> None:
        self.postgres = postgres
        url = {} if postgres is None else {"DATABASE_URL": postgres.make_database(name)}
        super().__init__(folder, **url)
        shutil.copytree(log, folder / "broker")
        self.watch = Service("watch", self, "watch")
        self.migrate()

    @property
    def services(self) -> list[Service]:
        """Broker and watch."""
        return [self.broker, self.watch]

    def ask(self, *statements: str) -> list[list[Row]]:
        """The answers of the database, as it is between two transactions of the watch."""
        if self.postgres is not None:
            with psycopg.connect(self.environ["DATABASE_URL"]) as connection:
                return [connection.execute(each).fetchall() for each in statements]
        lite = sqlite3.connect(self.state_dir / "inventory.sqlite3", timeout=30)
        try:
            return [lite.execute(each).fetchall() for each in statements]
        finally:
            lite.close()

    def end_lease(self) -> None:
        """As if the lease of who was killed had run out: a test has no time for that."""
        statement = "UPDATE health_watchstate SET lease_until = NULL, holder = ''"
        if self.postgres is not None:
            with psycopg.connect(self.environ["DATABASE_URL"]) as connection:
                connection.execute(statement)
            return
        lite = sqlite3.connect(self.state_dir / "inventory.sqlite3", timeout=30)
        with lite:
            lite.execute(statement)
        lite.close()

    def outcome(self) -> Outcome:
        """What is in the database."""
        events, steps = self.ask(_EVENTS, _STEPS)
        of_event: dict[int, list[Row]] = {}
        for event, *step in steps:
            of_event.setdefault(event, []).append(tuple(map(str, step)))
        return Outcome([(*map(str, row[1:]), tuple(of_event.get(row[0], ()))) for row in events])

    def offset(self) -> int:
        """The last message that is judged and committed; -1 for none."""
        rows = self.ask('SELECT "offset" FROM health_watchstate')[0]
        return int(rows[0][0]) if rows else -1

    def judge_all(self) -> None:
        """Run the watch, which does not run now, to the end of the log."""
        self.watch.start("--once")
        status = self.watch.wait(300)
        if status:
            raise RuntimeError(f"the watch ended with {status}: {self.watch.log[-3000:]}")


@contextmanager
def databases(kind: str) -> Iterator[Postgres | None]:
    """A PostgreSQL that runs, or for SQLite nothing."""
    if kind == "sqlite":
        yield None
        return
    with folder_for_cluster() as folder:
        server = Postgres(required_bin(), Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def make_log(folder: Path, seed: int, steps: int) -> Path:
    """The folder of a broker's log with a capture full of faults."""
    start_ns = (time.time_ns() // SECOND - 86_400) * SECOND - steps * STEP_NS
    fleet = Fleet(folder)
    fleet.broker.start()
    try:
        fleet.broker.wait_for("listening on")
        asyncio.run(_publish(fleet.port, as_messages(faulty_blocks(seed, start_ns, steps))))
    finally:
        fleet.broker.stop()
    return folder / "broker"


async def _publish(port: int, payloads: list[bytes]) -> None:
    client = await BrokerClient.connect("127.0.0.1", port)
    try:
        pending = []
        for payload in payloads:
            pending.append(client.publish(payload))
            await client.drain()
        await asyncio.gather(*pending)
    finally:
        await client.close()


def judge(folder: Path, log: Path, postgres: Postgres | None) -> Outcome:
    """One run from start to end."""
    fleet = JudgedFleet(folder, log, postgres, "unharmed")
    try:
        fleet.broker.start()
        fleet.judge_all()
        return fleet.outcome()
    finally:
        fleet.kill_all()


def judge_with_kills(
    folder: Path, log: Path, postgres: Postgres | None, chance: random.Random, steps: int, kills: int, pause: float
) -> Outcome:
    """The same, with so many kills at random moments on the way."""
    fleet = JudgedFleet(folder, log, postgres, "harmed")
    counts: Counter[str] = Counter()
    targets = ["watch", "broker"] + (["database"] if postgres is not None else [])
    last, on_the_way = -1, 0
    try:
        fleet.broker.start()
        for number in range(kills):
            target = targets[number % len(targets)]
            if fleet.watch.returncode is not None or not fleet.watch.starts:
                fleet.end_lease()
                fleet.watch.start()
                fleet.watch.wait_for(STARTED)
            time.sleep(chance.uniform(0.0, pause))
            if target == "database" and postgres is not None:
                postgres.stop(hard=True)
                time.sleep(chance.uniform(0.0, pause))
                postgres.start()
            else:
                service = fleet.watch if target == "watch" else fleet.broker
                service.kill()
                if service is fleet.broker:
                    time.sleep(chance.uniform(0.0, pause))
                    service.start()
            counts[target] += 1
            if fleet.watch.returncode not in {None, -9}:
                raise RuntimeError(f"the watch ended with {fleet.watch.returncode}: {fleet.watch.log[-3000:]}")
            offset = fleet.offset()
            if offset < last:
                raise RuntimeError(f"the watch went back from offset {last} to {offset}")
            last = offset
            on_the_way += offset < steps - 1
            logger.info("kill %d of %d: %s, committed up to %d", number + 1, kills, target, offset)
        fleet.watch.kill()
        fleet.end_lease()
        fleet.judge_all()
        outcome = fleet.outcome()
        outcome.kills, outcome.on_the_way = counts, on_the_way
        return outcome
    finally:
        fleet.kill_all()


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """What is lost, foreign, twice or otherwise; nothing if all is well."""
    wanted, there = Counter(expected.events), Counter(found.events)
    return [f"lost or otherwise: {row}" for row in (wanted - there)] + [
        f"foreign or twice: {row}" for row in there - wanted
    ]


def play(folder: Path, *, seed: int, kills: int, steps: int, database: str, pause: float) -> tuple[Outcome, Outcome]:
    """Both runs: without and with kills."""
    with ExitStack() as stack:
        postgres = stack.enter_context(databases(database))
        log = make_log(folder / "log", seed, steps)
        expected = judge(folder / "unharmed", log, postgres)
        found = judge_with_kills(folder / "harmed", log, postgres, random.Random(seed), steps, kills, pause)
    return expected, found


def main() -> int:
    """Run it and print the figures; exit status 0 when both are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=40_000, help="of 10 s each, in the log [%(default)s]")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--pause", type=float, default=3.0, help="most seconds from one kill to the next")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory(prefix="watch-kills-") as folder:
        expected, found = play(Path(folder), **vars(given))
    wrong = differences(expected, found)
    for line in wrong[:20]:
        sys.stdout.write(line + "\n")
    sys.stdout.write(
        f"seed {given.seed}: {dict(found.kills)} kills, {found.on_the_way} on the way, {len(expected.events)} events with {expected.steps} steps, "
        f"{len(wrong)} differences: {'BAD' if wrong else 'good'}\n"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
