"""What the broker does by itself: catching up, starting, idling, and publishing beside a crowd.

python -m bench.broker_alone --gib 1 --behind-gib 10
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import time
from pathlib import Path

from bench.broker import LOADS, touch_memory
from bench.broker_load import run
from bench.broker_peers import Ours, Subscriber

GIB = 1 << 30


def fill(peer: Ours, size: int) -> int:
    """Publish until the log holds that many bytes; how many messages."""
    load = LOADS["B100"]
    target = size // (load.size + 147)
    count = 0
    peer.generation += 1
    while count < target:
        count += _publish(peer, target - count)
    return count


def _publish(peer: Ours, count: int) -> int:
    load = LOADS["B100"]
    with peer.connect() as sock:
        answered = sent = 0
        rest = b""
        while answered < count:
            while sent < count and sent - answered < 128:
                batch = min(32, count - sent)
                sock.sendall(b"".join(peer.request(0, sent + one, load.payloads[one % 16]) for one in range(batch)))
                sent += batch
            data = rest + sock.recv(1 << 18)
            answered += data.count(peer.answer)
            rest = data[data.rfind(peer.answer) + 1 :] if peer.answer in data else data
            rest = rest[-(len(peer.answer) - 1) :]
    return count


def catch_up(peer: Ours, count: int) -> float:
    """GB/s to one subscriber from the start of the log."""
    target = peer.delivered_bytes(count, LOADS["B100"].size)
    with peer.connect() as sock:
        started = time.perf_counter()
        reader = peer.subscribe(sock, 0)
        sock.setblocking(True)
        while reader.bytes < target:
            reader.on_readable()
        return target / (time.perf_counter() - started) / 1e9


def rate(peer: Ours, seconds: float) -> float:
    """Messages per second of a fresh pair of publishers."""
    peer.generation += 1
    return run(peer, LOADS["B100"], 0, seconds).messages_s


def crowd_ratio(peer: Ours, seconds: float, rounds: int) -> float:
    """Publishing beside 1,000 idle connections and 100 unfinished frames, as a share of publishing without."""
    shares = []
    for _ in range(rounds):
        alone = rate(peer, seconds)
        crowd = [socket.create_connection(("127.0.0.1", peer.port)) for _ in range(1100)]
        for sock in crowd[:100]:
            sock.sendall((8 << 20).to_bytes(4, "big")[:4] + b"{")
        shares.append(rate(peer, seconds) / alone)
        for sock in crowd:
            sock.close()
    return statistics.median(shares)


def cpu_seconds(pid: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the log to catch up with and to start on")
    parser.add_argument("--behind-gib", type=float, default=10.0, help="how far a stopped subscriber falls behind")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--folder")
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    touch_memory()
    peer = Ours("always")
    peer.start("0", options.folder)
    try:
        pid = peer.pid
        before = cpu_seconds(pid)
        time.sleep(5)
        print(f"idle: {(cpu_seconds(pid) - before) / 5 * 100:.2f} % of a core", flush=True)
        count = fill(peer, int(options.gib * GIB))
        speeds = [catch_up(peer, count) for _ in range(3)]
        print(
            f"catching up with {count} messages: {statistics.median(speeds):.2f} GB/s, memory {peer.memory():.0f} MiB",
            flush=True,
        )
        peer.restart("0")
        found = re.search(r"read (\d+) records .* in ([\d.]+) s", (peer.folder / "server.log").read_text())
        print(f"start after kill -9 on {options.gib:g} GiB: {found[0] if found else '?'}", flush=True)
        print(
            f"beside 1,000 idle and 100 slow connections: {crowd_ratio(peer, options.seconds, 3):.2f} of the rate alone",
            flush=True,
        )
        with peer.connect() as sock:
            stopped: Subscriber = peer.subscribe(sock, 1)
            fill(peer, int(options.behind_gib * GIB))
            text = f"with a subscriber {options.behind_gib:g} GiB behind: memory {peer.memory():.0f} MiB at most"
            print(f"{text}, {stopped.bytes} bytes taken by it", flush=True)
    finally:
        peer.stop()


if __name__ == "__main__":
    main()
