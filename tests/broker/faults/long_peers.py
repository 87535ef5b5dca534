"""Rows 8 to 11 and 14 at full size, with the time-outs that users get: what test_peers.py does small and scaled.

python -m tests.broker.faults.long_peers                # all, some ten minutes
python -m tests.broker.faults.long_peers row_08 row_11  # these

Prints a line of figures for each row; exit status 1 where one is past its bar.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.broker import LOADS, touch_memory
from bench.broker_load import Outcome, run
from bench.broker_peers import Ours, Subscriber
from broker.client.client import BrokerClient, Message
from broker.errors import BrokerError
from broker.log.record import key_of
from broker.protocol.messages import request_frame
from tests.broker.faults.test_peers import SUBSCRIBER, memory, open_files
from tests.broker.faults.tools import need, need_namespaces
from tests.broker.harness import offsets, take
from tests.broker.process import ROOT, BrokerProcess, broker_process

MIB = 1 << 20
PAYLOAD = LOADS["B100"]

Row = Callable[[Path], "tuple[str, bool]"]


class Running(Ours):
    """The bench's client for a broker that is started here, with its defaults and not pinned."""

    def __init__(self, broker: BrokerProcess) -> None:
        super().__init__("always")
        self.port, self.http_port = broker.wait_listening()
        self._pid = broker.process.pid

    @property
    def pid(self) -> int:
        """Of the broker."""
        return self._pid

    def memory(self, field: str = "VmHWM") -> float:
        """MiB, now."""
        return memory(self._pid)

    def subscribe(self, sock: socket.socket, number: int) -> Subscriber:
        """From now on: what was published before is not this run's."""
        sock.sendall(request_frame("subscribe", subscriber_id=f"live{self.generation}-{number}", offset=-1))
        return Subscriber(sock)

    def load(self, subscribers: int, seconds: float) -> Outcome:
        """B100 from two fresh publishers, with that many live subscribers."""
        self.generation += 1
        return run(self, PAYLOAD, subscribers, seconds)


def row_08(folder: Path, total: int = 2 << 30) -> tuple[str, bool]:
    """16 subscribers that never read, and one that does: its rate beside its rate alone, the broker's memory, waking up."""
    with broker_process(folder, "--retention-bytes", "0") as broker:
        peer = Running(broker)
        peer.load(1, 2)
        touch_memory()
        alone = peer.load(1, 5)
        first = broker_next(peer)
        touch_memory()
        stuck = [subscribe_from(peer.port, f"stuck{number}", first) for number in range(16)]
        before = memory(peer.pid)
        beside = peer.load(1, max(5.0, 1.2 * total / max(alone.mb_s * 1e6, 1)))
        grown = memory(peer.pid) - before
        count = broker_next(peer) - first
        speed, in_order = wake_up(stuck[0], first, count)
        for sock in stuck:
            sock.close()
        touch_memory()
        alone_again = peer.load(1, 5)
    # A machine's own ups and downs are larger than what is measured: so the rate alone before and after it.
    share = beside.delivered_mb_s / ((alone.delivered_mb_s + alone_again.delivered_mb_s) / 2)
    size = count * PAYLOAD.size / 1e9
    good = share >= 0.8 and grown <= 16 * 0.6 + 16 and in_order and speed >= 200
    return (
        f"{size:.2f} GB past 16 that never read: {share:.2f} of the healthy one's rate alone (>= 0.80), memory +{grown:.1f} MiB,"
        f" the one that woke up got all{'' if in_order else ' NOT'} in order at {speed:.0f} MB/s (>= 200)",
        good,
    )


def broker_next(peer: Running) -> int:
    """The offset that the next message will get."""

    async def ask() -> int:
        client = await BrokerClient.connect("127.0.0.1", peer.port)
        await client.close()
        return client.welcome.next

    return asyncio.run(ask())


def subscribe_from(port: int, name: str, offset: int) -> socket.socket:
    """A plain subscriber; whether it ever reads is for its owner."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(request_frame("subscribe", subscriber_id=name, offset=offset))
    return sock


def wake_up(sock: socket.socket, first: int, count: int) -> tuple[float, bool]:
    """Read all that a stuck subscriber has coming: MB/s, and whether each offset came, once and in order."""
    started = time.perf_counter()
    sock.settimeout(30)
    data = bytearray()
    taken, expected, in_order, answered = 0, first, True, False
    while expected < first + count:
        got = sock.recv(MIB)
        if not got:
            return 0.0, False
        taken += len(got)
        data += got
        place = 0
        while len(data) - place >= 4 and len(data) - place >= (
            end := 4 + int.from_bytes(data[place : place + 4], "big")
        ):
            if answered:
                in_order &= int(data[place + 48 : place + 64]) == expected
                expected += 1
            answered = True
            place += end
        del data[:place]
    return taken / (time.perf_counter() - started) / 1e6, in_order


_PUBLISHER = """
import asyncio, sys
from broker.client.client import BrokerClient
async def main():
    client = await BrokerClient.connect("127.0.0.1", int(sys.argv[1]))
    for number in range(int(sys.argv[2]), 1 << 30):
        await client.publish(b"%d" % number, producer="00000000000000bb", sequence=number)
        print(number, flush=True)
        await asyncio.sleep(0.02)
