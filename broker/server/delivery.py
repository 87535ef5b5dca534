"""Delivery: each subscriber reads the log from its own position. None has a queue.

A subscriber at the end of the log is live: it gets the bytes of each new batch as they were written. When its socket takes
no more, it leaves the live set. Once the socket drains, it reads what it missed from the log, a bounded chunk at a time,
until it reaches the end again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from broker.log.batch import RecordBatch
from broker.log.log import Log
from broker.log.segment import LogRead
from broker.protocol.messages import gap_frame
from broker.server.bursts import BurstLog
from broker.server.worker import Worker

logger = logging.getLogger(__name__)

# The size of one read from the log. A stopped subscriber holds at most one in memory.
READ_BYTES = 512 << 10


class Outlet(Protocol):
    """The receiver of a subscription's bytes."""

    def deliver(self, data: bytes | memoryview) -> None:
        """Write to the peer. May set the subscription's ``paused`` before it returns."""

    def fail_delivery(self, error: BaseException) -> None:
        """The log could not be read: drop the peer."""


class Subscription:
    """One subscriber's position in the log."""

    __slots__ = ("closed", "held", "id", "moves", "outlet", "paused", "position")

    def __init__(self, subscriber_id: str, position: int, outlet: Outlet) -> None:
        self.id = subscriber_id
        self.position = position  # the next offset to deliver
        self.outlet = outlet
        self.paused = False  # its socket takes no more
        self.held = False  # its response has not been sent yet
        self.closed = False
        self.moves = 0


class Delivery:
    """Serves all subscriptions on the event loop. A thread reads the log, because a disk may be slow."""

    def __init__(self, log: Log, reader: Worker) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.gaps = 0
        self.delivered = 0
        self._log = log
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._live: set[Subscription] = set()
        # One read at a time for each peer, however often it subscribes; and what it subscribed to meanwhile.
        self._reading: set[Outlet] = set()
        self._next: dict[Outlet, Subscription] = {}
        self._lines = BurstLog(logger)

    def add(self, subscription: Subscription) -> None:
        """Add a subscription; its id must be free."""
        self.subscriptions[subscription.id] = subscription

    def remove(self, subscription: Subscription) -> None:
        """End a subscription and free its id."""
        subscription.closed = True
        self._live.discard(subscription)
        if self.subscriptions.get(subscription.id) is subscription:
            del self.subscriptions[subscription.id]

    def move(self, subscription: Subscription, position: int) -> None:
        """Deliver from ``position`` next."""
        self._live.discard(subscription)
        subscription.moves += 1  # a read in progress is for the old position
        subscription.position = position

    def advance(self, subscription: Subscription) -> None:
        """Continue a subscription whose state changed: it was added, moved, or may write again."""
        if subscription.closed or subscription.paused or subscription.held:
            return
        if subscription.outlet in self._reading:
            self._next[subscription.outlet] = subscription
            return
        if subscription.position >= self._log.next_offset:
            self._live.add(subscription)
            return
        self._reading.add(subscription.outlet)
        moves, position = subscription.moves, subscription.position
        cached = self._log.read_cached(position, READ_BYTES)
        if cached is not None:
            # In the next turn of the loop, so that each subscriber gets one chunk before any gets two.
            self._loop.call_soon(self._have_read, subscription, moves, cached, None)
            return
        self._reader.submit(
            lambda: self._log.read(position, READ_BYTES),
            lambda chunk, error: self._have_read(subscription, moves, chunk, error),
        )

    def batch_written(self, batch: RecordBatch) -> None:
        """Deliver a new batch to the live subscriptions."""
        if not self._live or not batch.size:
            return
        for subscription in list(self._live):
            if subscription.position != batch.first_offset:  # it reached the end while this batch was written
                self._live.discard(subscription)
                self.advance(subscription)
                continue
            for block in batch.blocks:
                if subscription.paused:
                    break
                self.delivered += block.next_offset - subscription.position
                subscription.position = block.next_offset
                subscription.outlet.deliver(block.data)
            if subscription.paused:
                self._live.discard(subscription)

    def _have_read(self, subscription: Subscription, moves: int, chunk: LogRead, error: BaseException | None) -> None:
        self._reading.discard(subscription.outlet)
        waiting = self._next.pop(subscription.outlet, None)
        if subscription.closed:
            if waiting is not None:
                self.advance(waiting)
            return
        if subscription.moves != moves or subscription.held:
            self.advance(subscription)
            return
        if error is None and chunk.next_offset <= subscription.position:
            error = RuntimeError(f"the log returned nothing at offset {subscription.position}")
        if error is not None:
            self._lines.say(
                logging.ERROR,
                "subscriber %s: cannot read the log at %d: %s",
                subscription.id,
                subscription.position,
                error,
            )
            subscription.outlet.fail_delivery(error)
            return
        count = chunk.next_offset - subscription.position
        if chunk.gap is not None:
            self.gaps += 1
            count -= chunk.gap.last - chunk.gap.first + 1
            self._lines.say(
                logging.WARNING,
                "subscriber %s: offsets %d to %d are gone (%s)",
                subscription.id,
                chunk.gap.first,
                chunk.gap.last,
                chunk.gap.reason,
            )
            subscription.outlet.deliver(gap_frame(chunk.gap.first, chunk.gap.last, chunk.gap.reason))
        subscription.position = chunk.next_offset
        self.delivered += count
        if chunk.data:
            subscription.outlet.deliver(chunk.data)
        self.advance(subscription)
