"""How fast the broker is beside those that people would use instead: NATS JetStream and Redis Streams.

    python -m bench.broker --rounds 3 --seconds 3

Same payloads, same publishers with the same window, same subscribers, the server on one core and all clients on another,
rounds interleaved: in each, every broker runs once, from an empty folder. What differs is what a broker promises before it
answers; compare the ones that promise the same ("always": on the disk). A figure is the median of the rounds. Only the
ratios carry over to another machine.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

from bench.broker_load import Load, Outcome, run
from bench.broker_peers import Nats, Ours, Peer, Redis

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Ours("always"),
        Ours("interval"),
        Nats("always"),
        Nats("default"),
        Redis("always"),
        Redis("everysec"),
    )
}
BASELINE = "ours always"


def reading(random_: random.Random, number: int) -> dict[str, object]:
    """One reading in the plain form, as wide as those of a real capture."""
    digits = f"{random_.getrandbits(128):032x}"
    uuid = f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return {
        "timestamp": f"2025-07-18T20:42:34.{random_.randrange(10**6):06d}Z",
        "metric_name": "DCGM_FI_DEV_GPU_UTIL",
        "gpu_id": str(number % 8),
        "device": f"nvidia{number % 8}",
        "uuid": uuid,
        "model_name": "NVIDIA H100 80GB HBM3",
        "hostname": f"mtv5-dgx1-hgpu-{number // 8 % 1000:03d}",
        "value": f"{random_.randrange(100_000) / 1000:07.3f}"[1:],
    }


def payloads(readings: int, size: int) -> tuple[bytes, ...]:
    """Messages of that many readings, filled up to one size."""
    random_ = random.Random(5)
    made = []
    for number in range(16):
        rows = [reading(random_, number * readings + row) for row in range(readings)]
        batch = {"batch_id": f"{number:08d}", "source": "bench", "metrics": rows, "fill": ""}
        text = json.dumps(batch, separators=(",", ":"))
        batch["fill"] = "x" * (size - len(text))
        made.append(json.dumps(batch, separators=(",", ":")).encode())
    return tuple(made)


LOADS = {
    "B100": Load("B100", payloads(100, 25_600), connections=2, window=64),
    "B1": Load("B1", payloads(1, 400), connections=4, window=512),
}


_MADV_POPULATE_WRITE = 23  # of Linux 5.14; not among mmap's names


def touch_memory(most: int = 8 << 30) -> None:
    """Take and give back memory: a virtual machine that has to fetch fresh pages from its host while a log is written is
    ten times slower at it, and whoever runs after one that held a gigabyte would pay for it."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with mmap.mmap(-1, min(most, available // 2), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        with suppress(OSError):  # an older kernel: figures jump more there
            memory.madvise(_MADV_POPULATE_WRITE)


def measure(peer: Peer, load: Load, subscribers: int, seconds: float, server_cpu: str, folder: str | None) -> Outcome:
    """One run from an empty folder."""
    touch_memory()
    peer.start(server_cpu, folder)
    try:
        return run(peer, load, subscribers, seconds)
    finally:
        peer.stop()


def median(outcomes: Sequence[Outcome]) -> Outcome:
    """Each figure's own median."""
    return Outcome(
        **{field.name: statistics.median(getattr(one, field.name) for one in outcomes) for field in fields(Outcome)}
    )


def report(load: Load, subscribers: int, rounds: dict[str, list[Outcome]]) -> list[str]:
    """The table of one load and number of subscribers."""
    medians = {name: median(outcomes) for name, outcomes in rounds.items()}
    base = medians.get(BASELINE)
    lines = [
        "",
        f"{load.name}: {load.size} B, {load.connections} publishers x window {load.window}, {subscribers} subscribers",
        f"{'':16}{'msg/s':>9}{'MB/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'mem MiB':>9}{'to subs MB/s':>14}{'cut':>5}"
        f"{'ours / it':>11}{'delivered':>11}",
    ]
    for name, one in medians.items():
        ratio = f"{base.messages_s / one.messages_s:10.2f}x" if base else ""
        delivered = f"{base.delivered_mb_s / one.delivered_mb_s:10.2f}x" if base and one.delivered_mb_s else ""
        sent = f"{one.delivered_mb_s:14.0f}" if subscribers else f"{'':14}"
        lines.append(
            f"{name:16}{one.messages_s:9.0f}{one.mb_s:8.1f}{one.p50_ms:9.2f}{one.p99_ms:9.2f}{one.memory_mib:9.1f}"
            f"{sent}{one.cut:5.0f}{ratio}{delivered}"
        )
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of publishing in a run")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--beside", type=Path, help="another checkout of this project: its broker runs too")
    parser.add_argument("--loads", nargs="*", default=list(LOADS), choices=list(LOADS))
    parser.add_argument("--subscribers", nargs="*", type=int, default=[0, 1, 4, 16])
    parser.add_argument("--server-cpu", default="0", help="core of the broker (taskset's list)")
    parser.add_argument("--client-cpu", type=int, default=1, help="core of all clients")
    parser.add_argument("--folder", help="where the brokers keep their data; default: the system's temporary folder")
    parser.add_argument("--json", action="store_true", help="print every round's figures as JSON lines too")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.client_cpu})
    peers = []
    for name in options.peers:
        if why := PEERS[name].missing():
            print(f"{name}: left out, {why}", file=sys.stderr)
        else:
            peers.append(PEERS[name])
    if options.beside:
        peers.append(Ours("always", root=options.beside.resolve()))
    for load in (LOADS[name] for name in options.loads):
        for subscribers in options.subscribers:
            rounds: dict[str, list[Outcome]] = {peer.name: [] for peer in peers}
            for _ in range(options.rounds):
                for peer in peers:
                    try:
                        outcome = measure(peer, load, subscribers, options.seconds, options.server_cpu, options.folder)
                    except (RuntimeError, OSError) as error:
                        print(f"{peer.name}: a run failed: {error}", file=sys.stderr)
                        continue
                    rounds[peer.name].append(outcome)
                    if options.json:
                        print(
                            json.dumps(
                                {"peer": peer.name, "load": load.name, "subscribers": subscribers} | asdict(outcome)
                            )
                        )
            print(
                "\n".join(report(load, subscribers, {name: runs for name, runs in rounds.items() if runs})), flush=True
            )


if __name__ == "__main__":
    main()
