"""The watch: lease -> subscribe -> judge -> commit.

The promise: what was judged, the events that came of it, their notices, the usage and the offset are written in one transaction, by the
holder of the lease alone. So a kill at any moment loses no event and opens none twice: the next one goes on from that offset.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections, connections, transaction
from django.utils import timezone

from broker.backoff import backoff
from broker.client.address import BrokerAddress
from broker.client.client import BrokerClient, Gap, LastMessage, Message
from broker.errors import BrokerError, OffsetOutOfRange, SubscriberInUse
from health.engine.engine import Engine, EngineStateError
from health.engine.events import Entity, Key, Touch, Transition
from health.engine.facts import Facts
from health.engine.intake import MOST_GPUS
from health.expiry import forget_old_events
from health.models import Event, EventTransition, Resolution, WatchState
from health.rules.model import Rules
from health.usage.meter import UsageMeter
from health.watch.errors import LeaseLost, StartOver, WatchError
from health.watch.facts import load_facts
from health.watch.gathering import WINDOW_MS, GatheredBlock, Gathering, Moment
from health.watch.recording import record
from inventory.leases import RENEW_SECONDS, Lease, make_holder
from readings.batch import BatchError, DecodedBatch, decode
from readings.times import SECOND
from telemetry_site.concurrency import drain_deadline, first_of, pause
from telemetry_site.outage import Outage, one_line
from telemetry_site.watchdog import Watchdog

logger = logging.getLogger(__name__)

COMMIT_SECONDS = 10.0
# With something to tell: as soon as this long after the commit before.
TELL_SECONDS = 1.0
# A commit takes at most this share of the time.
COMMIT_SHARE = 0.05
LEASE_WAIT_SECONDS = 3.0
FACTS_SECONDS = 60.0
EXPIRY_SECONDS = 3600.0
# Once a day GPUs that were not heard of for a month are forgotten.
FORGET_SECONDS, FORGET_NS = 86_400.0, 30 * 86_400 * SECOND
# Without a message for so long the log has been read to its end, and the clock goes on alone.
IDLE_SECONDS = 2.0
# Without a commit for so long it does not count as judging.
JUDGING_SECONDS = 60.0
# Without a message for so long a moment is over: the broker's clock has gone on too.
GATHER_SECONDS = 2 * WINDOW_MS / 1000
DRAIN_SECONDS = 7.0
ID_IN_USE_SECONDS = 60.0
GIVE_BACK_SECONDS = 1.0
STUCK_SECONDS = 300.0
LAG_SECONDS = 2.0
# Judged in one go, before anybody else gets a turn.
_MOST_BYTES = 2 << 20
_MOST_MESSAGES = 500
WATCH_LEASE = Lease(WatchState, "pk", 1)
# The database is away or locked: retrying may succeed.
RETRIABLE = (OperationalError, InterfaceError)

T = TypeVar("T")
# Writes the notices of the steps of events, inside the transaction that writes these.
Post = Callable[[list[tuple[Event, EventTransition]]], None]
# Merges the hours that are over into the tables of usage, inside the same transaction.
SaveUsage = Callable[[UsageMeter], object]
# Runs beside it until it is cancelled; it is given the stop event, and what says whether it judges.
Beside = Callable[[asyncio.Event, Callable[[], bool]], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """A watch's settings. ``beside`` runs while it holds the lease: the notifier, the heartbeat."""

    watch_id: str
    broker: BrokerAddress
    rules: Rules
    make_meter: Callable[[bytes], UsageMeter]
    post: Post
    save_usage: SaveUsage
    beside: tuple[Beside, ...] = ()
    commit_seconds: float = COMMIT_SECONDS
    most_gpus: int = MOST_GPUS


@dataclass(slots=True)
class WatchTotals:
    """Totals of this process. ``unjudged`` counts points that the engine failed on. ``committed_at`` is Unix time, 0 before the first commit."""

    messages: int = 0
    unread: int = 0
    lost: int = 0
    unjudged: int = 0
    transitions: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    committed_at: float = 0.0
    log_restores: int = 0


