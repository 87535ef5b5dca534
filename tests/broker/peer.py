"""A scripted server, for what a real broker never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from broker.protocol import messages

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WELCOME = messages.welcome_frame(0, 0, 1 << 20, "always")


@asynccontextmanager
async def peer(script: Script) -> AsyncIterator[int]:
    """A server that does to each connection what the script says; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client hung up, as some tests want
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The body of the next frame."""
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
