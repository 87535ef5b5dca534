"""Kill collectors, broker and store while readings come; then compare all windows with a plain reckoning over the readings.

    python -m tests.ingest.rollups.kills [--kills N] [--seed N] [--store sqlite|influxdb]

All are real processes, and each kill is a SIGKILL. Two collectors read the whole log. The readings are of the last minutes, so that windows
are made as soon as they are stored; some come late, and some again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from broker.client.client import BrokerClient
from broker.errors import BrokerError
from readings.batch import encode_block
from readings.times import SECOND
from stores.rollups.influxdb import InfluxRollups
from stores.rollups.sqlite import SqliteRollups
from stores.rollups.windows import LEVELS, STEP_NS, RollupStore, Tier, stats_of
from tests.influxd import Influxd, find_binary
from tests.ingest.processes import ROOT, Fleet, Service, all_committed, wait_until
from tests.stores.rollups.reckoning import ENERGY, POWER, UTIL, XID, Cell, Given, blocks_of, gpu, reckoned

logger = logging.getLogger(__name__)

NAMES = (UTIL, ENERGY, POWER, XID)
GPUS = [gpu(f"G{number}", host=number // 4, model="AB"[number % 2]) for number in range(8)] + [
    gpu("M", mig_id, host=2) for mig_id in ("1", "2")
]
STEP, MINUTES = 10, 10
TIERS: tuple[Tier, ...] = ("1m", "1h")


@dataclass
class Outcome:
    """How often what was killed, how many minutes were made on the way, how many windows there are, and what is wrong with them."""

    kills: Counter[str] = field(default_factory=Counter)
    on_the_way: int = 0
    windows: int = 0
    wrong: list[str] = field(default_factory=list)


def make_readings(chance: random.Random) -> list[list[Given]]:
    """What each message holds: a point of some GPUs. In the order of time but for some that are late or come twice."""
    begins_ns = (time.time_ns() - 60 * SECOND) // (60 * SECOND) * 60 * SECOND - MINUTES * 60 * SECOND
    messages = []
    for number in range(MINUTES * 60 // STEP):
        time_ns = begins_ns + number * STEP * SECOND
        for host in range(3):
            points = [
                Given(of, name, time_ns, float(chance.randrange(100) if name == UTIL else number * 7 % 50))
                for of in GPUS
                if of.hostname == f"host-{host}"
                for name in NAMES
            ]
            late = chance.choice((5, 15, 60)) if chance.random() < 0.03 else chance.random()
            messages.append((number + late, points))
            if chance.random() < 0.03:
                messages.append((number + chance.randrange(10), points))
    return [points for _, points in sorted(messages, key=lambda each: each[0])]


class RolledFleet(Fleet):
    """A broker and two collectors of its whole log, on one store."""

    def __init__(self, folder: Path, influxd: Influxd | None) -> None:
        self.influxd = influxd
        self.config = None if influxd is None else influxd.config()
        settings: dict[str, object] = {}
        if self.config is not None:
            settings = {
                "STORAGE_TYPE": "influxdb",
                "INFLUXDB_URL": self.config.url,
                "INFLUXDB_TOKEN": self.config.token,
                "INFLUXDB_ORG": self.config.org,
                "INFLUXDB_BUCKET": self.config.bucket,
            }
        super().__init__(folder, **settings)
        self.second = Service("second", self, "collect", "--collector-id", "collector-2")
        self.migrate()

    @property
    def services(self) -> list[Service]:
        """Broker and collectors."""
        return [self.broker, self.collector, self.second]

    def _execute(self, statement: str) -> list[tuple[int]]:
        lite = sqlite3.connect(self.state_dir / "inventory.sqlite3", timeout=30)
        try:
            with lite:
                return lite.execute(statement).fetchall()
        finally:
            lite.close()

    def end_lease(self) -> None:
        """As if the lease of who was killed had run out: a test has no time for that."""
        self._execute("UPDATE inventory_rollupstate SET lease_until = NULL, holder = ''")

    def minutes_waiting(self) -> int:
        """Minutes that were touched and not made since."""
        return self._execute("SELECT count(DISTINCT start_ns) FROM inventory_rolluptouch WHERE tier = '1m'")[0][0]

    def roll_up(self) -> str:
        """Make all that waits."""
        self.end_lease()
        command = [sys.executable, str(ROOT / "manage.py"), "rollup", "--once"]
        return subprocess.run(command, env=self.environ, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    def open_rollups(self) -> RollupStore:
        """The windows."""
        retention: dict[Tier, float] = {"1m": 0.0, "1h": 0.0}
        if self.config is not None:
            return InfluxRollups(self.config, retention=retention, given=[])
        return SqliteRollups(self.state_dir / "readings.sqlite3", retention=retention)


async def publish(port: int, messages: Sequence[Sequence[Given]], seconds: float) -> None:
    """Send all of it, evenly; again where the broker was killed before it answered."""
    client: BrokerClient | None = None
    began = time.monotonic()
    for number, points in enumerate(messages):
        await asyncio.sleep(max(0.0, began + seconds * number / len(messages) - time.monotonic()))
        payloads = [encode_block(each, batch_id="", source="", collected_at="") for each in blocks_of(points)]
        while payloads:
            try:
                client = client or await BrokerClient.connect("127.0.0.1", port)
                async with asyncio.timeout(5):
                    await client.publish(payloads[-1])
                payloads.pop()
            except (BrokerError, OSError, TimeoutError):
                if client is not None:
                    await client.close()
                client = None
                await asyncio.sleep(0.05)
    if client is not None:
        await client.close()


@contextmanager
def stores(kind: str) -> Iterator[Influxd | None]:
    """An InfluxDB that runs, or for SQLite nothing."""
    if kind == "sqlite":
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="rollup-influxd-") as folder:
        server = Influxd(find_binary(), Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def play(folder: Path, *, seed: int, kills: int, store: str, seconds: float) -> Outcome:
    """Kill while readings come, then let all be written and rolled up, and compare."""
    chance, outcome = random.Random(seed), Outcome()
    with stores(store) as influxd:
        fleet = RolledFleet(folder, influxd)
        messages = make_readings(chance)
        publisher = Publisher(fleet.port, messages, seconds)
        try:
            for service in fleet.services:
                service.start()
            publisher.start()
            for number in range(kills):
                time.sleep(chance.uniform(0.5, 2 * seconds / kills - 0.5))
                target = fleet.services[number % 3]
                target.kill()
                outcome.kills[target.name] += 1
                if chance.random() < 0.7:
                    fleet.end_lease()
                target.start()
                logger.info("kill %d of %d: %s", number + 1, kills, target.name)
            publisher.join()
            wait_until(lambda: all_committed(fleet), "the collectors", 60)
            for service in (fleet.collector, fleet.second):
                service.stop()
            # What came twice counts once.
            given = {(each.gpu.id, each.name, each.time_ns): each for points in messages for each in points}
            minutes = {time_ns // STEP_NS["1m"] for _, _, time_ns in given}
            outcome.on_the_way = len(minutes) - fleet.minutes_waiting()
            fleet.roll_up()
            compare(fleet.open_rollups(), list(given.values()), outcome)
        finally:
            fleet.kill_all()
    return outcome


class Publisher:
    """Publishes in a process of its own, since this one sleeps and waits."""

    def __init__(self, port: int, messages: list[list[Given]], seconds: float) -> None:
        import multiprocessing

        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=lambda: asyncio.run(publish(port, messages, seconds)), daemon=True)

    def start(self) -> None:
        """Begin."""
        self._process.start()

    def join(self) -> None:
        """Wait for the end. Raises RuntimeError if it failed."""
        self._process.join(120)
        if self._process.exitcode != 0:
            raise RuntimeError(f"publishing ended with {self._process.exitcode}")


def compare(rollups: RollupStore, readings: Sequence[Given], outcome: Outcome) -> None:
    """Each window against the readings in it."""
    try:
        for tier in TIERS:
            for start_ns in sorted({each.time_ns // STEP_NS[tier] * STEP_NS[tier] for each in readings}):
                outcome.windows += 1
                expected, found = reckoned(readings, tier, start_ns), stored(rollups, tier, start_ns)
                for cell in expected.keys() | found.keys():
                    one, other = expected.get(cell), found.get(cell)
                    if one is None or other is None or not math.isclose(one, other, rel_tol=1e-11, abs_tol=1e-9):
                        outcome.wrong.append(f"{tier} {start_ns} {cell}: {other}, not {one}")
    finally:
        rollups.close()


def stored(rollups: RollupStore, tier: Tier, start_ns: int) -> dict[Cell, float]:
    """All statistics of the windows that begin then."""
    cells: dict[Cell, float] = {}
    for level in LEVELS[tier]:
        for name in NAMES:
            table = rollups.read(tier, level, name, stats_of(name, level), start_ns, start_ns + STEP_NS[tier])
            for row, place in enumerate(table.places.tolist()):
                for stat, values in table.stats.items():
                    value = float(values[row, 0])
                    if not math.isnan(value):
                        cells[level, table.keys[place], name, stat] = value
    return cells


def main() -> int:
    """Run it and print the figures; exit status 0 when all windows are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="that readings come [%(default)s]")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--store", choices=("sqlite", "influxdb"), default="sqlite")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = Path(tempfile.mkdtemp(prefix="rollup-kills-"))
    outcome = play(folder, seed=given.seed, kills=given.kills, store=given.store, seconds=given.seconds)
    for line in outcome.wrong[:20]:
        sys.stdout.write(line + "\n")
    sys.stdout.write(
        f"seed {given.seed}: {dict(outcome.kills)} kills, {outcome.on_the_way} minutes made on the way, {outcome.windows} windows, {len(outcome.wrong)} statistics wrong: "
        f"{'BAD, see ' + str(folder) if outcome.wrong else 'good'}\n"
    )
    if not outcome.wrong:
        shutil.rmtree(folder)
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