asyncio.run(main())
"""


def row_09(folder: Path, stopped_s: float = 60) -> tuple[str, bool]:
    """A subscriber and a publisher under SIGSTOP: dropped at 45 s, others unaffected, resumed from commit and sequence."""
    with broker_process(folder) as broker:
        port, _ = broker.wait_listening()
        text, good = asyncio.run(_stop_both(port, stopped_s))
    return text, good


async def _stop_both(port: int, stopped_s: float) -> tuple[str, bool]:
    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(port), *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    watch = await BrokerClient.connect("127.0.0.1", port)
    subscriber, publisher = start(SUBSCRIBER), start(_PUBLISHER, "0")
    again: subprocess.Popen[str] | None = None
    try:
        await _until(
            lambda stats: any(
                one["id"] == "stopped" and (one["committed_offset"] or 0) >= 20 for one in stats["subscribers"]
            ),
            watch,
        )
        connections = (await watch.stats())["connections"]
        for process in (subscriber, publisher):
            process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        waits: list[float] = []
        dropped: list[float] = []
        published = 0
        while time.monotonic() - started < stopped_s:
            asked = time.monotonic()
            await watch.publish(b"1")
            published += 1
            waits.append(time.monotonic() - asked)
            left = (await watch.stats())["connections"]
            dropped += [time.monotonic() - started] * (connections - left - len(dropped))
            await asyncio.sleep(0.05)
        stats = await watch.stats()
        committed = next(one["committed_offset"] for one in stats["subscribers"] if one["id"] == "stopped")
        other = await BrokerClient.connect("127.0.0.1", port)
        resumed = await other.subscribe("stopped")
        rest = await take(other, stats["latest_offset"] - committed)
        whole = offsets(rest) == list(range(committed + 1, stats["latest_offset"] + 1))
        await other.close()
        # A supervisor would start the publisher again: what it cannot know to be answered it sends once more.
        publisher.send_signal(signal.SIGCONT)
        publisher.kill()
        told, _ = publisher.communicate()
        last = int(told.split()[-1])
        again = start(_PUBLISHER, str(max(0, last - 3)))
        await _until(lambda now: now["total_messages"] > stats["total_messages"] + 20, watch)
        messages = await _sequences(port, "00000000000000bb")
        once = messages == list(range(len(messages)))
    finally:
        for each in (subscriber, publisher, again):
            if each is not None:
                each.kill()
                each.wait()
                if each.stdout is not None:
                    each.stdout.close()
        await watch.close()
    p99 = sorted(waits)[len(waits) * 99 // 100] * 1e3
    good = len(dropped) == 2 and max(dropped) <= 50 and resumed == committed + 1 and whole and once
    return (
        f"both stopped for {stopped_s:g} s: dropped after {' and '.join(f'{one:.1f}' for one in dropped)} s (45), meanwhile {published}"
        f" publishes of another, p99 {p99:.1f} ms; resumed at commit + {resumed - committed}, "
        f"{'all there' if whole else 'NOT all there'}; the publisher's {len(messages)} messages {'once each' if once else 'NOT once each'}",
        good,
    )


async def _sequences(port: int, producer: str) -> list[int]:
    """Of a producer's messages, as they stand in the log."""
    client = await BrokerClient.connect("127.0.0.1", port)
    await client.subscribe("all", -2)
    messages = await take(client, client.welcome.next)
    await client.close()
    ids = [one.message_id.partition(":") for one in messages if isinstance(one, Message)]
    return [int(number) for name, _, number in ids if name == key_of(producer)]


async def _until(condition: Callable[[dict[str, Any]], bool], client: BrokerClient) -> None:
    deadline = time.monotonic() + 60
    while not condition(await client.stats()):
        if time.monotonic() > deadline:
            raise TimeoutError("the broker's figures did not come")
        await asyncio.sleep(0.05)


