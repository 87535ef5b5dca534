"""From the spool to the broker: batches in order, many under way at a time, each under its number in the spool."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from broker.client.client import BrokerClient, Published
from ingest.errors import BrokerRefusal
from ingest.reconnect import Connect, Uplink
from ingest.streamer.publisher import FRAME_OVERHEAD
from ingest.streamer.split import split_block
from ingest.streamer.spool import Spool, Spooled
from readings.batch import DecodedBatch, decode, encode_block

logger = logging.getLogger(__name__)

WINDOW = 256


class Sender:
    """Sends while ``run`` is running, also through the broker's absence. ``in_spool`` runs a call in the spool's thread."""

    def __init__(
        self,
        spool: Spool,
        in_spool: Callable[..., Awaitable[Any]],
        connect: Connect,
        *,
        broker: str,
    ) -> None:
        self._spool = spool
        self._in_spool = in_spool
        self._uplink = Uplink(connect, broker=broker)
        self._changed = asyncio.Event()

    @property
    def uplink(self) -> Uplink:
        """Whether the broker is there, and what it has answered."""
        return self._uplink

    def wake(self) -> None:
        """There is more in the spool."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def flush(self) -> None:
        """Wait until everything in the spool is answered."""
        while self._spool.waiting:
            await self._changed.wait()

    async def run(self) -> None:
        """Connect and send until cancelled. Raises BrokerRefusal when the broker will never take our batches."""
        await self._uplink.run(self._serve, lambda: not self._spool.waiting)

    async def _serve(self, client: BrokerClient) -> NoReturn:
        limit = client.welcome.max_frame - FRAME_OVERHEAD
        number = self._spool.next_unanswered
        ready: deque[Spooled] = deque()
        under_way: deque[tuple[Spooled, asyncio.Future[Published]]] = deque()
        while True:
            changed = self._changed
            if not ready and len(under_way) <= WINDOW // 2:
                batches, number = await self._in_spool(self._spool.read, number)
                ready.extend(batches)
            while ready and len(under_way) < WINDOW and len(ready[0].payload) <= limit:
                batch = ready.popleft()
                under_way.append((batch, self._publish(client, batch.payload, batch.number)))
            await client.drain()
            if under_way:
                batch, answer = under_way.popleft()
                published = await asyncio.shield(answer)  # a wait that is cancelled must not take the answer's place
                if published.offset < 0:
                    # The broker knows only that it is older than what it remembers of us: it may never have come in.
                    await asyncio.shield(client.publish(batch.payload))
                await self._note_answered(batch)
            elif ready:
                batch = ready.popleft()
                await self._send_in_parts(client, batch, limit)
                await self._note_answered(batch)
            elif number > self._spool.next_unanswered:
                self._spool.answered(number - 1)  # what could not be read, at the end
                self.wake()
            else:
                await changed.wait()

    def _publish(self, client: BrokerClient, payload: bytes, number: int) -> asyncio.Future[Published]:
        answer = client.publish(payload, producer=self._spool.producer, sequence=number)
        # When the connection fails only the first of them is asked what became of it.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return answer

    async def _note_answered(self, batch: Spooled) -> None:
        self._uplink.note_answered(self._spool.answered(batch.number))
        if not self._spool.waiting:
            self.wake()

    async def _send_in_parts(self, client: BrokerClient, batch: Spooled, limit: int) -> None:
        """A batch that is larger than the broker's frames. Its parts have no number: they may come twice, which is harmless."""
        decoded = decode(batch.payload)
        for payload in _parts(decoded, limit):
            if payload is None:
                raise BrokerRefusal(
                    f"{self._uplink.partner} takes frames of {limit + FRAME_OVERHEAD} bytes at most, "
                    "and one reading takes more: raise its MAX_FRAME_BYTES"
                )
            await asyncio.shield(client.publish(payload))


def _parts(decoded: DecodedBatch, limit: int) -> list[bytes | None]:
    """Payloads of ``limit`` bytes at most that hold the same; None in place of a reading that does not fit."""
    waiting = [decoded.block]
    payloads: list[bytes | None] = []
    refused = decoded.reported
    while waiting:
        block = waiting.pop()
        payload = encode_block(
            block, batch_id=decoded.batch_id, source=decoded.source, collected_at="", refused=refused
        )
        if len(payload) <= limit:
            payloads.append(payload)
            refused = {}
            continue
        halves = split_block(block)
        if halves is None:
            payloads.append(None)
            continue
        waiting.extend(reversed(halves))
    return payloads
