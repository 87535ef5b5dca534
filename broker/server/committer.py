"""Group commit: the messages that arrive while one batch is written form the next batch.

There is no timer. An idle broker writes a message at once; a busy one writes together what arrived in the meantime.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from broker.errors import BrokerError, LogFailed
from broker.log.batch import Entries, RecordBatch
from broker.log.log import Log
from broker.server.worker import Worker

logger = logging.getLogger(__name__)

AnyEntries = TypeVar("AnyEntries", bound=Entries)

# Size limit of one batch. It bounds the time spent on the event loop. Too large, and one batch swallows everything in flight,
# so the disk and the clients take turns idling. Messages of 25 KB were 8 % slower with 1 MiB, 3 % with 1.5 MiB, a third with
# 3 MiB.
GROUP_BYTES = 1280 << 10
GROUP_MESSAGES = 2048
# The limit fits a disk that commits a batch by the time the next one is complete. Where commits take longer, batches grow in
# proportion, up to MOST_GROWTH times: with an fsync of 10 ms, four publishers of 25 KB messages went twice as fast.
GROUP_COMMIT_S = 0.0025
MOST_GROWTH = 4.0
_LAST = 8


class Committer(Generic[AnyEntries]):
    """Collects publishes into batches and has them written one batch at a time.

    Calls ``on_written(batch, publishes)`` and ``on_refused(publishes, error)`` on the event loop. Calls ``on_failed`` once,
    when the log fails (after a failed fsync): neither that batch nor anything after it is answered.
    """

    def __init__(
        self,
        log: Log,
        writer: Worker,
        *,
        on_written: Callable[[RecordBatch, Sequence[AnyEntries]], None],
        on_refused: Callable[[Sequence[AnyEntries], BrokerError], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self.bytes = 0  # waiting or being written
        self.refusal: BrokerError | None = None  # why the last batch was refused; None once a batch is written
        self._log = log
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._on_written = on_written
        self._on_refused = on_refused
        self._on_failed = on_failed
        self._waiting: deque[AnyEntries] = deque()
        self._scheduled = False
        self._in_flight = False
        self._failed = False
        self._since = 0.0
        self._waits: deque[float] = deque(
            [0.0], _LAST
        )  # how long the last commits took beyond what their size explains
        self._idle: asyncio.Future[None] | None = None

    def add(self, entries: AnyEntries) -> None:
        """Add publishes. One of the callbacks answers them."""
        self._waiting.append(entries)
        self.bytes += entries.size
        if not self._in_flight:
            self._start_soon()

    @property
    def _growth(self) -> float:
        # The minimum, because every disk is slow now and then.
        return min(1.0 + max(min(self._waits), 0.0) / GROUP_COMMIT_S, MOST_GROWTH)

    def waits_for(self) -> float:
        """Returns the seconds since the current batch went to the writer, 0 if there is none."""
        return time.monotonic() - self._since if self._in_flight else 0.0

    async def wait_idle(self) -> None:
        """Return when every publish is answered, or the log has failed."""
        while (self._waiting or self._in_flight) and not self._failed:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)

    def _start_soon(self) -> None:
        """Start the next batch in the next turn of the loop, so that it includes what has arrived by then."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start_scheduled)

    def _start_scheduled(self) -> None:
        self._scheduled = False
        if not self._in_flight:
            self._start()

    def _start(self) -> None:
        if not self._waiting or self._failed:
            self._notify_idle()
            return
        publishes, size = self._take()
        batch = self._log.prepare(publishes)
        self._in_flight = True
        self._since = time.monotonic()
        self._writer.submit(
            lambda: self._commit(batch), lambda seconds, error: self._committed(batch, publishes, size, seconds, error)
        )

    def _commit(self, batch: RecordBatch) -> float:
        """Runs in the writer thread; returns how long the commit took."""
        started = time.monotonic()
        self._log.commit(batch)
        return time.monotonic() - started

    def _take(self) -> tuple[list[AnyEntries], int]:
        # Publishes of one event stay together, so the last ones may exceed the limit.
        waiting = self._waiting
        most_messages, most_bytes = GROUP_MESSAGES * self._growth, GROUP_BYTES * self._growth
        publishes: list[AnyEntries] = []
        count = size = 0
        while waiting and count < most_messages and size < most_bytes:
            entries = waiting.popleft()
            count += len(entries.payloads)
            size += entries.size
            publishes.append(entries)
        return publishes, size

    def _committed(
        self,
        batch: RecordBatch,
        publishes: Sequence[AnyEntries],
        size: int,
        seconds: float,
        error: BaseException | None,
    ) -> None:
        self._in_flight = False
        self.bytes -= size
        if error is None:
            self._waits.append(seconds - size / GROUP_BYTES * GROUP_COMMIT_S)
            self._log.finish(batch)
            if self.refusal is not None:
                logger.info("the log accepts messages again")
                self.refusal = None
            try:
                if self.bytes >= GROUP_BYTES * self._growth:
                    # The disk first: it writes the next batch while this one is answered and delivered, which takes as
                    # long when there are many subscribers.
                    self._start()
                else:
                    # A batch costs as much as 8 messages of 25 KB, so it waits for what the sockets hold by now.
                    self._start_soon()
            finally:
                self._on_written(batch, publishes)
            return
        if isinstance(error, BrokerError) and not isinstance(error, LogFailed):
            self._log.abort(batch)
            if self.refusal is None or self.refusal.code != error.code:
                logger.error("publishes are refused: %s", error)
            self.refusal = error
            self._on_refused(publishes, error)
        else:
            self._failed = True
            self._notify_idle()
            self._on_failed(error)
            return
        self._start()

    def _notify_idle(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self._idle = None
