"""Group commit: what arrives while one group is being written becomes the next group.

There is no timer. An idle broker writes a message at once; a busy one writes as many in one go as came meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from broker.errors import BrokerError, LogFailed
from broker.log.batch import Entries, Group
from broker.log.log import Log
from broker.server.worker import Worker

logger = logging.getLogger(__name__)

AnyEntries = TypeVar("AnyEntries", bound=Entries)

# Most of one group. Bounds how long the event loop is busy with it; and a larger one takes in all that clients have under
# way: then either the disk or the clients wait, never neither. With 1 MiB, 25 KB messages went 8 % slower, with 1.5 MiB 3 %,
# with 3 MiB a third.
GROUP_BYTES = 1280 << 10
GROUP_MESSAGES = 2048
# That is for a disk that has taken in a group by the time the next one is there. Where each commit takes longer than that,
# groups grow in proportion, up to so many times: with an fsync of 10 ms, four publishers of 25 KB messages went twice as fast.
GROUP_COMMIT_S = 0.0025
MOST_GROWTH = 4.0
_LAST = 8


class Committer(Generic[AnyEntries]):
    """Collects publishes into groups and has them written one group at a time.

    ``on_written(group, batch)`` and ``on_refused(batch, error)`` are called on the event loop. ``on_failed``
    is called once, when the log can promise nothing any more (a failed fsync): nothing of that group or after it is answered.
    """

    def __init__(
        self,
        log: Log,
        writer: Worker,
        *,
        on_written: Callable[[Group, Sequence[AnyEntries]], None],
        on_refused: Callable[[Sequence[AnyEntries], BrokerError], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self.bytes = 0  # of all that waits or is being written
        self.refusal: BrokerError | None = None  # why the last group was refused; None once one is written
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
        self._waits: deque[float] = deque([0.0], _LAST)  # what the last commits took, beyond what their size explains
        self._idle: asyncio.Future[None] | None = None

    def add(self, entries: AnyEntries) -> None:
        """Take publishes. They are answered by one of the call-backs."""
        self._waiting.append(entries)
        self.bytes += entries.size
        if not self._in_flight:
            self._start_soon()

    @property
    def _growth(self) -> float:
        # The least: now and then every disk takes long.
        return min(1.0 + max(min(self._waits), 0.0) / GROUP_COMMIT_S, MOST_GROWTH)

    def waits_for(self) -> float:
        """Seconds since the group that is being written was given to the writer; 0 when there is none."""
        return time.monotonic() - self._since if self._in_flight else 0.0

    async def wait_idle(self) -> None:
        """Return when everything taken is answered, or the log has failed."""
        while (self._waiting or self._in_flight) and not self._failed:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)

    def _start_soon(self) -> None:
        """Start the next group in the next turn of the loop: what has come meanwhile is read by then and goes with it."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start_scheduled)

    def _start_scheduled(self) -> None:
        self._scheduled = False
        if not self._in_flight:
            self._start()

    def _start(self) -> None:
        if not self._waiting or self._failed:
            self._tell_idle()
            return
        batch, size = self._take()
        group = self._log.prepare(batch)
        self._in_flight = True
        self._since = time.monotonic()
        self._writer.submit(
            lambda: self._commit(group), lambda seconds, error: self._committed(group, batch, size, seconds, error)
        )

    def _commit(self, group: Group) -> float:
        """In the writer thread; how long it took."""
        started = time.monotonic()
        self._log.commit(group)
        return time.monotonic() - started

    def _take(self) -> tuple[list[AnyEntries], int]:
        # Publishes in a row stay together: the last ones may go beyond it.
        waiting = self._waiting
        most_messages, most_bytes = GROUP_MESSAGES * self._growth, GROUP_BYTES * self._growth
        batch: list[AnyEntries] = []
        count = size = 0
        while waiting and count < most_messages and size < most_bytes:
            entries = waiting.popleft()
            count += len(entries.payloads)
            size += entries.size
            batch.append(entries)
        return batch, size

    def _committed(
        self, group: Group, batch: Sequence[AnyEntries], size: int, seconds: float, error: BaseException | None
    ) -> None:
        self._in_flight = False
        self.bytes -= size
        if error is None:
            self._waits.append(seconds - size / GROUP_BYTES * GROUP_COMMIT_S)
            self._log.finish(group)
            if self.refusal is not None:
                logger.info("the log takes messages again")
                self.refusal = None
            try:
                if self.bytes >= GROUP_BYTES * self._growth:
                    # First of all the next group to the disk: it is written while this one is answered and delivered,
                    # which takes as long, with many subscribers.
                    self._start()
                else:
                    # A group by itself costs as much as 8 messages of 25 KB: what the sockets hold by now goes with it.
                    self._start_soon()
            finally:
                self._on_written(group, batch)
            return
        if isinstance(error, BrokerError) and not isinstance(error, LogFailed):
            self._log.abort(group)
            if self.refusal is None or self.refusal.code != error.code:
                logger.error("publishes are refused: %s", error)
            self.refusal = error
            self._on_refused(batch, error)
        else:
            self._failed = True
            self._tell_idle()
            self._on_failed(error)
            return
        self._start()

    def _tell_idle(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self._idle = None
