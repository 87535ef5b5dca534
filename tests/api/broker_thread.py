"""A real broker for tests that are not asynchronous: it runs in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.client.client import BrokerClient
from tests.broker.harness import running_broker


@contextmanager
def broker_in_thread(directory: Path, payloads: Sequence[bytes] = (), **overrides: Any) -> Iterator[int]:
    """The port of a broker that holds these messages; subscriber c1 is connected and has committed the first of them."""
    started = threading.Event()
    state: dict[str, Any] = {}

    async def main() -> None:
        stop = asyncio.Event()
        async with running_broker(directory, **overrides) as broker:
            client = await BrokerClient.connect("127.0.0.1", broker.port)
            await asyncio.gather(*(client.publish(payload) for payload in payloads))
            if payloads:
                await client.subscribe("c1", -2)
                await client.receive()
                await client.ack(0)
            state.update(port=broker.port, stop=stop, loop=asyncio.get_running_loop())
            started.set()
            await stop.wait()
            await client.close()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            state["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(30)
    try:
        assert "error" not in state, state["error"]
        yield state["port"]
    finally:
        if "loop" in state:
            state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(30)
    assert "error" not in state, state["error"]
