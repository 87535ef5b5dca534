"""Row 1 and row 22: kill -9, or SIGTERM, in the middle of pipelined publishing, and what is there after the restart.

python -m tests.broker.faults.kills --rounds 100
python -m tests.broker.faults.kills --rounds 50 --graceful
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.broker.faults.workload import Verdict, Workload
from tests.broker.process import broker_process

# A few hundred rounds are more than the log keeps by default.
EVERYTHING = ("--retention-bytes", "0")


@dataclass
class Outcome:
    """Of all rounds together; times in seconds."""

    rounds: int
    verdict: Verdict
    duplicates: int
    torn_tails: int
    slowest_ready: float
    slowest_stop: float
    bad_stops: int
    scans: int  # starts after a stop in order that read records all the same

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.verdict.answered} answered, {self.verdict.records} records: "
            f"lost {self.verdict.lost}, repeated {self.verdict.repeated}, wrong offset {self.verdict.wrong_offset}, "
            f"wrong payload {self.verdict.wrong_payload}, out of order {self.verdict.out_of_order}, "
            f"holes {self.verdict.holes}; {self.duplicates} answered as duplicates, {self.torn_tails} torn tails, "
            f"recovery {self.slowest_ready:.2f} s at most, stop {self.slowest_stop:.2f} s at most, "
            f"{self.bad_stops} stops not clean, {self.scans} scans after a clean stop"
        )


async def run(directory: Path, rounds: int, seed: int, *, graceful: bool = False) -> Outcome:
    """Kill and restart that many times, then check everything."""
    rng = random.Random(seed)
    workload = Workload()
    slowest_ready = slowest_stop = 0.0
    bad_stops = scans = 0
    for number in range(rounds):
        with broker_process(directory, "--segment-bytes", "8MiB", *EVERYTHING) as broker:
            port, _ = await asyncio.to_thread(broker.wait_listening)
            ready, records = _recovery(broker.lines)
            slowest_ready = max(slowest_ready, ready)
            scans += graceful and number > 0 and records > 0
            stop = asyncio.Event()
            publishing = asyncio.create_task(workload.run(port, stop))
            await asyncio.sleep(rng.uniform(0.05, 0.6))
            started = time.monotonic()
            broker.process.send_signal(signal.SIGTERM if graceful else signal.SIGKILL)
            status = await asyncio.to_thread(broker.wait_end)
            slowest_stop = max(slowest_stop, time.monotonic() - started)
            bad_stops += graceful and status != 0
            await publishing
    with broker_process(directory, *EVERYTHING) as broker:
        port, _ = await asyncio.to_thread(broker.wait_listening)
        slowest_ready = max(slowest_ready, _recovery(broker.lines)[0])
        before = await workload.check(port)
        await workload.finish(port)
        verdict = await workload.check(port)
        verdict.lost += before.lost
    torn = len(list((directory / "broker").glob("*.torn-*")))
    return Outcome(rounds, verdict, workload.duplicates, torn, slowest_ready, slowest_stop, bad_stops, scans)


def _recovery(lines: list[str]) -> tuple[float, int]:
    for line in lines:
        if match := re.search(r"read (\d+) records .* in ([\d.]+) s", line):
            return float(match[2]), int(match[1])
    raise AssertionError(lines)


def main() -> None:
    """Run and print; exit status 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--graceful", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        outcome = asyncio.run(run(Path(directory), options.rounds, options.seed, graceful=options.graceful))
    sys.stdout.write(f"seed {options.seed}: {outcome}\n")
    sys.exit(not outcome.verdict.clean or outcome.bad_stops > 0)


if __name__ == "__main__":
    main()
