"""A watch on a broker, and what to publish there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from django.utils import timezone

from broker.client.address import BrokerAddress
from broker.client.client import BrokerClient
from health.rule_table import rules_now
from health.usage.saving import open_meter, save_usage
from health.watch.watcher import WatchConfig, Watcher
from readings.batch import encode_block
from readings.model import Gpu, PointBlock
from readings.times import SECOND


def watch_config(port: int, **changes: Any) -> WatchConfig:
    """A watch that commits soon."""
    settings: dict[str, Any] = {
        "watch_id": "watch",
        "broker": BrokerAddress(host="127.0.0.1", port=port),
        "rules": rules_now(),
        "make_meter": open_meter,
        "post": lambda steps: None,
        "save_usage": lambda meter: save_usage(meter, timezone.now()),
        "commit_seconds": 0.2,
    }
    return WatchConfig(**(settings | changes))


@asynccontextmanager
async def watching(config: WatchConfig) -> AsyncIterator[Watcher]:
    """A watch that runs inside the block and is stopped in order after it."""
    stop = asyncio.Event()
    watcher = Watcher(config, stop)
    task = asyncio.create_task(watcher.run())
    try:
        yield watcher
    finally:
        stop.set()
        await task


def batch(
    at: float,
    points: Iterable[tuple[Gpu, Mapping[str, float | None]]],
    *,
    start_ns: int,
    live: bool = True,
    source: str = "s",
) -> bytes:
    """The message with these points, ``at`` seconds after ``start_ns``."""
    points = list(points)
    names = list(dict.fromkeys(name for _, values in points for name in values))
    block = PointBlock(
        [gpu for gpu, _ in points],
        names,
        [
            (index, start_ns + round(at * SECOND), [values.get(name) for name in names])
            for index, (_, values) in enumerate(points)
        ],
    )
    return encode_block(block, batch_id="", source=source, collected_at="", live=live)


async def send(port: int, payloads: Iterable[bytes]) -> None:
    """Publish them in order."""
    client = await BrokerClient.connect("127.0.0.1", port)
    try:
        for payload in payloads:
            await client.publish(payload)
    finally:
        await client.close()
