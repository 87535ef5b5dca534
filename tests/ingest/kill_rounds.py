"""kill -9 of broker, collector and streamer at random moments of a run: at the end the store holds exactly the capture.

    python -m tests.ingest.kill_rounds CAPTURE [--rounds 10] [--seed N]

Each round kills each of the three once, in random order. The streamer keeps the capture's times and takes a rate at which
the run outlasts the kills; what was killed is started again at once, as a supervisor would.
"""

from __future__ import annotations

import argparse
import csv
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from broker.client.client import fetch_stats
from broker.errors import BrokerUnavailable
from stores.sqlite import SqliteStore
from tests.ingest.captures import Reading, readings_in, stored_readings
from tests.ingest.processes import Fleet, Service, wait_until

logger = logging.getLogger(__name__)

# From one kill to the next: a service is killed while it starts, too.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 2.5


@dataclass
class Outcome:
    """What is left of a run after all kills."""

    expected: set[Reading]
    stored: list[Reading]
    kills: Counter[str] = field(default_factory=Counter)
    exits: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    seconds: float = 0.0

    @property
    def lost(self) -> set[Reading]:
        """Readings of the capture that are not stored."""
        return self.expected - set(self.stored)

    @property
    def foreign(self) -> set[Reading]:
        """Stored readings that are not the capture's."""
        return set(self.stored) - self.expected

    @property
    def twice(self) -> int:
        """How many readings are stored more than once."""
        return len(self.stored) - len(set(self.stored))

    @property
    def good(self) -> bool:
        """Nothing lost, nothing twice, nothing made up, and every service ended with status 0."""
        return not self.lost and not self.foreign and not self.twice and not any(self.exits.values())

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        exits = ", ".join(f"{name} {status}" for name, status in self.exits.items())
        return (
            f"kill -9: {kills}; {self.seconds:.0f} s; {self.messages} messages in the log\n"
            f"capture: {len(self.expected)} readings; stored: {len(self.stored)}; "
            f"lost: {len(self.lost)}; twice: {self.twice}; not in the capture: {len(self.foreign)}\n"
            f"exit status: {exits}\n{'good' if self.good else 'BAD'}"
        )


def run(capture: Path, state_dir: Path, rounds: int, chance: random.Random) -> Outcome:
    """Stream a capture through real processes and kill each of them ``rounds`` times."""
    with capture.open(newline="") as file:
        rows = sum(1 for _ in csv.reader(file)) - 1
    # The kills take about this long, and what is unanswered at each is read again.
    rate = max(1.0, rows / (rounds * 3 * (SHORTEST_PAUSE + LONGEST_PAUSE) / 2 + 2))
    fleet = Fleet(state_dir, CSV_PATH=capture, RATE=f"{rate:.3f}", BATCH_SIZE=20)
    fleet.migrate()
    outcome = Outcome(readings_in(capture), [])
    began = time.monotonic()
    try:
        for service in fleet.services:
            service.start()
        fleet.streamer.wait_for("streaming ")
        for number in range(rounds):
            for service in chance.sample(fleet.services, 3):
                time.sleep(chance.uniform(SHORTEST_PAUSE, LONGEST_PAUSE))
                _kill(service, outcome)
            logger.info("round %d of %d done", number + 1, rounds)
        outcome.exits["streamer"] = fleet.streamer.wait(600)
        wait_until(lambda: all_committed(fleet), "the collector to commit all", 120)
        outcome.messages = fetch_stats("127.0.0.1", fleet.port)["total_messages"]
        for service in (fleet.collector, fleet.broker):
            outcome.exits[service.name], _ = service.stop()
    finally:
        fleet.kill_all()
    outcome.seconds = time.monotonic() - began
    store = SqliteStore(state_dir / "readings.sqlite3")
    try:
        outcome.stored = stored_readings(store)
    finally:
        store.close()
    return outcome


def _kill(service: Service, outcome: Outcome) -> None:
    if service.returncode == 0:
        # The streamer came to the end: once more from the start, which changes nothing in the store.
        logger.info("%s had ended: streaming the capture again", service.name)
        service.start()
        time.sleep(SHORTEST_PAUSE)
    if service.returncode is not None:
        raise RuntimeError(f"{service.name} ended by itself with {service.returncode}: {service.log[-2000:]}")
    service.kill()
    outcome.kills[service.name] += 1
    service.start()


def all_committed(fleet: Fleet) -> bool:
    """Whether the collector has committed all that is in the log."""
    try:
        stats = fetch_stats("127.0.0.1", fleet.port)
    except BrokerUnavailable:
        return False
    return any(
        subscriber["id"] == "collector-1" and subscriber["committed_offset"] == stats["latest_offset"]
        for subscriber in stats["subscribers"]
    )


def main() -> int:
    """Run the rounds, print the figures; exit status 0 when all is good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("capture", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="kill-rounds-") as folder:
        outcome = run(options.capture, Path(folder), options.rounds, random.Random(seed))
    sys.stdout.write(f"seed {seed}\n{outcome}\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
