"""Sends batches to the broker in order, many in flight at a time, until each is answered.

Every batch has a number in its queue. Batches that a lost connection left unanswered are sent again under the same number, so the
broker stores each one once. A queue is in memory (captures, which can be read again) or on disk (the spool of a live source).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

from broker.backoff import backoff
from broker.client.address import BrokerAddress
from broker.client.client import BrokerClient, Published
from broker.errors import BrokerError
from ingest.errors import BrokerRefusal
from readings.batch import decode, encode_block, encode_plain
from readings.model import Point, PointBlock
from readings.times import format_time
from telemetry_site.concurrency import drain_deadline
from telemetry_site.outage import Outage, one_line

logger = logging.getLogger(__name__)

WINDOW = 256
# Bytes of a frame besides the payload, rounded up: the log's own head is a little longer than a publish's.
FRAME_OVERHEAD = 256
DRAIN_SECONDS = 7.0
# While the broker is away there is nothing to wait for: a later run sends the rest.
DRAIN_SECONDS_AWAY = 1.0


class Encode(Protocol):
    """Makes a batch of a block, in one of its forms."""

    def __call__(
        self,
        block: PointBlock,
        *,
        batch_id: str,
        source: str,
        collected_at: str,
        refused: Mapping[str, int] | None = None,
        live: bool = False,
    ) -> bytes:
        """The payload."""


# By BATCH_FORMAT.
ENCODERS: dict[str, Encode] = {"compact": encode_block, "plain": encode_plain}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamerConfig:
    """The settings of any streamer. Durations in seconds."""

    broker: BrokerAddress
    state_dir: Path
    instance_id: str = "streamer-1"
    batch_size: int = 100
    collect_interval: float = 5.0
    batch_format: str = "compact"  # a key of ENCODERS


class OutgoingBatch(NamedTuple):
    """One batch in a queue: its number, which rises by one from batch to batch, its payload, and the producer id under which
    it is sent: that of the run which made it."""

    number: int
    payload: bytes
    producer: str


class UnansweredBatch(NamedTuple):
    """How many readings an unanswered batch holds, and when it was queued (Unix seconds)."""

    readings: int
    since: float


class BatchQueue(Protocol):
    """Batches on their way to the broker. ``answered`` takes them out, the oldest first."""

    @property
    def next_unanswered(self) -> int:
        """The number of the oldest unanswered batch, or of the next one when all are answered."""

    @property
    def end(self) -> int:
        """The number that the next new batch will get."""

    def answered(self, number: int) -> int:
        """Remove all batches up to ``number``; returns how many readings they held."""


Connect = Callable[[], Awaitable[BrokerClient]]
# Returns some batches from a number on, and the number at which to go on reading.
Read = Callable[[int], Awaitable[tuple[list[OutgoingBatch], int]]]


class MemoryQueue:
    """A BatchQueue of ``limit`` batches at most. Calls ``on_answered`` with the number up to which all are answered."""

    def __init__(self, limit: int, on_answered: Callable[[int], None]) -> None:
        self.end = 1
        self.producer = secrets.token_hex(8)
        self._limit = limit
        self._on_answered = on_answered
        self._batches: deque[tuple[OutgoingBatch, UnansweredBatch]] = deque()
        self._room = asyncio.Event()

    @property
    def next_unanswered(self) -> int:
        """The number of the oldest unanswered batch, or of the next one when all are answered."""
        return self.end - len(self._batches)

    @property
    def oldest_since(self) -> float | None:
        """When the oldest unanswered batch was queued; None when all are answered."""
        return self._batches[0][1].since if self._batches else None

    async def put(self, payload: bytes, readings: int) -> None:
        """Add a batch; waits while the queue is full."""
        while len(self._batches) >= self._limit:
            self._room.clear()
            await self._room.wait()
        self._batches.append((OutgoingBatch(self.end, payload, self.producer), UnansweredBatch(readings, time.time())))
        self.end += 1

    async def read(self, number: int) -> tuple[list[OutgoingBatch], int]:
        """All batches from ``number`` on, and the number after them."""
        return [batch for batch, _ in islice(self._batches, number - self.next_unanswered, None)], self.end

    def answered(self, number: int) -> int:
        """Remove all batches up to ``number``; returns how many readings they held."""
        readings = 0
        while self.next_unanswered <= min(number, self.end - 1):
            readings += self._batches.popleft()[1].readings
        self._room.set()
        self._on_answered(number)
        return readings


class BatchSender:
    """Sends a queue's batches while ``run`` is running, through any absence of the broker."""

    def __init__(
        self,
        queue: BatchQueue,
        read: Read,
        connect: Connect,
        *,
        broker: str,
        window: int = WINDOW,
        encode: Encode = encode_block,
    ) -> None:
        self.connected = False
        self.batches_answered = 0
        self.readings_answered = 0
        self._queue = queue
        self._read = read
        self._connect = connect
        self._outage = Outage(broker)
        self._window = window
        self._encode = encode
        self._changed = asyncio.Event()
        # Parts of oversized batches have numbers of their own. They depend on the frame limit, so a new limit takes a new id.
        self._parts_limit = 0
        self._parts_producer = ""
        self._parts_sent = 0
        # For batches under whose number the broker has another message.
        self._second_producer = secrets.token_hex(8)
        self._collides = False

    @property
    def trouble(self) -> list[str]:
        """One text while the broker is away; else empty."""
        return self._outage.trouble

    @property
    def waiting(self) -> int:
        """Batches that the broker has not answered."""
        return self._queue.end - self._queue.next_unanswered

    def wake(self) -> None:
        """Look at the queue again: a batch was added."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def drain_deadline(self, stop: asyncio.Event) -> None:
        """Wait for ``stop``, and then as long as unanswered batches may take."""
        await drain_deadline(stop, DRAIN_SECONDS, seconds_away=DRAIN_SECONDS_AWAY, connected=lambda: self.connected)

    async def flush(self) -> None:
        """Wait until every batch in the queue is answered."""
        while self.waiting:
            await self._changed.wait()

    async def run(self) -> NoReturn:
        """Connect and send, again after each failure, until cancelled. Raises BrokerRefusal when the broker refuses us for good."""
        waits = backoff()
        while True:
            answered = self.batches_answered
            try:
                client = await self._connect()
                try:
                    self.connected = True
                    if not self.waiting:
                        self._outage.end()  # with nothing to send, a connection is enough
                    await self._serve(client)
                finally:
                    self.connected = False
                    await client.close()
            except BrokerError as error:
                if not error.retriable:
                    raise BrokerRefusal(f"{self._outage.partner} refuses this streamer: {one_line(error)}") from error
                self._outage.begin(error)
            if self.batches_answered > answered:
                waits = backoff()
            await asyncio.sleep(next(waits))

    async def _serve(self, client: BrokerClient) -> NoReturn:
        """Send over one connection. Raises BrokerError."""
        queue = self._queue
        limit = client.welcome.max_frame - FRAME_OVERHEAD
        number = queue.next_unanswered
        ready: deque[OutgoingBatch] = deque()
        in_flight: deque[tuple[OutgoingBatch, asyncio.Future[Published]]] = deque()
        while True:
            changed = self._changed
            while in_flight and in_flight[0][1].done():
                batch, answer = in_flight.popleft()
                if answer.result().is_of(batch.payload):
                    self._collides = False
                else:
                    await self._send_again(client, batch, answer.result())
                self._note_answered(batch.number)
            if not ready and len(in_flight) <= self._window // 2 and number < queue.end:
                batches, number = await self._read(number)
                ready.extend(batches)
            while ready and len(in_flight) < self._window and len(ready[0].payload) <= limit:
                batch = ready.popleft()
                in_flight.append((batch, self._publish(client, batch.payload, batch.producer, batch.number)))
            await client.drain()
            if in_flight:
                await changed.wait()
            elif ready:
                batch = ready.popleft()
                await self._send_in_parts(client, batch, limit)
                self._note_answered(batch.number)
            elif queue.next_unanswered < number == queue.end:
                queue.answered(number - 1)  # the last ones could not be read
                self.wake()
            elif number == queue.end:
                await changed.wait()

    async def _send_again(self, client: BrokerClient, batch: OutgoingBatch, taken_for: Published) -> None:
        """Send a batch that the broker took for another one of the same number, under a producer id that nobody knows."""
        while not taken_for.is_of(batch.payload):
            if taken_for.checksum:
                if not self._collides:
                    logger.warning(
                        "%s has another message under the number of batch %d: sending it and such ones again under a new "
                        "producer id (was a state folder copied, or does another client publish under our id?)",
                        self._outage.partner,
                        batch.number,
                    )
                self._collides = True
            # Else its log no longer has that message, so nobody can tell: a batch that is in it twice is harmless.
            taken_for = await self._publish(client, batch.payload, self._second_producer, batch.number)
            if taken_for.duplicate and not taken_for.is_of(batch.payload):
                self._second_producer = secrets.token_hex(8)

    def _publish(self, client: BrokerClient, payload: bytes, producer: str, number: int) -> asyncio.Future[Published]:
        answer = client.publish(payload, producer=producer, sequence=number)
        answer.add_done_callback(self._note_answer)
        return answer

    def _note_answer(self, answer: asyncio.Future[Published]) -> None:
        if not answer.cancelled():
            answer.exception()  # when a connection fails, only the first of its batches is asked what became of it
        self.wake()

    def _note_answered(self, number: int) -> None:
        self.batches_answered += 1
        self.readings_answered += self._queue.answered(number)
        self._outage.end()
        self.wake()

    async def _send_in_parts(self, client: BrokerClient, batch: OutgoingBatch, limit: int) -> None:
        """Send a batch that is larger than the broker's frames."""
        if limit != self._parts_limit:
            self._parts_limit, self._parts_producer, self._parts_sent = limit, secrets.token_hex(8), 0
        answers = [
            self._publish(client, payload, self._parts_producer, number)
            for number, payload in enumerate(self._parts(batch.payload, limit), self._parts_sent + 1)
        ]
        for answer in answers:
            # Nobody else knows the id, so a duplicate is a part that was sent before the connection was lost.
            await answer
        self._parts_sent += len(answers)

    def _parts(self, payload: bytes, limit: int) -> Iterator[bytes]:
        """The same readings in payloads of ``limit`` bytes at most. Raises BrokerRefusal for a reading that does not fit."""
        decoded = decode(payload)
        refused = decoded.reported
        blocks = [decoded.block]
        while blocks:
            block = blocks.pop()
            part = self._encode(
                block,
                batch_id=decoded.batch_id,
                source=decoded.source,
                collected_at="",
                refused=refused,
                live=decoded.live,
            )
            if len(part) <= limit:
                yield part
                refused = {}
                continue
            halves = split_block(block)
            if halves is None:
                raise BrokerRefusal(
                    f"{self._outage.partner} takes frames of {limit + FRAME_OVERHEAD} bytes at most, "
                    f"and one reading takes {len(part) + FRAME_OVERHEAD}: raise its MAX_FRAME_BYTES"
                )
            blocks.extend(reversed(halves))