class Watcher:
    """Judges the log. Call ``run``."""

    def __init__(self, config: WatchConfig, stop: asyncio.Event | None = None) -> None:
        self.totals = WatchTotals()
        self.watch = Watchdog()
        self.holder = make_holder()
        self.holds_lease = False
        self.engine = Engine(config.rules)
        self.committed = -1
        self._config = config
        self._stop = stop or asyncio.Event()
        self._meter = config.make_meter(b"")
        # One thread judges and writes: one connection to the database, and never two at once.
        self._worker = ThreadPoolExecutor(1, "watch")
        # And one renews the lease meanwhile, so that nobody takes over because judging takes long, to judge the same as long.
        self._renewer = ThreadPoolExecutor(1, "lease")
        self._is_committing = False
        self._client: BrokerClient | None = None
        self._receiving: asyncio.Task[list[Message | Gap]] | None = None
        self._received: deque[Message | Gap] = deque()
        self._gathering = Gathering()
        self._transitions: list[Transition] = []
        self._touches: list[Touch] = []
        self._last = LastMessage()
        self._end: int | None = None
        self._judged = -1
        self._heard, self._heard_ns = time.monotonic(), 0
        self._last_commit = 0.0
        self._commit_took = 0.0
        self._looked_at_facts = 0.0
        self._expired = 0.0
        self._forgot = time.monotonic()
        self._waits = backoff()
        self._in_use_since: float | None = None
        self._said_waiting = ""
        self._broker_outage = Outage(config.broker.partner)
        self._database_outage = Outage("the database")

    @property
    def trouble(self) -> list[str]:
        """One text for each partner (broker, database) that it waits for."""
        return self._broker_outage.trouble + self._database_outage.trouble

    def is_judging(self) -> bool:
        """Whether it has the lease, reaches broker and database, and has committed lately. From any thread."""
        recent = time.time() - self.totals.committed_at < JUDGING_SECONDS
        return self.holds_lease and recent and not self.trouble

    @property
    def judged_offset(self) -> int:
        """The last message that was judged; -1 for none."""
        return self._judged

    async def lag(self) -> int | None:
        """Messages in the broker's log that are not committed; None while it does not answer."""
        client = self._client
        if client is None:
            return None
        try:
            async with asyncio.timeout(LAG_SECONDS):
                stats = await client.stats()
        except (BrokerError, TimeoutError):
            return None
        return max(0, int(stats["latest_offset"]) - self.committed)

    async def run(self, *, once: bool = False) -> WatchTotals:
        """Judge until the stop event, or with ``once`` until the end that the log had at the start. Raises WatchError."""
        try:
            while not self._stop.is_set():
                if not await self._acquire():
                    break
                try:
                    ended = await first_of(
                        self._work(once=once),
                        self._keep_lease(),
                        *(each(self._stop, self.is_judging) for each in self._config.beside),
                        drain_deadline(self._stop, DRAIN_SECONDS),
                    )
                except LeaseLost:
                    logger.warning("another watch has taken over: this one waits until that one ends")
                    await self._let_go()
                    continue
                except StartOver:
                    await self._let_go()
                    continue
                if ended:
                    logger.warning("stopped before everything was written: the rest is judged again")
                break
        finally:
            await self._close()
        totals = self.totals
        logger.info(
            "stopped: %(messages)d messages judged, %(opened)d events opened, %(closed)d closed, up to offset %(offset)d",
            {
                "messages": totals.messages,
                "opened": totals.transitions["opened"],
                "closed": totals.transitions["closed"],
                "offset": self.committed,
            },
        )
        return totals

    async def _work(self, *, once: bool) -> None:
        while not self._stop.is_set():
            await self._poll()
            if self._commit_due() <= 0:
                await self._commit()
            if once and self._end is not None and self._judged + 1 >= self._end:
                break
        await self._commit()

    # The lease.

    async def _acquire(self) -> bool:
        """Wait for the lease, and load the state under it. Returns whether it has it: else the stop event is set."""
        while not self._stop.is_set():
            if await self._until_done(lambda: WATCH_LEASE.take(self.holder)):
                await self._until_done(self._load)
                self.holds_lease = True
                self._said_waiting = ""
                return True
            other = await self._until_done(WATCH_LEASE.holder)
            if other != self._said_waiting:
                self._said_waiting = other
                logger.info(
                    "waiting: the watch on %s judges, and this one takes over when it ends", other.partition(":")[0]
                )
            await pause(self._stop, LEASE_WAIT_SECONDS)
        return False

    async def _let_go(self) -> None:
        """Forget what was judged and not written: it is delivered and judged again."""
        self.holds_lease = False
        self._transitions, self._touches = [], []
        await self._disconnect()

    def _load(self) -> None:
        """In the worker thread: go on from what the database has."""
        close_old_connections()
        state = WatchState.objects.get(pk=1)
        facts = load_facts()
        self._looked_at_facts = time.monotonic()
        self.engine = Engine(self._config.rules, facts, self._meter.WANTED, most_gpus=self._config.most_gpus)
        if state.engine:
            try:
                self.engine = self._loaded(bytes(state.engine), facts)
            except EngineStateError as error:
                logger.error("judging begins anew: %s", one_line(error))
        self._meter = self._config.make_meter(bytes(state.usage))
        self._last = LastMessage(state.log, state.offset, state.c32)
        self._judged = self.committed = state.offset
        self._transitions, self._touches = [], []
        logger.info(
            "judging as %(watch_id)s with %(rules)d rules, from offset %(offset)d",
            {
                "watch_id": self._config.watch_id,
                "rules": sum(rule.enabled for rule in self._config.rules.values()),
                "offset": state.offset + 1,
            },
        )

    def _loaded(self, state: bytes, facts: Facts) -> Engine:
        self._forgot = time.monotonic()
        config = self._config
        wanted = self._meter.WANTED
        return Engine.load(state, config.rules, facts, wanted, most_gpus=config.most_gpus, forget_ns=FORGET_NS)

    # Receiving and judging.

    async def _poll(self) -> None:
        """Judge what has arrived; without anything for a while let the clock go on alone."""
        wait = max(0.0, min(GATHER_SECONDS if self._gathering else TELL_SECONDS, self._commit_due()))
        try:
            client = self._client or await self._connect()
            if not self._received:
                self._received.extend(await self._receive(client, wait))
        except BrokerError as error:
            await self._disconnect()
            if not error.retriable:
                raise WatchError(f"{self._broker_outage.partner} refuses this watch: {one_line(error)}") from error
            self._broker_outage.begin(error)
            self._check_id_in_use(error)
            await pause(self._stop, min(next(self._waits), 1.0))
            return
        idle = time.monotonic() - self._heard
        if self._received:
            await self._in_worker(self._judge)
            self._hear()
        elif self._gathering and idle >= GATHER_SECONDS:
            await self._in_worker(self._finish_moment)
            self._heard_ns = self.engine.now_ns
        elif idle >= IDLE_SECONDS and self._heard_ns:
            await self._in_worker(lambda: self._tick(self._heard_ns + int(idle * SECOND)))

    def _judge(self) -> None:
        """In the worker thread: judge as much of what was received as fits into one go."""
        taken = size = 0
        while self._received and taken < _MOST_MESSAGES and size < _MOST_BYTES:
            item = self._received.popleft()
            if isinstance(item, Gap):
                self._see_gap(item)
                continue
            taken += 1
            size += len(item.payload)
            self.totals.messages += 1
            self._judge_moment(self._gathering.add(self._read(item), item.offset, item.c32, item.timestamp_ms))
        self._gather()

    def _read(self, message: Message) -> DecodedBatch | None:
        try:
            return decode(message.payload, now_ns=message.timestamp_ms * (SECOND // 1000))
        except BatchError as error:  # collectors keep it as a dead letter
            self.totals.unread += 1
            logger.debug("message %d is no batch: %s", message.offset, error)
            return None

    def _judge_moment(self, moment: Moment | None) -> None:
        if moment is None:
            return
        for each in moment.blocks:
            try:
                self._judge_block(each)
            except Exception:  # a fault of ours: judging the same again at each start would stop all judging
                self.totals.unjudged += len(each.block.points)
                logger.exception("%d points up to message %d cannot be judged", len(each.block.points), moment.offset)
        self._judged = moment.offset
        self._last = LastMessage(self._last.log, moment.offset, moment.c32)

    def _judge_block(self, block: GatheredBlock) -> None:
        arrivals = self.engine.take(block.block, source=block.source, live=block.live, received_ns=block.received_ns)
        if arrivals is not None:
            self._meter.take(arrivals, self.engine.registry)

    def _see_gap(self, gap: Gap) -> None:
        self._judge_moment(self._gathering.take())
        count = gap.last - gap.first + 1
        self.totals.lost += count
        self._judged = gap.last
        logger.warning(
            "messages %(first)d to %(last)d are no longer in the broker's log (%(reason)s): they are not judged",
            {"first": gap.first, "last": gap.last, "reason": gap.reason},
        )

    def _hear(self) -> None:
        """While idle the clock goes on from here: that of the broker, whatever this machine's clock says, without what was an outage."""
        self._heard, self._heard_ns = time.monotonic(), self.engine.now_ns

    def _finish_moment(self) -> None:
        """In the worker thread: nothing more comes of this moment."""
        self._judge_moment(self._gathering.take())
        self._gather()

    def _tick(self, now_ns: int) -> None:
        self.engine.tick(now_ns)
        self._gather()

    def _gather(self) -> None:
        said = self.engine.drain()
        for each in said:
            self.totals.transitions[each.change.value] += 1
        self._transitions += said

    async def _connect(self) -> BrokerClient:
        config = self._config
        client = await config.broker.connect(config.watch_id)
        try:
            await self._subscribe(client)
        except BaseException:
            await client.close()
            raise
        self._client = client
        if self._end is None:
            self._end = client.welcome.next
        self._broker_outage.end()
        self._in_use_since = None
        self._waits = backoff()
        self._hear()
        return client

    async def _subscribe(self, client: BrokerClient) -> None:
        """Go on after the last message that was judged; with nothing judged at the log's start."""
        first = self._judged + 1 if self._last.log else None
        try:
            resumed = await client.resume(self._config.watch_id, first, self._last)
        except OffsetOutOfRange:
            resumed = (await client.resume(self._config.watch_id, None, LastMessage()))._replace(restored=True)
        if resumed.restored:
            logger.warning(
                "%(partner)s has another log than before (restored from a copy, or new): it is judged from offset %(offset)d",
                {"partner": self._config.broker.partner, "offset": resumed.offset},
            )
            self.totals.log_restores += 1
        if resumed.restored or not self._last.log:
            self._judged = resumed.offset - 1
            self.committed = min(self.committed, self._judged)
        self._last = resumed.last

    def _check_id_in_use(self, error: BrokerError) -> None:
        if not isinstance(error, SubscriberInUse):
            self._in_use_since = None
            return
        now = time.monotonic()
        if self._in_use_since is None:
            self._in_use_since = now
        elif now - self._in_use_since >= ID_IN_USE_SECONDS:
            raise WatchError(
                f"WATCH_ID (--watch-id): another subscriber is connected as {self._config.watch_id!r}: give each its own id"
            ) from error

    async def _receive(self, client: BrokerClient, wait: float) -> list[Message | Gap]:
        """Messages that have arrived; none when the time is over. No message is lost between calls."""
        if self._receiving is None:
            self._receiving = asyncio.create_task(client.receive(), name="receive")
        stopping = asyncio.create_task(self._stop.wait(), name="wait for stop")
        try:
            await asyncio.wait({self._receiving, stopping}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not self._receiving.done():
            return []
        received, self._receiving = self._receiving, None
        return received.result()

    async def _disconnect(self) -> None:
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        self._received.clear()  # delivered again
        self._gathering.clear()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # Committing.

    def _commit_due(self) -> float:
        """Seconds until a commit is due; 0 or less: now."""
        rest = self._commit_took / COMMIT_SHARE
        wait = max(TELL_SECONDS, rest) if self._transitions else max(self._config.commit_seconds, rest)
        return self._last_commit + wait - time.monotonic()

    async def _commit(self) -> None:
        """Write everything in one transaction, then let the broker know. Raises LeaseLost."""
        began = time.monotonic()
        self._touches += self.engine.touched()
        self._is_committing = True
        try:
            with self.watch.doing("a commit", STUCK_SECONDS):
                await self._in_worker(self._write)
        except RETRIABLE as error:
            self._database_outage.begin(error)
            raise StartOver from error
        except DatabaseError as error:
            raise WatchError(f"the database refuses what was judged: {one_line(error)}") from error
        finally:
            self._is_committing = False
        self._transitions, self._touches = [], []
        self._last_commit = time.monotonic()
        self._commit_took = self._last_commit - began
        self.totals.commits += 1
        self.totals.committed_at = time.time()
        if self._client is None or self._judged <= self.committed:
            return
        judged = self._judged
        try:
            await self._client.ack(judged)
            self.committed = judged
        except BrokerError as error:  # it only reports how far this watch is
            await self._disconnect()
            self._broker_outage.begin(error)

    def _write(self) -> None:
        """In the worker thread: the transaction. Raises LeaseLost, DatabaseError: then all is loaded anew before it goes on."""
        close_old_connections()
        now = time.monotonic()
        with transaction.atomic():
            if not WATCH_LEASE.renew(self.holder):
                raise LeaseLost
            self._take_resolutions()
            if now - self._looked_at_facts >= FACTS_SECONDS:
                self.engine.facts = load_facts()
                self._looked_at_facts = now
            steps = record(self._transitions, self._touches, self._config.rules)
            if steps:
                self._config.post(steps)
            self._config.save_usage(self._meter)
            WatchState.objects.filter(pk=1, holder=self.holder).update(
                log=self._last.log,
                offset=self._judged,
                c32=self._last.c32 if self._last.offset == self._judged else "",
                judged=self.engine.judged,
                updated=timezone.now(),
                engine=self.engine.dump(),
                usage=self._meter.dump(),
            )
            WATCH_LEASE.renew(self.holder)  # what was written may have taken longer than a lease
        if now - self._forgot >= FORGET_SECONDS:
            self.engine = self._loaded(self.engine.dump(), self.engine.facts)
            self._meter = self._config.make_meter(self._meter.dump())  # it keeps rows of the engine's registry
        if now - self._expired >= EXPIRY_SECONDS:
            self._expired = now
            forget_old_events(timezone.now())

    def _take_resolutions(self) -> None:
        """What people closed: their rules begin anew."""
        rows = list(Resolution.objects.all()[:1000])
        for row in rows:
            self.engine.resolve(Key(row.rule, Entity(row.entity_kind, row.entity), row.subject))
        if rows:
            Resolution.objects.filter(pk__in=[row.pk for row in rows]).delete()

    async def _keep_lease(self) -> None:
        """Renew the lease until this is cancelled. A commit does so itself, at its beginning and its end. Raises LeaseLost."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._is_committing:
                continue
            try:
                with self.watch.doing("the renewal of the lease", STUCK_SECONDS):
                    is_ours = await asyncio.get_running_loop().run_in_executor(self._renewer, self._renew)
            except RETRIABLE as error:
                self._database_outage.begin(error)
            except DatabaseError as error:
                raise WatchError(f"the database refuses the renewal of the lease: {one_line(error)}") from error
            else:
                self._database_outage.end()
                if not is_ours:
                    raise LeaseLost

    def _renew(self) -> bool:
        close_old_connections()
        return WATCH_LEASE.renew(self.holder)

    async def _in_worker(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    async def _until_done(self, call: Callable[[], T]) -> T:
        """Call ``call`` in the worker thread, again and again while the database is away. Raises LeaseLost, DatabaseError."""
        for seconds in backoff():
            try:
                with self.watch.doing("a call to the database", STUCK_SECONDS):
                    result = await self._in_worker(call)
            except RETRIABLE as error:
                self._database_outage.begin(error)
            except DatabaseError as error:
                raise WatchError(f"the database refuses what was judged: {one_line(error)}") from error
            else:
                self._database_outage.end()
                return result
            await pause(self._stop, seconds)
            if self._stop.is_set():
                await asyncio.sleep(seconds)
        raise AssertionError("backoff has no end")

    async def _close(self) -> None:
        await self._disconnect()
        if self.holds_lease:
            self.holds_lease = False
            with suppress(TimeoutError):
                await asyncio.wait_for(self._in_worker(lambda: _give_back(self.holder)), GIVE_BACK_SECONDS)
        for threads in (self._worker, self._renewer):
            threads.submit(connections.close_all)
            threads.shutdown(wait=False)


def _give_back(holder: str) -> None:
    try:
        WATCH_LEASE.give_back(holder)
    except DatabaseError as error:
        logger.info("the lease could not be given back, and runs out by itself: %s", one_line(error))
