"""A TCP proxy that does to a connection what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class Chaos:
    """What is done to what passes. Bytes are counted over the proxy's life."""

    cut_after: int = 0  # hang up, in the middle of whatever it is, about every so many bytes to the broker; 0: never
    piece: int = 1 << 16  # bytes passed on in one go
    delay_s: float = 0.0  # before each piece
    drop_answers: bool = False  # what the broker says is lost
    cuts: int = 0


@asynccontextmanager
async def chaos_proxy(port: int, chaos: Chaos, seed: int = 1) -> AsyncIterator[int]:
    """A proxy to ``port``; gives its own port. ``chaos`` may be changed meanwhile."""
    rng = random.Random(seed)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        left = rng.randint(1, 2 * chaos.cut_after) if chaos.cut_after else 1 << 60

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool) -> None:
            nonlocal left
            while data := await source.read(chaos.piece):
                if chaos.delay_s:
                    await asyncio.sleep(chaos.delay_s)
                if answers and chaos.drop_answers:
                    continue
                if not answers and len(data) >= left:
                    target.write(data[:left])
                    chaos.cuts += 1
                    return
                left -= 0 if answers else len(data)
                target.write(data)
                await target.drain()

        both = [
            asyncio.create_task(pass_on(reader, to_writer, answers=False)),
            asyncio.create_task(pass_on(to_reader, writer, answers=True)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for end in (writer, to_writer):
                end.close()
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