def encode_blocks(
    blocks: Iterable[PointBlock],
    batch_ids: Iterator[str],
    *,
    source: str,
    refused: Mapping[str, int],
    encode: Encode = encode_block,
    live: bool = False,
) -> Iterator[tuple[bytes, int]]:
    """Each block as a payload, with its number of readings. The first one, empty if need be, also counts the refused readings.

    ``live``: the readings are sent as they are made.
    """
    collected_at = format_time(time.time_ns())

    def batch(block: PointBlock, refused: Mapping[str, int]) -> tuple[bytes, int]:
        payload = encode(
            block, batch_id=next(batch_ids), source=source, collected_at=collected_at, refused=refused, live=live
        )
        return payload, block.count()

    for block in blocks:
        yield batch(block, refused)
        refused = {}
    if refused:
        yield batch(PointBlock([], [], []), refused)


def split_block(block: PointBlock) -> tuple[PointBlock, PointBlock] | None:
    """The block in two halves, each with only the GPUs and metric names it needs; None for one reading or none."""
    points = block.points
    if len(points) > 1:
        middle = len(points) // 2
        return _part(block, points[:middle]), _part(block, points[middle:])
    if len(points) == 1:
        gpu, time_ns, values = points[0]
        middle = len(values) // 2
        if middle:
            return (
                _part(block, [(gpu, time_ns, [*values[:middle], *[None] * (len(values) - middle)])]),
                _part(block, [(gpu, time_ns, [*[None] * middle, *values[middle:]])]),
            )
    return None


def _part(block: PointBlock, points: Sequence[Point]) -> PointBlock:
    gpus = sorted({index for index, _, _ in points})
    new_index = {old: new for new, old in enumerate(gpus)}
    columns = [at for at in range(len(block.metric_names)) if any(values[at] is not None for _, _, values in points)]
    return PointBlock(
        [block.gpus[index] for index in gpus],
        [block.metric_names[at] for at in columns],
        [(new_index[index], time_ns, [values[at] for at in columns]) for index, time_ns, values in points],
    )