def row_10(folder: Path, idle_s: float = 300) -> tuple[str, bool]:
    """1,000 idle connections for minutes: memory of each, the wait for an answer with and without, files given back."""
    with broker_process(folder) as broker:
        peer = Running(broker)
        peer.load(0, 2)
        files = open_files(peer.pid)
        before = memory(peer.pid)
        idle = [socket.create_connection(("127.0.0.1", peer.port)) for _ in range(1000)]
        time.sleep(idle_s)
        each = (memory(peer.pid) - before) * 1024 / 1000
        there = sum(_alive(sock) for sock in idle)
        for sock in idle:
            sock.close()
        # In turn, so that a machine whose speed drifts does so for both.
        shares, rates = [], []
        for _ in range(5):
            without = peer.load(0, 2)
            crowd = [socket.create_connection(("127.0.0.1", peer.port)) for _ in range(1000)]
            with_ = peer.load(0, 2)
            for sock in crowd:
                sock.close()
            shares.append(with_.p99_ms / without.p99_ms)
            rates.append(with_.messages_s / without.messages_s)
        deadline = time.monotonic() + 10
        while open_files(peer.pid) > files and time.monotonic() < deadline:
            time.sleep(0.1)
        left = open_files(peer.pid) - files
    share, rate = statistics.median(shares), statistics.median(rates)
    good = each <= 5 and share <= 1.10 and left <= 0 and there == 1000
    return (
        f"1,000 idle for {idle_s:g} s: {there} still connected, {each:.1f} KiB each (<= 5), p99 {share:.2f} of that without (<= 1.10),"
        f" rate {rate:.2f}, {max(left, 0)} files left open",
        good,
    )


def _alive(sock: socket.socket) -> bool:
    sock.settimeout(10)
    sock.sendall(request_frame("ping"))
    return bool(sock.recv(4096))


def row_11(folder: Path) -> tuple[str, bool]:
    """Frames that never end: a byte a second, then a MiB each; closed at 30 s, the budget holds, others go on."""
    with broker_process(folder) as broker:
        peer = Running(broker)
        alone = peer.load(0, 3)
        before = memory(peer.pid)
        slow = [socket.create_connection(("127.0.0.1", peer.port)) for _ in range(200)]
        for sock in slow:
            sock.sendall((8 * MIB - 1).to_bytes(4, "big") + b"{")
        started = time.monotonic()
        time.sleep(1)
        grown = memory(peer.pid) - before
        beside = peer.load(0, 3)
        closed: list[float] = []
        selector = selectors.DefaultSelector()
        for sock in slow:
            selector.register(sock, selectors.EVENT_READ)
        due = time.monotonic()
        while len(closed) < len(slow) and time.monotonic() - started < 60:
            for key, _ in selector.select(0.2):
                selector.unregister(key.fileobj)
                closed.append(time.monotonic() - started)
            if time.monotonic() >= due:
                due += 1
                for key in list(selector.get_map().values()):
                    try:
                        key.fileobj.send(b" ")  # type: ignore[union-attr]
                    except OSError:
                        continue
        for sock in slow:
            sock.close()
        before = memory(peer.pid)
        slow = [socket.create_connection(("127.0.0.1", peer.port)) for _ in range(400)]
        most = 0.0
        for sock in slow:
            sock.settimeout(0.2)
            with contextlib.suppress(OSError):  # over the budget the broker does not read on
                sock.sendall((8 * MIB - 1).to_bytes(4, "big") + b"x" * MIB)
            most = max(most, memory(peer.pid) - before)
        for sock in slow:
            sock.close()
        last = peer.load(0, 2)
    rate = beside.messages_s / alone.messages_s
    good = grown <= 10 and len(closed) == 200 and max(closed) <= 35 and most <= 256 + 64 and last.messages_s > 0
    return (
        f"200 unfinished frames: memory +{grown:.1f} MiB (<= 10), rate beside them {rate:.2f} of that alone, closed after"
        f" {min(closed, default=0):.1f} to {max(closed, default=0):.1f} s (30); 400 of 1 MiB each: memory +{most:.0f} MiB (budget 256)",
        good,
    )


def row_14(folder: Path) -> tuple[str, bool]:
    """Half-open connections, with the time-outs that users get."""
    need("ip", "iproute2")
    command = [*need_namespaces("--net"), sys.executable, "-m", "tests.broker.faults.half_open", "--scale", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    if done.returncode:
        return done.stderr[-500:], False
    told = json.loads(done.stdout.splitlines()[-1])
    good = (told["connected"], told["dead"], told["resumed"]) == (2, 2, [0, 0]) and told["seconds"] <= 50
    return f"2 half-open: both dropped after {told['seconds']:.1f} s (45), their ids subscribe again at once", good


ROWS: dict[str, Row] = {"row_08": row_08, "row_09": row_09, "row_10": row_10, "row_11": row_11, "row_14": row_14}


def main() -> int:
    """Run the rows, print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="which [all]")
    options = parser.parse_args()
    failed = False
    for name in options.rows or ROWS:
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
            try:
                text, good = ROWS[name](Path(folder))
            except (OSError, BrokerError, RuntimeError, TimeoutError) as error:
                text, good = f"{type(error).__name__}: {error}", False
        failed |= not good
        sys.stdout.write(f"{name}: {text}: {'good' if good else 'BAD'}\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
