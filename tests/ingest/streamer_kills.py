"""kill -9 of a streamer that runs as fast as it can: at the end every row of the capture is in the log and, once, in the store.

    python -m tests.ingest.streamer_kills CAPTURE [--rows 2000000] [--kills 10] [--seed N]

It is killed when a random number of messages have come since its start: while it reads, while it sends, before and after it has saved
how far everything was answered. What was unanswered, or answered and not yet saved, is sent again: the log may hold it twice.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.make_capture import make_capture
from broker.client.client import fetch_stats
from readings.batch import decode
from readings.times import parse_time
from stores.sqlite import SqliteStore
from tests.ingest.kill_rounds import all_committed
from tests.ingest.log_reader import read_log, readings_of
from tests.ingest.processes import Fleet, wait_until

SHORTEST_RUN, LONGEST_RUN = 1, 900  # in messages


@dataclass
class Outcome:
    """What is left after all kills. Readings are told apart by their GPU, metric, time and value."""

    rows: int
    kills: int
    in_log: int  # readings, each as often as it is there
    lost: int
    foreign: int
    stored: int
    exit: int
    seconds: float

    @property
    def good(self) -> bool:
        """Every row is there, and once in the store; nothing else is; the last streamer ended with status 0."""
        return self.lost == self.foreign == self.exit == 0 and self.stored == self.rows

    def __str__(self) -> str:
        return (
            f"{self.kills} kills of the streamer in {self.seconds:.0f} s: {self.rows} rows; in the log {self.in_log} readings,"
            f" {self.in_log - self.rows} of them sent again; lost {self.lost}, not in the capture {self.foreign};"
            f" stored {self.stored}: {'good' if self.good else 'BAD'}"
        )


def run(capture: Path, state_dir: Path, kills: int, chance: random.Random) -> Outcome:
    """Stream a capture and kill the streamer that often; then store what is in the log."""
    expected = _hashes_in(capture)
    fleet = Fleet(state_dir, CSV_PATH=capture)
    fleet.migrate()
    began = time.monotonic()
    done = 0
    try:
        fleet.broker.start()
        fleet.broker.wait_for("listening")
        for _ in range(kills):
            target = _messages(fleet) + chance.randrange(SHORTEST_RUN, LONGEST_RUN)
            fleet.streamer.start()
            while _messages(fleet) < target and fleet.streamer.returncode is None:
                time.sleep(0.002)
            done += fleet.streamer.returncode is None
            fleet.streamer.kill()
        fleet.streamer.start()
        status = fleet.streamer.wait(600)
        found, count = asyncio.run(_hashes_in_log(fleet.port))
        fleet.collector.start()
        wait_until(lambda: all_committed(fleet), "the collector to commit all", 600)
        fleet.collector.stop()
    finally:
        fleet.kill_all()
    store = SqliteStore(state_dir / "readings.sqlite3")
    try:
        stored = store.stats().readings or 0
    finally:
        store.close()
    lost, foreign = len(expected - found), len(found - expected)
    return Outcome(len(expected), done, count, lost, foreign, stored, status, time.monotonic() - began)


def _messages(fleet: Fleet) -> int:
    return int(fetch_stats("127.0.0.1", fleet.port)["total_messages"])


# A hash of 64 bits for a reading: two millions of them are to fit.


def _hashes_in(capture: Path) -> set[int]:
    with capture.open(newline="") as file:
        return {
            hash((row["uuid"], row["metric_name"], parse_time(row["timestamp"]), float(row["value"])))
            for row in csv.DictReader(file)
        }


async def _hashes_in_log(port: int) -> tuple[set[int], int]:
    """Those of all readings in the log, and how many readings it holds."""
    found: set[int] = set()
    count = 0
    for message in await read_log(port):
        readings = readings_of([decode(message.payload).block])
        count += len(readings)
        found.update(map(hash, readings))
    return found, count


def main() -> int:
    """Run it, print the figures; exit status 0 when all is good."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--rows", type=int, default=0, help="stream a capture of that many rows, made from this one")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="streamer-kills-") as folder:
        capture = options.capture
        if options.rows:
            capture = Path(folder, "big.csv")
            make_capture(options.capture, capture, options.rows)
        outcome = run(capture, Path(folder, "state"), options.kills, random.Random(seed))
    sys.stdout.write(f"seed {seed}\n{outcome}\n")
    return 0 if outcome.good and outcome.kills == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
