"""Row 14, run inside a network namespace of its own (unshare --user --map-root-user --net): peers whose TCP is gone.

Prints one line of JSON: what the broker thought of them, and how long it took to. ``--scale 1``: with the time-outs that users
get, 45 s; a test has less time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from broker.client.client import BrokerClient
from broker.protocol.messages import request_frame
from tests.broker.harness import running_broker, wait_until

TCP_REPAIR = 19


def subscribe(port: int, name: str) -> socket.socket:
    """A subscriber that said hello, by hand."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(request_frame("hello") + request_frame("subscribe", subscriber_id=name))
    return sock


async def main(scale: float) -> None:
    """Two ways to lose a peer without a word of TCP."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: ASYNC221
    with tempfile.TemporaryDirectory() as directory:
        times = {"ping_after_s": 15 * scale, "dead_after_s": 45 * scale, "tick_s": 1.0 if scale == 1 else 0.1}
        async with running_broker(Path(directory), **times) as broker:
            repaired = subscribe(broker.port, "repaired")
            unplugged = subscribe(broker.port, "unplugged")
            await wait_until(lambda: len(broker.delivery.subscriptions) == 2)
            # Closed so that the kernel says nothing to the other side.
            repaired.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            repaired.close()
            subprocess.run(["ip", "link", "set", "lo", "down"], check=True)  # noqa: ASYNC221
            unplugged.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            unplugged.close()
            started = time.monotonic()
            connected = len(broker.connections)
            await wait_until(lambda: not broker.connections)
            took = time.monotonic() - started
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: ASYNC221
            again = await BrokerClient.connect("127.0.0.1", broker.port)
            resumed = [await again.subscribe("repaired"), await again.subscribe("unplugged")]
            await again.close()
            dead = broker.counters.dead
    sys.stdout.write(json.dumps({"connected": connected, "seconds": took, "dead": dead, "resumed": resumed}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1 / 30)
    asyncio.run(main(parser.parse_args().scale))
