"""The collector: subscribe -> decode -> check -> write -> note in the inventory -> commit.

Three flushes are in hand at most, so that neither the store nor a core waits: one is received and decoded, one is written, and one is
noted and committed.

The promise: an offset is committed only when the readings of all messages up to it are in the store and in the inventory.
Writes are idempotent, so a collector that is killed at any moment loses nothing and stores nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from django.db import connections

from broker.backoff import backoff
from broker.client.address import BrokerAddress
from broker.client.client import BrokerClient, Gap, LastMessage, Message
from broker.errors import BrokerError, OffsetOutOfRange, SubscriberInUse
from ingest.collector import forgetting
from ingest.collector.attempts import Attempts
from ingest.collector.decode import BatchDecoder, Pending
from ingest.collector.inventory_sync import RETRIABLE, InventoryWriter, load_known
from ingest.collector.letters import StoreLetters
from ingest.collector.limits import IntakeLimits, LimitsConfig
from ingest.collector.retention import Retention
from ingest.dead_letters import DeadLetters
from ingest.errors import BrokerRefusal, IngestError, StoreRefusal
from ingest.rollups.service import CollectorRollups, RollupSettings
from readings.checks import COUNTER_RESET, STORE_REFUSED, Kinds
from stores.base import Store, StoreError, WriteResult
from telemetry_site.concurrency import drain_deadline, first_of, pause
from telemetry_site.outage import Outage, one_line
from telemetry_site.watchdog import Watchdog

logger = logging.getLogger(__name__)

COMMIT_SECONDS = 1.0
# What was read is written as soon as nothing more has come for so long. Flushes that are not full take no more than this part of the time.
QUIET_SECONDS = 0.25
MOST_WRITING = 0.02
DRAIN_SECONDS = 7.0
ID_IN_USE_SECONDS = 60.0
LAG_SECONDS = 2.0
# A call to the store or database that has neither succeeded nor failed by then is stuck.
STUCK_SECONDS = 300.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectConfig:
    """A collector's settings. Durations in seconds; a retention of 0 keeps for ever; ``start_offset`` as in subscribe.

    ``rollups``: None where nobody needs to know which windows were touched.
    """

    collector_id: str
    broker: BrokerAddress
    state_dir: Path
    start_offset: int | None = None
    flush_interval: float = 10.0
    retention: float = 0.0
    placement_retention: float = 0.0
    gpu_retention: float = 0.0
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    rollups: RollupSettings | None = None


@dataclass(slots=True)
class CollectTotals:
    """Totals of this process. Times in seconds; ``committed_at`` is Unix time, 0 before the first commit."""

    messages: int = 0
    stored: int = 0
    refused_by: Counter[str] = field(default_factory=Counter)
    flushes: int = 0
    flush_seconds: float = 0.0
    last_flush_seconds: float = 0.0
    log_restores: int = 0
    committed_at: float = 0.0

    @property
    def refused(self) -> int:
        """Readings and messages that were refused, for any reason."""
        return Kinds.of(self.refused_by).refused.total()


class _WrittenFlush(NamedTuple):
    """A flush that the store has taken, what it said, and the seconds that it needed."""

    pending: Pending
    result: WriteResult
    seconds: float


class Collector:
    """Reads the log into one store. Call ``run``, or its steps: ``poll_once``, ``flush``, ``commit`` and finally ``close``."""

    def __init__(self, config: CollectConfig, store: Store, stop: asyncio.Event | None = None) -> None:
        self.totals = CollectTotals()
        self.committed = -1
        self.watch = Watchdog()
        self.rollups = CollectorRollups(store, config.rollups)
        self._config = config
        self._store = store
        self._stop = stop or asyncio.Event()
        self._stopping: asyncio.Task[bool] | None = None
        # The two steps after decoding. Each waits for the one before it, of the same flush, and for itself, of the flush before.
        self._writing: asyncio.Task[None] | None = None
        self._noting: asyncio.Task[None] | None = None
        self._in_hand: deque[Pending] = deque()  # what is being written or noted
        confirmation = config.state_dir / f"collector-{config.collector_id}.apply-retention"
        self._retention = Retention(store, config.retention, confirmation)
        self._limits = IntakeLimits(config.limits)
        self._decoder = BatchDecoder(config.retention, self._limits)
        self._inventory = InventoryWriter(config.collector_id)
        self._attempts = Attempts(config.state_dir, config.collector_id)
        self._store_letters = StoreLetters()
        self._dead_letters = DeadLetters(config.state_dir, f"collector-{config.collector_id}")
        # One thread each: one connection each, and never two writes at once.
        self._store_thread = ThreadPoolExecutor(1, "collector-store")
        self._database_thread = ThreadPoolExecutor(1, "collector-database")
        self._client: BrokerClient | None = None
        self._receiving: asyncio.Task[list[Message | Gap]] | None = None
        self._received: deque[Message | Gap] = deque()
        self._next: int | None = None
        self._last = LastMessage()  # of the broker's log
        self._end: int | None = None
        self._written = -1
        self._last_commit = 0.0
        self._last_message = 0.0
        self._quiet_from = 0.0  # when what was read may be written before the interval is over
        self._oldest_uncommitted: float | None = None
        self._waits = backoff()
        self._closed = False
        self._in_use_since: float | None = None
        self._broker_outage = Outage(config.broker.partner)
        self._store_outage = Outage("the store")
        self._database_outage = Outage("the inventory's database")

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the broker."""
        return self._client is not None

    @property
    def trouble(self) -> list[str]:
        """One text for each partner (broker, store, database) that it waits for."""
        outages = (self._broker_outage, self._store_outage, self._database_outage)
        return [text for outage in outages for text in outage.trouble]

    @property
    def retention_waits(self) -> bool:
        """Whether nothing is dropped since this machine's clock and the readings disagree."""
        return self._retention.waiting

    @property
    def waiting_readings(self) -> int:
        """Readings that are not written yet."""
        return self._decoder.pending.readings + sum(each.readings for each in self._in_hand)

    @property
    def behind_s(self) -> float:
        """Seconds since the oldest uncommitted message was received."""
        oldest = self._oldest_uncommitted
        return 0.0 if oldest is None else time.monotonic() - oldest

    async def lag(self) -> int | None:
        """Uncommitted messages in the broker's log; None while the broker does not answer."""
        client = self._client
        if client is None:
            return None
        try:
            async with asyncio.timeout(LAG_SECONDS):
                stats = await client.stats()
        except (BrokerError, TimeoutError):
            return None
        return max(0, int(stats["latest_offset"]) - self.committed)

    async def run(self, *, once: bool = False) -> CollectTotals:
        """Collect until the stop event, or with ``once`` until the end that the log had at the start.

        Then write and commit the received messages within DRAIN_SECONDS. Raises BrokerRefusal or StoreRefusal.
        """
        config = self._config
        logger.info("collecting from %s as %s", config.broker, config.collector_id)
        try:
            ended = await first_of(
                self._work(once=once),
                self._retention.run(),
                forgetting.run(config.placement_retention, config.gpu_retention),
                self.rollups.run(),
                drain_deadline(self._stop, DRAIN_SECONDS),
            )
            if ended == 0:
                self._attempts.end_run()
            else:
                logger.warning("stopped before everything was written: the broker delivers uncommitted messages again")
        except (IngestError, StoreError):
            self._attempts.end_run()
            raise
        finally:
            await self.close()
        totals = self.totals
        logger.info(
            "stopped: %(messages)d messages, %(stored)d readings stored, %(refused)d refused, committed up to offset %(offset)d",
            {"messages": totals.messages, "stored": totals.stored, "refused": totals.refused, "offset": self.committed},
        )
        return totals

    async def _work(self, *, once: bool) -> None:
        await self._wait_for_store()
        await first_of(self._retention.looked.wait(), self._stop.wait())
        await first_of(self._in_database(self.rollups.prepare), self._stop.wait())
        while not self._stop.is_set():
            if self._limits.is_due:
                await self._load_limits()
            await self.poll_once()
            await self._take_results()
            self._begin_steps()
            if self._attempts.careful:
                await self._end_writing()
            if once and self._end is not None and self._next is not None and self._next >= self._end:
                break
        await self._end_writing()
        await self.flush()
        await self.commit()
        await self._in_database(self._inventory.save_last_seen)

    def _begin_steps(self) -> None:
        """Start what is due and has nothing to wait for, beside the receiving of the next messages."""
        careful = self._attempts.careful
        if self._writing is None and (self._flush_due() <= 0 or careful):
            self._writing = asyncio.create_task(self._write_one(careful=careful), name="write")
        if self._noting is None and self._commit_due() <= 0:
            self._noting = asyncio.create_task(self.commit(), name="commit")

    async def _write_one(self, *, careful: bool) -> None:
        began, full = time.monotonic(), self._decoder.full
        written = await self._write_pending()
        await self._end_noting()
        self._noting = asyncio.create_task(self._note_one(written, began, careful=careful, full=full), name="note")

    async def _note_one(self, written: _WrittenFlush | None, began: float, *, careful: bool, full: bool) -> None:
        if written is not None:
            await self._note(written)
        if self._commit_due() <= 0 or (careful and self._written > self.committed):
            await self.commit()
        ended = time.monotonic()
        self._quiet_from = ended if full else ended + (ended - began) / MOST_WRITING

    async def _take_results(self) -> None:
        """Let go of the steps that have ended. Raises what stopped them."""
        if self._writing is not None and self._writing.done():
            await self._writing
            self._writing = None
        if self._noting is not None and self._noting.done():
            await self._end_noting()

    async def _end_noting(self) -> None:
        while (noting := self._noting) is not None:
            await noting
            if self._noting is noting:  # meanwhile another may have begun
                self._noting = None

    async def _end_writing(self) -> None:
        """Wait until all that was begun is written and noted. Raises what stopped it."""
        if self._writing is not None:
            await self._writing
            self._writing = None
        await self._end_noting()

    async def _wait_for_store(self) -> None:
        """Wait for a store that is away, before anything is read. Raises StoreRefusal for one that refuses readings for good."""
        await first_of(self._in_store(self._store.ping), self._stop.wait())

    async def _load_limits(self) -> None:
        """Tell the limits what is known, waiting for store and database."""

        async def load() -> None:
            metrics = await self._in_store(self._store.metric_names)
            known = await self._in_database(lambda: load_known(metrics))
            self._limits.load(known)

        await first_of(load(), self._stop.wait())

    async def close(self) -> None:
        """Disconnect, and close the threads' connections. The broker delivers uncommitted messages again."""
        await self._disconnect()
        for task in (self._stopping, self._writing, self._noting):
            if task is not None:
                task.cancel()
        await self.rollups.close()
        if not self._closed:
            self._closed = True
            for thread in (self._store_thread, self._database_thread):
                thread.submit(connections.close_all)
                thread.shutdown(wait=False)

    # Receiving.

    async def poll_once(self, wait: float = COMMIT_SECONDS) -> int:
        """Decode the messages that have arrived. Waits for ``wait`` seconds at most, less if a flush or commit is due before.

        Connects first if need be. Returns the number of messages.
        """
        if not _is_running(self._noting):
            wait = max(0.0, min(wait, self._commit_due()))
        if not _is_running(self._writing):
            wait = max(0.0, min(wait, self._flush_due()))
        elif self._decoder.full:
            await self._wait_for(None, wait)
            return 0
        try:
            client = self._client or await self._connect()
            if not self._received:
                self._received.extend(await self._receive(client, wait))
            return self._take()
        except BrokerError as error:
            await self._disconnect()
            if not error.retriable:
                raise BrokerRefusal(
                    f"{self._broker_outage.partner} refuses this collector: {one_line(error)}"
                ) from error
            self._broker_outage.begin(error)
            self._check_id_in_use(error)
            await pause(self._stop, min(next(self._waits), max(wait, 0.05)))
            return 0

    async def _connect(self) -> BrokerClient:
        config = self._config
        client = await config.broker.connect(config.collector_id)
        try:
            first = await self._subscribe(client)
        except BaseException:
            await client.close()
            raise
        self._client = client
        if self._next is None:
            logger.info(
                "subscribed as %(collector_id)s, reading from offset %(offset)d",
                {"collector_id": config.collector_id, "offset": first},
            )
            if config.start_offset is None:
                self.committed = first - 1
            self._attempts.begin_run(first)
        self._next = first
        if self._end is None:
            self._end = client.welcome.next
        self._broker_outage.end()
        self._in_use_since = None
        self._waits = backoff()
        return client

    async def _subscribe(self, client: BrokerClient) -> int:
        config = self._config
        # START_OFFSET is for the first time only. Received messages are still in memory: go on after them.
        offset = config.start_offset if self._next is None else self._next
        try:
            resumed = await client.resume(config.collector_id, offset, self._last)
        except OffsetOutOfRange as error:
            if self._next is None:
                raise BrokerRefusal(f"START_OFFSET (--start-offset): {one_line(error)}") from error
            resumed = (await client.resume(config.collector_id, None, LastMessage()))._replace(restored=True)
        self._last = resumed.last
        if resumed.restored:
            logger.warning(
                "%(partner)s has another log than before (restored from a copy, or new): reading it from offset %(offset)d",
                {"partner": config.broker.partner, "offset": resumed.offset},
            )
            self.totals.log_restores += 1
            # The old log's offsets mean nothing in this one. Its readings are written all the same.
            self._written = self.committed = resumed.offset - 1
            self._decoder.forget_offsets()
            for pending in self._in_hand:
                pending.last_offset = -1
        return resumed.offset

    def _check_id_in_use(self, error: BrokerError) -> None:
        """Raise BrokerRefusal when the id stays in use: the broker drops a dead collector within a minute."""
        if not isinstance(error, SubscriberInUse):
            self._in_use_since = None
            return
        now = time.monotonic()
        if self._in_use_since is None:
            self._in_use_since = now
        elif now - self._in_use_since >= ID_IN_USE_SECONDS:
            raise BrokerRefusal(
                f"COLLECTOR_ID (--collector-id): another collector is connected as {self._config.collector_id!r}: "
                "give each its own id"
            ) from error

    async def _receive(self, client: BrokerClient, wait: float) -> list[Message | Gap]:
        """Messages that have arrived; none when the time is over or the stop event is set. No message is lost between calls."""
        if self._receiving is None:
            self._receiving = asyncio.create_task(client.receive(), name="receive")
        await self._wait_for(self._receiving, wait)
        if not self._receiving.done():
            return []
        received, self._receiving = self._receiving, None
        self._last_message = time.monotonic()
        return received.result()

    async def _wait_for(self, receiving: asyncio.Task[list[Message | Gap]] | None, seconds: float) -> None:
        """Wait for messages, the end of a step that is running, or the stop event."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop.wait(), name="wait for stop")
        running = [task for task in (self._writing, self._noting) if _is_running(task)]
        tasks: set[asyncio.Task[Any]] = {task for task in (receiving, *running, self._stopping) if task is not None}
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def _take(self) -> int:
        """Decode what was received, up to what one flush may hold; returns the number of messages."""
        messages = 0
        if self._received and self._oldest_uncommitted is None:
            self._oldest_uncommitted = time.monotonic()
        most = 1 if self._attempts.careful else len(self._received)
        while self._received and messages < most and not self._decoder.full:
            item = self._received.popleft()
            if isinstance(item, Gap):
                self._decoder.take_gap(item)
                self._next = item.last + 1
                continue
            if self._attempts.is_hopeless(item):
                self._decoder.give_up(item)
            else:
                self._decoder.age_is_unsure = self._retention.waiting
                self._decoder.take(item)
            self._next = item.offset + 1
            self._last = LastMessage(self._last.log, item.offset, item.c32)
            messages += 1
        return messages

    async def _disconnect(self) -> None:
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        self._received.clear()  # delivered again after the next subscribe
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # Writing.

    def _flush_due(self) -> float:
        """Seconds until a flush is due; 0 or less: now."""
        pending = self._decoder.pending
        if not pending:
            return self._config.flush_interval
        if self._decoder.full:
            return 0.0
        quiet = max(self._last_message + QUIET_SECONDS, self._quiet_from)
        return min(pending.since + self._config.flush_interval, quiet) - time.monotonic()

    async def flush(self) -> int:
        """Write the pending readings to the store; returns how many it took. Waits for a store that is away.

        Raises StoreRefusal when the store refuses them for good.
        """
        written = await self._write_pending()
        if written is None:
            return 0
        await self._note(written)
        return written.result.written

    async def _write_pending(self) -> _WrittenFlush | None:
        pending = self._decoder.drain()
        if not pending:
            return None
        self._in_hand.append(pending)
        return await self._in_store(lambda: self._write(pending))

    def _write(self, pending: Pending) -> _WrittenFlush:
        began = time.monotonic()
        result = self._store.write(pending.blocks)
        return _WrittenFlush(pending, result, time.monotonic() - began)

    async def _note(self, written: _WrittenFlush) -> None:
        """Count and log what the store accepted, and note it for the inventory and the roll-ups."""
        await self._in_database(lambda: self._see(written))
        pending, result, seconds = written
        self._in_hand.popleft()
        self._written = max(self._written, pending.last_offset)
        self.totals.messages += pending.messages
        self.totals.stored += result.written
        self.totals.flushes += 1
        self.totals.flush_seconds += seconds
        self.totals.last_flush_seconds = seconds
        self.totals.refused_by.update(pending.refused)
        logger.debug(
            "wrote %d readings of %d messages up to offset %d", result.written, pending.messages, self._written
        )

    def _see(self, written: _WrittenFlush) -> None:
        pending, result, _ = written
        if result.refused:
            pending.refused[STORE_REFUSED] += len(result.refused)
            pending.letters += self._store_letters.refuse_stored(result.refused, time.time_ns())
        self._dead_letters.write(pending.letters)
        self.rollups.see(pending.blocks, result.refused)
        self._inventory.see(pending.blocks, pending.origins)
        self._inventory.count(messages=pending.messages, stored=result.written, refused=pending.refused)

    # Committing.

    def _commit_due(self) -> float:
        """Seconds until a commit is due; 0 or less: now; infinite when there is nothing to commit."""
        if not self._inventory and (self._client is None or self._written <= self.committed):
            return float("inf")
        if not self._decoder.pending and not self._in_hand:
            return 0.0  # nothing follows
        return self._last_commit + COMMIT_SECONDS - time.monotonic()

    async def commit(self) -> None:
        """Save the inventory, commit the written messages at the broker, then save the counters."""
        written, client, log = self._written, self._client, self.totals.log_restores
        resets = await self._in_database(self._save)
        if resets:
            self.totals.refused_by[COUNTER_RESET] += resets
        # Meanwhile there may be another connection, and another log.
        if (
            client is not None
            and client is self._client
            and log == self.totals.log_restores
            and written > self.committed
        ):
            try:
                await client.ack(written)
                self.committed = written
                self.totals.committed_at = time.time()
                self._attempts.committed()
                self._oldest_uncommitted = self._decoder.pending.since if self._decoder.pending else None
            except BrokerError as error:
                # The messages are stored: at worst they are delivered again. Whoever receives finds the connection closed.
                await client.close()
                if not error.retriable:
                    raise BrokerRefusal(f"{self._broker_outage.partner} refuses a commit: {one_line(error)}") from error
                self._broker_outage.begin(error)
        await self._in_database(lambda: self._inventory.save_counts(self.committed))
        self._last_commit = time.monotonic()

    def _save(self) -> int:
        """What must be in the database before the offset is committed."""
        self.rollups.save()
        return self._inventory.save_inventory()

    # Store and database, each in its thread.

    async def _in_store(self, call: Callable[[], T]) -> T:
        return await self._until_done(call, self._store_outage, self._store_thread)

    async def _in_database(self, call: Callable[[], T]) -> T:
        return await self._until_done(call, self._database_outage, self._database_thread)

    async def _until_done(self, call: Callable[[], T], outage: Outage, thread: ThreadPoolExecutor) -> T:
        """Call ``call`` in the thread, again and again while its partner is away."""
        for seconds in backoff():
            asked_for = 0.0
            try:
                with self.watch.doing(f"a call to {outage.partner}", STUCK_SECONDS):
                    result = await asyncio.get_running_loop().run_in_executor(thread, call)
            except StoreError as error:
                if not error.retriable:
                    raise StoreRefusal(f"{outage.partner} does not take readings: {one_line(error)}") from error
                asked_for = getattr(error, "retry_after", None) or 0.0
                outage.begin(error)
                self._attempts.forgive()
            except RETRIABLE as error:
                outage.begin(error)
                self._attempts.forgive()
            else:
                outage.end()
                return result
            await asyncio.sleep(max(seconds, asked_for))
        raise AssertionError("backoff has no end")


def _is_running(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()
