"""The publish side of a streamer: batches go out in order, many at a time, until each is answered.

A batch gets its sequence number when it is first sent. What a lost connection left unanswered is sent again under the same
number, so that the broker knows it. What the broker refused for now is not in its log, and goes again under a new number:
the old one would look like a duplicate once a later batch is in.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from broker.client.client import BrokerClient, Published
from broker.errors import BrokerError, BrokerUnavailable, ConnectionLost
from ingest.capture.position import Gathering
from ingest.errors import BrokerRefusal
from ingest.reconnect import Connect, Uplink
from ingest.streamer.split import split_block
from readings.batch import encode_block
from readings.model import PointBlock

logger = logging.getLogger(__name__)

WINDOW = 64
# What a frame holds besides the payload, generously: the log's own head is a little longer than a publish's.
FRAME_OVERHEAD = 256
# How long to wait for the other answers once one batch was refused.
SETTLE_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class Batch:
    """One message to be."""

    block: PointBlock
    gathering: Gathering
    batch_id: str
    source: str
    collected_at: str
    refused: Mapping[str, int] = field(default_factory=dict)
    payload: bytes = b""

    def __post_init__(self) -> None:
        self.gathering.unanswered += 1
        self.payload = encode_block(
            self.block,
            batch_id=self.batch_id,
            source=self.source,
            collected_at=self.collected_at,
            refused=self.refused,
        )

    def split(self) -> tuple[Batch, Batch] | None:
        """Two batches in its place, or None when it cannot be cut further."""
        halves = split_block(self.block)
        if halves is None:
            return None
        self.gathering.unanswered -= 1
        first, second = halves
        return (
            Batch(first, self.gathering, f"{self.batch_id}.1", self.source, self.collected_at, self.refused),
            Batch(second, self.gathering, f"{self.batch_id}.2", self.source, self.collected_at),
        )


class Publisher:
    """Takes batches with ``put``, and sends them while ``run`` is running. Survives the broker's absence."""

    def __init__(
        self,
        connect: Connect,
        on_answered: Callable[[], None],
        *,
        broker: str,
        window: int = WINDOW,
    ) -> None:
        self.producer = secrets.token_hex(8)
        self._uplink = Uplink(connect, broker=broker)
        self._on_answered = on_answered
        self._window = window
        self._sequence = 0
        self._waiting: deque[Batch] = deque()
        self._sent: dict[int, Batch] = {}
        self._refused: list[Batch] = []
        self._in_flight = 0
        self._failure: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def uplink(self) -> Uplink:
        """Whether the broker is there, and what it has answered."""
        return self._uplink

    @property
    def unanswered(self) -> int:
        """Batches that were put and are not answered yet."""
        return len(self._waiting) + len(self._sent) + len(self._refused)

    async def put(self, batch: Batch) -> None:
        """Take a batch; waits while a whole window of them is waiting to be sent."""
        await self._until(lambda: len(self._waiting) < self._window)
        self._waiting.append(batch)
        self._notify()

    async def flush(self) -> None:
        """Wait until everything that was put is answered."""
        await self._until(lambda: self.unanswered == 0)

    async def run(self) -> None:
        """Connect and send until cancelled. Raises BrokerRefusal when the broker will never take our batches."""
        await self._uplink.run(self._serve, lambda: not self._sent and not self._waiting)

    async def _serve(self, client: BrokerClient) -> NoReturn:
        """Send over one connection until something fails, then raise that."""
        self._failure = None
        limit = client.welcome.max_frame - FRAME_OVERHEAD
        self._set_aside_too_large(limit)
        for sequence, batch in self._sent.items():
            self._publish(client, sequence, batch)
        while self._failed() is None:
            while self._waiting and len(self._sent) < self._window:
                self._send_next(client, limit)
            self._notify()
            await client.drain()
            await self._until(
                lambda: self._failed() is not None or bool(self._waiting and len(self._sent) < self._window)
            )
        try:
            await asyncio.wait_for(self._until(lambda: self._in_flight == 0), SETTLE_SECONDS)
        except TimeoutError:
            logger.debug("%d batches were not answered in time", self._in_flight)
        raise self._failure or ConnectionLost("the connection failed")

    def _failed(self) -> Exception | None:
        return self._failure

    def _send_next(self, client: BrokerClient, limit: int) -> None:
        batch = self._waiting.popleft()
        if len(batch.payload) > limit:
            self._waiting.extendleft(reversed(self._split(batch, limit)))
            return
        self._sequence += 1
        self._sent[self._sequence] = batch
        self._publish(client, self._sequence, batch)

    def _publish(self, client: BrokerClient, sequence: int, batch: Batch) -> None:
        future = client.publish(batch.payload, producer=self.producer, sequence=sequence)
        self._in_flight += 1
        future.add_done_callback(lambda done: self._take_answer(sequence, batch, done))

    def _take_answer(self, sequence: int, batch: Batch, answer: asyncio.Future[Published]) -> None:
        self._in_flight -= 1
        error = ConnectionLost("the connection was closed") if answer.cancelled() else answer.exception()
        if error is None and answer.result().offset < 0:
            # A repetition that the broker cannot find: this number was passed over when a later one came in (it was
            # refused, and the answer got lost with the connection). Only a new number gets it into the log.
            del self._sent[sequence]
            self._waiting.appendleft(batch)
        elif error is None:
            del self._sent[sequence]
            self._uplink.note_answered(batch.block.count())
            batch.gathering.unanswered -= 1
            self._on_answered()
        else:
            if isinstance(error, BrokerError) and not isinstance(error, ConnectionLost | BrokerUnavailable):
                del self._sent[sequence]
                self._refused.append(batch)
            if self._failure is None and isinstance(error, Exception):
                self._failure = error
        if self._refused and self._in_flight == 0:
            self._waiting.extendleft(reversed(self._refused))
            self._refused.clear()
        self._notify()

    def _set_aside_too_large(self, limit: int) -> None:
        """A broker that came back may take smaller frames: what no longer fits goes again in parts."""
        for sequence, batch in list(self._sent.items()):
            if len(batch.payload) > limit:
                del self._sent[sequence]
                self._waiting.extendleft(reversed(self._split(batch, limit)))

    def _split(self, batch: Batch, limit: int) -> tuple[Batch, Batch]:
        halves = batch.split()
        if halves is None:
            raise BrokerRefusal(
                f"{self._uplink.partner} takes frames of {limit + FRAME_OVERHEAD} bytes at most, "
                f"and one reading takes {len(batch.payload) + FRAME_OVERHEAD}: raise its MAX_FRAME_BYTES"
            )
        return halves

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
