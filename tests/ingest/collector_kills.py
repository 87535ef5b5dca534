"""Row 19 of the broker's fault matrix on a real InfluxDB: kill -9 of the collector around its write and its commit.

python -m tests.ingest.collector_kills --rounds 50

In each round some batches are published and a real collector is killed at one of its writes: when the write has come and the server
has not got it, when the server has it and has not said so, or when it was told and (perhaps) not committed. At the end the store must
hold what was published, each reading once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from broker.client.client import BrokerClient
from readings.times import SECOND, format_time, parse_time
from stores.influxdb import InfluxStore
from tests.influxd import Influxd, find_binary
from tests.ingest.captures import METRICS, START, Reading, stored_readings, uuid_of
from tests.ingest.kill_rounds import all_committed
from tests.ingest.processes import Fleet, wait_until
from tests.stand_in import StandIn, standing_in

BATCHES, GPUS = 3, 10
Moment = Literal["asked", "done", "told"]
MOMENTS: tuple[Moment, ...] = ("asked", "done", "told")


@dataclass
class Outcome:
    """What is left after all kills."""

    published: set[Reading]
    stored: list[Reading] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    lines: int = 0  # that the server was sent, those sent again included
    exit: int = -1
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Every reading is there, once, and the last collector stopped in order."""
        return self.exit == 0 and len(self.stored) == len(self.published) and set(self.stored) == self.published

    def __str__(self) -> str:
        kills = ", ".join(f"{self.kills[moment]} {moment}" for moment in MOMENTS)
        lost = len(self.published - set(self.stored))
        twice = len(self.stored) - len(set(self.stored))
        points = len({reading[::2] for reading in self.published})
        return (
            f"{self.kills.total()} kills of the collector ({kills}) in {self.seconds:.0f} s: {len(self.published)} readings published,"
            f" {len(self.stored)} stored, lost {lost}, twice {twice}; {max(0, self.lines - points)} lines sent again:"
            f" {'good' if self.good else 'BAD'}"
        )


class Killer:
    """Kills the collector at one moment of one of its writes."""

    def __init__(self, fleet: Fleet, door: StandIn, chance: random.Random) -> None:
        self._fleet = fleet
        self._chance = chance
        self._moment: Moment | None = None
        self._skip = 0
        self.kills: Counter[str] = Counter()
        door.hook = self._at

    def arm(self, moment: Moment) -> None:
        """For the next start of the collector."""
        self._skip, self._moment = self._chance.randrange(2), moment

    def _at(self, moment: str) -> None:
        if moment != self._moment:
            return
        if self._skip:
            self._skip -= 1
            return
        self._moment = None
        if moment == "told":
            time.sleep(self._chance.uniform(0, 0.01))  # before, in or after the commit
        self._fleet.collector.kill()
        self.kills[moment] += 1


def run(folder: Path, binary: str, rounds: int, chance: random.Random) -> Outcome:
    """Kill the collector ``rounds`` times."""
    outcome = Outcome(set())
    began = time.monotonic()
    server = Influxd(binary, folder / "influxd")
    fleet = None
    try:
        server.start()
        with standing_in(server.port) as door:
            config = replace(server.config(), url=door.url)
            fleet = Fleet(
                folder / "state",
                STORAGE_TYPE="influxdb",
                INFLUXDB_URL=door.url,
                INFLUXDB_TOKEN=config.token,
                INFLUXDB_ORG=config.org,
                INFLUXDB_BUCKET=config.bucket,
                FLUSH_INTERVAL="20ms",
            )
            fleet.migrate()
            fleet.broker.start()
            fleet.broker.wait_for("listening on")
            killer = Killer(fleet, door, chance)
            for number in range(rounds):
                killer.arm(MOMENTS[number % 3])
                fleet.collector.start()
                fleet.collector.wait_for("subscribed as")
                asyncio.run(_publish(fleet.port, number, outcome.published))
                wait_until(lambda: fleet.collector.returncode is not None, "the collector's end", 60)
            fleet.collector.start()
            wait_until(lambda: all_committed(fleet), "the collector to commit all", 120)
            outcome.exit, _ = fleet.collector.stop()
            outcome.kills = killer.kills
            outcome.lines = sum(len(seen.lines) for seen in door.seen)
            store = InfluxStore(config)
            try:
                outcome.stored = stored_readings(store)
            finally:
                store.close()
    finally:
        if fleet is not None:
            fleet.kill_all()
        server.stop()
    outcome.seconds = time.monotonic() - began
    return outcome


async def _publish(port: int, number: int, published: set[Reading]) -> None:
    """Some batches, apart, so that there is more than one write."""
    client = await BrokerClient.connect("127.0.0.1", port)
    for each in range(BATCHES):
        at = parse_time(START) + (number * BATCHES + each) * SECOND
        rows: list[Reading] = [
            (uuid_of(gpu), metric, at, float(10 + (gpu + each) % 50)) for gpu in range(GPUS) for metric in METRICS
        ]
        published.update(rows)
        metrics = [
            {"timestamp": format_time(time_ns), "metric_name": metric, "gpu_id": 0, "device": "nvidia0", "uuid": uuid,
             "model_name": "NVIDIA H100 80GB HBM3", "hostname": "host-00", "value": value}
            for uuid, metric, time_ns, value in rows
        ]  # fmt: skip
        batch = {"batch_id": f"{number}-{each}", "source": "kills", "collected_at": format_time(at), "metrics": metrics}
        await client.publish(json.dumps(batch).encode(), producer="00000000000000cc", sequence=number * BATCHES + each)
        await asyncio.sleep(0.1)
    await client.close()


def main() -> int:
    """Run it, print the figures; exit status 0 when all is good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="collector-kills-") as folder:
        outcome = run(Path(folder), find_binary(), options.rounds, random.Random(options.seed))
    sys.stdout.write(f"seed {options.seed}: {outcome}\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
