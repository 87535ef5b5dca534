"""What the broker does by itself: catching up, starting, idling, and publishing beside a crowd.

python -m bench.broker_alone --gib 1 --behind-gib 10          (needs 11 GiB of disk for a while)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path

from bench.broker import LOADS, touch_memory
from bench.broker_load import Load, run
from bench.broker_peers import Ours, Subscriber
from broker.client.client import BrokerClient

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
    touch_memory(4 << 30)
    peer.generation += 1
    return run(peer, LOADS["B100"], 0, seconds).messages_s


def crowd_ratio(peer: Ours, seconds: float, rounds: int) -> float:
    """Publishing beside 1,000 idle connections and 100 unfinished frames, as a share of publishing without, before and after:
    the disk and the memory are not the same all the time."""
    shares = []
    before = rate(peer, seconds)
    for _ in range(rounds):
        crowd = [socket.create_connection(("127.0.0.1", peer.port)) for _ in range(1100)]
        for sock in crowd[:100]:
            sock.sendall((8 << 20).to_bytes(4, "big")[:4] + b"{")
        beside = rate(peer, seconds)
        for sock in crowd:
            sock.close()
        after = rate(peer, seconds)
        shares.append(2 * beside / (before + after))
        before = after
    return statistics.median(shares)


def cpu_seconds(pid: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(peer: Ours, options: argparse.Namespace) -> None:
    """CPU and memory of a broker that nobody speaks to."""
    before = cpu_seconds(peer.pid)
    time.sleep(5)
    share = (cpu_seconds(peer.pid) - before) / 5 * 100
    say(f"idle: {share:.2f} % of a core, memory {peer.memory('VmRSS'):.0f} MiB")


def catching_up(peer: Ours, options: argparse.Namespace) -> None:
    """One subscriber from the start of the log, then a start on it after kill -9."""
    count = fill(peer, int(options.gib * GIB))
    speeds = [catch_up(peer, count) for _ in range(3)]
    say(
        f"catching up with {options.gib:g} GiB ({count} messages): {statistics.median(speeds):.2f} GB/s"
        f" ({', '.join(f'{speed:.2f}' for speed in speeds)}), memory {peer.memory():.0f} MiB at most"
    )
    start_again(peer, options.gib)


def start_again(peer: Ours, gib: float) -> None:
    """kill -9, and how long until it answers."""
    started = time.perf_counter()
    peer.restart("0")
    seconds = time.perf_counter() - started
    found = re.search(r"read (\d+) records .* in ([\d.]+) s", (peer.folder / "server.log").read_text())
    say(f"start after kill -9 on {gib:g} GiB: answers after {seconds:.2f} s ({found[0] if found else '?'})")


def latency(peer: Ours, options: argparse.Namespace) -> None:
    """One message at a time, beside what the disk itself takes to keep as many bytes."""
    one_by_one = Load("one by one", LOADS["B100"].payloads, connections=1, window=1)
    outcome = run(peer, one_by_one, 0, options.seconds)
    raw = []
    with open(peer.folder / "raw", "wb") as file:
        for _ in range(500):
            started = time.perf_counter()
            file.write(one_by_one.payloads[0])
            file.flush()
            os.fdatasync(file.fileno())
            raw.append((time.perf_counter() - started) * 1e3)
    raw.sort()
    say(
        f"one message at a time: answered after {outcome.p50_ms:.2f} ms (p50), {outcome.p99_ms:.2f} (p99);"
        f" write and fdatasync alone {raw[250]:.2f}, {raw[495]:.2f}"
    )


def python_client(peer: Ours, options: argparse.Namespace) -> None:
    """This project's own client, which checks each message's checksum, from the start of a log."""
    count = fill(peer, int(options.gib * GIB))

    async def read() -> float:
        client = await BrokerClient.connect("127.0.0.1", peer.port)
        started = time.perf_counter()
        await client.subscribe("reader", 0)
        got = 0
        while got < count:
            got += len(await client.receive())
        seconds = time.perf_counter() - started
        await client.close()
        return seconds

    seconds = statistics.median(asyncio.run(read()) for _ in range(3))
    say(
        f"our Python client reads {count / seconds:.0f} messages/s, {count * LOADS['B100'].size / seconds / 1e9:.2f} GB/s"
    )


def crowd(peer: Ours, options: argparse.Namespace) -> None:
    """Publishing beside many that do nothing, or next to nothing."""
    share = crowd_ratio(peer, options.seconds, 3)
    say(
        f"publishing beside 1,000 idle and 100 slow connections: {share:.2f} of the rate alone,"
        f" memory {peer.memory():.0f} MiB at most"
    )


def behind(peer: Ours, options: argparse.Namespace) -> None:
    """A subscriber that reads nothing for the whole run, beside one that reads all; then it goes on."""
    gib = options.behind_gib
    with peer.connect() as sock, peer.connect() as lively:
        stopped, live = peer.subscribe(sock, 1), peer.subscribe(lively, 2)
        reading = threading.Thread(target=_read_on, args=(live,), daemon=True)
        reading.start()
        count, step = 0, max(1.0, gib / 5)
        for number in range(round(gib / step)):
            count += fill(peer, int(step * GIB))
            say(
                f"{(number + 1) * step:5.1f} GiB published, {stopped.bytes} bytes read by the stopped subscriber:"
                f" memory {peer.memory('VmRSS'):.0f} MiB, {peer.memory():.0f} at most"
            )
        target = peer.delivered_bytes(count, LOADS["B100"].size)
        while live.bytes < target:
            time.sleep(0.01)
        started = time.perf_counter()
        sock.setblocking(True)
        while stopped.bytes < target:
            stopped.on_readable()
        seconds = time.perf_counter() - started
        say(
            f"then it read all {stopped.bytes / 1e9:.1f} GB at {stopped.bytes / seconds / 1e9:.2f} GB/s,"
            f" memory {peer.memory():.0f} MiB at most"
        )
    start_again(peer, gib)


def _read_on(subscriber: Subscriber) -> None:
    subscriber.sock.setblocking(True)
    with suppress(OSError):
        while True:
            subscriber.on_readable()


def say(line: str) -> None:
    """Print at once: some parts take minutes."""
    print(line, flush=True)


PARTS = {
    "idle": idle,
    "latency": latency,
    "catching-up": catching_up,
    "client": python_client,
    "crowd": crowd,
    "behind": behind,
}


def main() -> None:
    """Measure and print; each part on a log of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--gib", type=float, default=1.0, help="size of the log to catch up with and to start on")
    parser.add_argument("--behind-gib", type=float, default=10.0, help="how far a stopped subscriber falls behind")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--folder")
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    for part in options.parts:
        touch_memory()
        # All of it is kept: who is behind has all of it to read.
        peer = Ours("always", "--retention-bytes", "0")
        peer.start("0", options.folder)
        try:
            PARTS[part](peer, options)
        finally:
            peer.stop()


if __name__ == "__main__":
    main()
