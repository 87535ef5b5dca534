"""Row 21 of the broker's fault matrix: a live streamer's spool while the broker is away and the streamer is killed.

python -m tests.ingest.spool_faults --away 300 --kills 5                       # everything spooled arrives
python -m tests.ingest.spool_faults --away 60 --kills 2 --spool-bytes 1MiB     # a spool that is full

The simulator streams while there is no broker; the streamer is killed with -9 meanwhile, and the spool's last file is torn as a loss of
power would. What lies in the spool when the broker comes is then looked for in the broker's log: each batch once, in order.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from broker.client.client import BrokerClient, Message
from ingest.streamer.spool import Spool
from telemetry_site.options import SPOOL_BYTES
from tests.ingest.processes import Fleet, wait_until

Batch = tuple[str, int, bytes]  # producer, number, payload


@dataclass
class Outcome:
    """What was in the spool when the broker came, and what is in the broker's log."""

    spooled: list[Batch]
    arrived: list[Batch]
    kills: int
    given_up: int  # batches, as the streamer said
    largest: int  # bytes of the spool's files, at most
    limit: int
    left: int  # batches in the spool at the end
    exit: int
    torn: int
    seconds: float
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether the promises were kept; ``problems`` says which were not."""
        first = self.spooled[0][1] if self.spooled else 0
        numbers = [number for _, number, _ in self.arrived]
        arrived = set(self.arrived)
        checks = {
            "nothing was spooled": bool(self.spooled),
            "spooled batches are missing": all(batch in arrived for batch in self.spooled),
            "batches came twice or out of order": all(a < b for a, b in pairwise(numbers)),
            "batches are missing between": numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            if numbers
            else False,
            "what was given up came": not numbers or numbers[0] == first,
            "the spool grew past its bound": self.largest <= self.limit,
            "batches are left in the spool": self.left == 0,
            "the streamer did not stop in order": self.exit == 0,
        }
        self.problems = [text for text, held in checks.items() if not held]
        return not self.problems

    def __str__(self) -> str:
        good = self.good
        return (
            f"{self.kills} kills of the streamer, {self.torn} torn tails, {self.seconds:.0f} s: {len(self.spooled)} batches in the spool"
            f" when the broker came, {len(self.arrived)} in its log, {self.given_up} given up before;"
            f" spool {self.largest / 1e6:.1f} MB at most of {self.limit / 1e6:.1f}, {self.left} batches left:"
            f" {'good' if good else 'BAD: ' + ', '.join(self.problems)}"
        )


def run(folder: Path, *, away: float, kills: int, spool_bytes: str, hosts: int, chance: random.Random) -> Outcome:
    """Let the broker be away for that many seconds, and kill the streamer meanwhile."""
    fleet = Fleet(
        folder,
        SOURCE="simulate",
        SIM_HOSTS=hosts,
        SIM_GPUS_PER_HOST=8,
        SCRAPE_INTERVAL="500ms",
        SPOOL_BYTES=spool_bytes,
        INSTANCE_ID="s1",
    )
    spool = folder / "spool" / "s1"
    largest = torn = 0
    began = time.monotonic()
    try:
        for number in range(kills + 1):
            fleet.streamer.start()
            fleet.streamer.wait_for("streaming ")
            end = time.monotonic() + away / (kills + 1) * chance.uniform(0.8, 1.2)
            while time.monotonic() < end or (not number and not _size(spool)):
                largest = max(largest, _size(spool))
                time.sleep(0.05)
            fleet.streamer.kill()
            torn += _tear(spool, chance)
        kept = Spool(spool, SPOOL_BYTES.parse(spool_bytes))
        spooled = _batches(kept)
        kept.close()
        fleet.broker.start()
        fleet.broker.wait_for("listening on")
        fleet.streamer.start()
        wait_until(lambda: _next(fleet.port) > len(spooled) + 5, "the spool's batches and fresh ones", 120)
        largest = max(largest, _size(spool))
        exit_, _ = fleet.streamer.stop()
        arrived = asyncio.run(_arrived(fleet.port))
        rest = Spool(spool, SPOOL_BYTES.parse(spool_bytes))
        left = rest.waiting
        rest.close()
        fleet.broker.stop()
    finally:
        fleet.kill_all()
    given_up = sum(int(count) for count in re.findall(r"gave up the oldest (\d+) batches", fleet.streamer.log))
    return Outcome(
        spooled,
        arrived,
        kills + 1,
        given_up,
        largest,
        SPOOL_BYTES.parse(spool_bytes),
        left,
        exit_,
        torn,
        time.monotonic() - began,
    )


def _size(spool: Path) -> int:
    """Bytes of the spool's segments."""
    total = 0
    for path in spool.glob("*.log"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # it was dropped
            continue
    return total


def _tear(spool: Path, chance: random.Random) -> int:
    """Half a record at the end of the newest segment, every other time."""
    if chance.random() < 0.5:
        return 0
    with max(spool.glob("*.log")).open("ab") as file:
        file.write((5000).to_bytes(4, "big") + b'{"type":"message","crc":"' + bytes(chance.randrange(100)))
    return 1


def _batches(spool: Spool) -> list[Batch]:
    found: list[Batch] = []
    batches, after = spool.read(0)
    while batches:
        found += [(spool.producer, batch.number, batch.payload) for batch in batches]
        batches, after = spool.read(after)
    return found


def _next(port: int) -> int:
    async def ask() -> int:
        client = await BrokerClient.connect("127.0.0.1", port)
        await client.close()
        return client.welcome.next

    return asyncio.run(ask())


async def _arrived(port: int) -> list[Batch]:
    client = await BrokerClient.connect("127.0.0.1", port)
    await client.subscribe("check", -2)
    found: list[Batch] = []
    while len(found) < client.welcome.next:
        for one in await client.receive():
            assert isinstance(one, Message)
            producer, _, number = one.message_id.partition(":")
            found.append((producer, int(number), bytes(one.payload)))
    await client.close()
    return found


def main() -> int:
    """Run it, print the figures; exit status 0 when all is good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--away", type=float, default=300, help="seconds without a broker [%(default)s]")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--spool-bytes", default="1GiB")
    parser.add_argument("--hosts", type=int, default=32)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spool-faults-") as folder:
        outcome = run(
            Path(folder), away=options.away, kills=options.kills, spool_bytes=options.spool_bytes, hosts=options.hosts,
            chance=random.Random(options.seed),
        )  # fmt: skip
    sys.stdout.write(f"seed {options.seed}: {outcome}\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
