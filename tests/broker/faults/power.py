"""Row 2: the power goes. strace tells which writes an fsync has made safe; of the rest any part may be on the disk.

    python -m tests.broker.faults.power --rounds 15 --fsync always

The broker is killed, each segment cut to what was surely synced and a random, partly zeroed rest, and started again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.broker.faults.tools import need
from tests.broker.faults.workload import Verdict, Workload
from tests.broker.process import broker_process

_CALL = re.compile(r"^(\d+) +(?:\d+\.\d+ +)?(.*)$")
_WRITE = re.compile(r"^pwritev2?\(\d+<([^>]*\.log)>, .*\], \d+, (\d+)(?:, 0)?\) += (\d+)")
_SYNC = re.compile(r"^f(?:data)?sync\(\d+<([^>]*\.log)>\) += 0")
_CUT = re.compile(r"^ftruncate\(\d+<([^>]*\.log)>, (\d+)\) += 0")


@dataclass
class Outcome:
    """Of one loss of power. ``unsynced`` are the bytes that could be lost; ``oldest_loss_s``: how long before the loss of power
    the oldest message that it cost was answered."""

    verdict: Verdict
    unsynced: int
    oldest_loss_s: float = 0.0


def synced_sizes(trace: str) -> tuple[dict[str, int], dict[str, int]]:
    """By segment file: its size as written, and how much of it was synced, from strace's output."""
    begun: dict[str, str] = {}
    written: dict[str, int] = defaultdict(int)
    synced: dict[str, int] = defaultdict(int)
    for line in trace.splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        pid, call = match[1], match[2]
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>").rstrip()
            continue
        if call.startswith("<..."):
            call = begun.pop(pid, "") + call.partition("resumed>")[2]
        if found := _WRITE.match(call):
            written[found[1]] = max(written[found[1]], int(found[2]) + int(found[3]))
        elif found := _SYNC.match(call):
            # One thread writes and syncs: what was written before is what this sync covers.
            synced[found[1]] = written[found[1]]
        elif found := _CUT.match(call):
            written[found[1]] = int(found[2])
    return dict(written), dict(synced)


async def lose_power(directory: Path, fsync: str, rng: random.Random, seconds: float) -> Outcome:
    """One run, one loss, one restart."""
    workload = Workload()
    trace = directory / "trace"
    calls = "trace=pwritev,pwritev2,fdatasync,fsync,ftruncate"
    strace = [need("strace"), "-f", "-y", "-qq", "-s", "0", "-e", calls, "-e", "signal=none", "-o", str(trace)]
    flags = ("--segment-bytes", "4MiB", "--fsync", fsync)
    with broker_process(directory / "state", *flags, prefix=strace) as broker:
        port, _ = await asyncio.to_thread(broker.wait_listening)
        stop = asyncio.Event()
        publishing = asyncio.create_task(workload.run(port, stop))
        await asyncio.sleep(seconds)
        broker.kill_traced()
        killed_at = time.monotonic()
        await publishing
        await asyncio.to_thread(broker.wait_end)
    written, synced = synced_sizes(trace.read_text())
    unsynced = 0
    for name, size in written.items():
        path = Path(name)
        safe = synced.get(name, 0)
        unsynced += tear(path, safe, size, rng)
    with broker_process(directory / "state", *flags) as broker:
        port, _ = await asyncio.to_thread(broker.wait_listening)
        verdict = await workload.check(port)
        ages = [killed_at - workload.answered_at(*lost) for lost in verdict.lost_messages]
        return Outcome(verdict, unsynced, max(ages, default=0.0))


def tear(path: Path, safe: int, size: int, rng: random.Random) -> int:
    """Leave of a file what was synced and any part of the rest, with some of its blocks never written.

    Returns the bytes that were not synced.
    """
    size = min(size, path.stat().st_size)
    if size <= safe:
        return 0
    left = rng.randint(safe, size)
    with path.open("r+b") as file:
        file.truncate(left)
        for block in range(safe // 4096 + 1, left // 4096 + 1):
            if rng.random() < 0.5:
                file.seek(block * 4096)
                file.write(bytes(min(4096, max(0, left - block * 4096))))
    return size - safe


def main() -> None:
    """Run and print; exit status 1 where more was lost than the mode allows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--fsync", default="always")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    answered = lost = wrong = unsynced = 0
    oldest = 0.0
    started = time.monotonic()
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            outcome = asyncio.run(lose_power(Path(directory), options.fsync, rng, options.seconds))
        answered += outcome.verdict.answered
        lost += outcome.verdict.lost
        unsynced += outcome.unsynced
        oldest = max(oldest, outcome.oldest_loss_s)
        wrong += outcome.verdict.wrong_payload + outcome.verdict.repeated
    sys.stdout.write(
        f"seed {options.seed}, fsync {options.fsync}: {options.rounds} losses of power, {answered} answered, {lost} lost"
        f"{f' (answered {oldest:.2f} s before at most)' if lost else ''}, {wrong} wrong, {unsynced} bytes not synced, {time.monotonic() - started:.0f} s\n"
    )
    # With an fsync a second: what was answered since the last one, which may have been under way.
    bad = {"always": lost > 0, "interval": oldest > 1.5}.get(options.fsync, False)
    sys.exit(bad or wrong > 0)


if __name__ == "__main__":
    main()
