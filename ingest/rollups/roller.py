"""The roller: touched windows -> windows in the roll-ups' store -> touches settled.

The promise: a touch is deleted only when its window has been stored as raw was after the touch, by the holder of the lease, and only if
the window was not touched since. So a kill at any moment, a store that was away and readings that come late leave no wrong window for good.
A window is taken from memory only if it begins after all that was touched when this process began to remember, and that begins anew
whenever another process has written: the readings before a counter's may be other ones then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from django.db import DatabaseError, InterfaceError, connections, transaction

from ingest.rollups.due import TIERS, WaitingWindow, WaitingWindows, Window
from ingest.rollups.feed import RollupFeed
from ingest.rollups.making import WindowMaker
from inventory.leases import RENEW_SECONDS
from inventory.rollup_state import HOUR_NS, MINUTE_NS, advance, lease_of, open_state, read_state
from inventory.rollup_touches import MINUTES, WindowTouch, settle, touch, touches
from readings.times import SECOND, format_time
from stores.base import Store, StoreError
from stores.rollups.windows import STEP_NS, RollupStore, Tier, WindowTable
from telemetry_site.outage import one_line

logger = logging.getLogger(__name__)

# Without a reading all up to here is as good as rolled up.
IDLE_NS = 90 * SECOND
# Late windows are made for no longer than this at a stretch, so that recent ones do not wait.
LATE_SECONDS = 5.0
# Written at once: rows, and seconds of making them.
MOST_ROWS = 50_000
MOST_SECONDS = 3.0
REFUSED_SECONDS = 600.0
RETENTION_SECONDS = 3600.0
# Who touches a window only because the reading before a counter's first one has changed. Its later windows stay right.
PREDECESSOR = ""


class RollupLeaseLost(Exception):
    """Another process rolls up now, or the state was forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupConfig:
    """How long raw readings and each tier are kept, in seconds; 0: for ever."""

    raw_retention: float = 0.0
    minute_retention: float = 0.0
    hour_retention: float = 0.0

    def retention_of(self, tier: Tier) -> float:
        """A tier's."""
        return self.minute_retention if tier == "1m" else self.hour_retention

    def first_whole_ns(self, now_ns: int) -> int:
        """Windows that begin before may have lost raw readings, or a counter's reading before them."""
        if not self.raw_retention:
            return -(1 << 63)
        kept_ns = int(self.raw_retention * SECOND)
        return now_ns - kept_ns + min(HOUR_NS, kept_ns // 10)


@dataclass(slots=True)
class RollupTotals:
    """Totals of this process. ``outdated`` windows were touched when raw no longer had them whole."""

    windows: int = 0
    rows: int = 0
    outdated: int = 0
    refused: int = 0
    seconds: float = 0.0
    lag_seconds: float = 0.0
    made_at: float = 0.0


@dataclass(slots=True)
class _Unstored:
    """Windows that have been made and are not stored."""

    windows: list[WaitingWindow] = field(default_factory=list)
    tables: list[WindowTable] = field(default_factory=list)
    stale_ns: set[int] = field(default_factory=set)
    rows: int = 0
    since: float = 0.0


class Roller:
    """Rolls up one store. All methods are for one thread; each may raise StoreError and django.db.Error.

    Call ``acquire``; while that says yes, ``turn`` again and again; finally ``release``.
    """

    def __init__(
        self,
        raw: Store,
        rollups: RollupStore,
        feed: RollupFeed,
        config: RollupConfig,
        *,
        store: str,
        newest_ns: Callable[[], int | None],
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.totals = RollupTotals()
        self.maker = WindowMaker(raw)
        self.stopping = threading.Event()  # ends a turn after the window in hand
        self.holds_lease = False
        self.waiting = WaitingWindows()
        self._rollups = rollups
        self._feed = feed
        self._config = config
        self._store = store
        self._newest_written_ns = newest_ns
        self._lease = lease_of(store)
        self._now_ns = now_ns
        self._clock = clock
        self._ended = threading.Event()
        self._until_ns: dict[Tier, int] = {}
        self._newest_ns = 0
        self._newest_before_ns = 0  # as it was when this turn read the touches
        self._unread: set[Window] = set()  # in this turn
        self._foreign: set[WindowTouch] = set()  # of minutes, by other processes
        self._refused: dict[Window, float] = {}
        self._late_after = 0.0
        self._expired: float | None = None
        self._batch = _Unstored()

    # The lease.

    def acquire(self) -> bool:
        """Take the lease and load the state under it; returns whether this process has it."""
        if read_state(self._store) is None:
            open_state(self._store, self._newest_written_ns())
        if not self._lease.take(self._feed.writer):
            return False
        state, rows = read_state(self._store), touches(self._store)
        if state is None:
            return False
        self._until_ns = {"1m": state.minutes_until_ns, "1h": state.hours_until_ns}
        self._newest_ns = state.newest_ns
        self.waiting, self._batch = WaitingWindows(), _Unstored()
        self._foreign, self._refused = set(), {}
        self._remember_anew(rows)
        self.holds_lease, self._ended = True, threading.Event()
        threading.Thread(target=self._keep_lease, args=(self._ended,), name="roll-up lease", daemon=True).start()
        logger.info("rolling up")
        return True

    def release(self) -> None:
        """Let another process take over at once."""
        if self.holds_lease:
            self.drop()
            self._lease.give_back(self._feed.writer)

    def drop(self) -> None:
        """Forget all that is only in memory. The lease runs out by itself."""
        self.holds_lease = False
        self._ended.set()
        self._feed.end_memory()

    def _renew(self) -> None:
        if not self._lease.renew(self._feed.writer):
            self.drop()
            raise RollupLeaseLost

    def _keep_lease(self, ended: threading.Event) -> None:
        """In a thread of its own: a window may take longer than the lease lasts."""
        try:
            while not ended.wait(RENEW_SECONDS):
                try:
                    if not self._lease.renew(self._feed.writer):
                        return  # found out before the next write
                except (DatabaseError, InterfaceError) as error:
                    logger.debug("the lease is renewed later: %s", one_line(error))
                    connections.close_all()
        finally:
            connections.close_all()

    # A turn.

    def turn(self, *, everything: bool = False) -> bool:
        """Make the windows that are due, or with ``everything`` any that wait, for some seconds; returns whether more is due now.

        Raises RollupLeaseLost: nothing that was written stays wrong, since what this process had in hand is touched again.
        """
        self._renew()
        now_ns, now = self._now_ns(), self._clock()
        rows = touches(self._store)
        self._look_for_others(rows)
        self.waiting.update(rows, now)
        self._batch = _Unstored()
        self._newest_before_ns = self._newest_ns
        self._unread = {each.window for tier in TIERS for each in self.waiting.of(tier)}
        due = self.waiting.due(self._until_ns, now_ns, now)
        if everything:
            due.recent, due.late = [], [each for tier in TIERS for each in self.waiting.of(tier)]
        done = self._make(due.recent)
        is_more = False
        if due.late and (everything or now >= self._late_after):
            began = self._clock()
            late = self._make(due.late, began + LATE_SECONDS)
            is_more = len(late) < len(due.late) and not self.stopping.is_set()
            # Half of the time is for others.
            self._late_after = 2 * self._clock() - began
            done += late
        done += self._write()
        self._advance(now_ns, done)
        self._apply_retention(now_ns)
        return is_more

    def _make(self, windows: Iterable[WaitingWindow], before: float | None = None) -> list[WaitingWindow]:
        """Make and store them; returns those that are done with. The last ones may still be in the batch."""
        done: list[WaitingWindow] = []
        for each in windows:
            now = self._clock()
            if self.stopping.is_set() or (before is not None and now >= before):
                break
            if self._refused.get(each.window, 0.0) > now:
                continue
            if not self._batch.windows:
                self._batch.since = now
            try:
                self._add(each)
            except StoreError as error:
                if error.retriable or self.stopping.is_set():
                    raise
                self._refuse(each, error)
            if self._batch.rows >= MOST_ROWS or self._clock() - self._batch.since >= MOST_SECONDS:
                done += self._write()
        return done

    def _add(self, waiting: WaitingWindow) -> None:
        """Make a window and put it into the batch."""
        began, now_ns = self._clock(), self._now_ns()
        tier, start_ns = waiting.window
        batch = self._batch
        batch.windows.append(waiting)
        self._unread.discard(waiting.window)
        if start_ns < self._config.first_whole_ns(now_ns):
            self._skip(waiting)
            return
        retention = self._config.retention_of(tier)
        if retention and start_ns < now_ns - int(retention * SECOND):
            return
        is_cause = any(each.writer != PREDECESSOR for each in waiting.touches)
        look_ahead = tier == "1m" and is_cause and start_ns <= self._newest_before_ns
        try:
            made = self.maker.make(tier, start_ns, self._feed.memory, look_ahead=look_ahead)
        except BaseException:
            batch.windows.pop()
            raise
        batch.tables += made.tables
        batch.rows += sum(map(len, made.tables))
        # Those after the newest were never made before, and those that wait are read later than this one.
        batch.stale_ns.update(
            each for each in made.stale_ns if each <= self._newest_before_ns and ("1m", each) not in self._unread
        )
        self.totals.seconds += self._clock() - began

    def _skip(self, waiting: WaitingWindow) -> None:
        self.totals.outdated += 1
        if self.totals.outdated == 1:
            logger.warning(
                "the %(tier)s window of %(start)s was touched and stays as it is: raw readings of then may be gone",
                {"tier": waiting.tier, "start": format_time(waiting.start_ns)},
            )

    def _refuse(self, waiting: WaitingWindow, error: StoreError) -> None:
        """Leave a window for a while that cannot be read or written."""
        self.totals.refused += 1
        self._refused[waiting.window] = self._clock() + REFUSED_SECONDS
        logger.error(
            "the %(tier)s window of %(start)s cannot be rolled up: %(error)s",
            {"tier": waiting.tier, "start": format_time(waiting.start_ns), "error": one_line(error)},
        )

    def _look_for_others(self, rows: Iterable[WindowTouch]) -> None:
        mine = {self._feed.writer, PREDECESSOR}
        foreign = {each for each in rows if each.tier == MINUTES and each.writer not in mine}
        if not foreign <= self._foreign:
            self._remember_anew(rows)
        self._foreign = foreign

    def _remember_anew(self, rows: Iterable[WindowTouch]) -> None:
        self._feed.begin_memory(max([self._newest_ns, *(each.start_ns for each in rows if each.tier == MINUTES)]))

    # Storing.

    def _write(self) -> list[WaitingWindow]:
        """Store the batch and settle its touches; returns the windows that are done with."""
        batch, self._batch = self._batch, _Unstored()
        if not batch.windows:
            return []
        try:
            self._store_batch(batch)
        except StoreError as error:
            if error.retriable or self.stopping.is_set():  # then it may be that the store was closed
                raise
            if len(batch.windows) == 1:
                self._refuse(batch.windows[0], error)
                return []
            return self._write_each(batch)
        return batch.windows

    def _write_each(self, batch: _Unstored) -> list[WaitingWindow]:
        """Store the windows of a refused batch one by one: one of them is not taken, perhaps."""
        done: list[WaitingWindow] = []
        for each in batch.windows:
            alone = _Unstored([each], [table for table in batch.tables if _is_of(table, each)], batch.stale_ns)
            try:
                self._store_batch(alone)
            except StoreError as error:
                if error.retriable:
                    raise
                self._refuse(each, error)
            else:
                done.append(each)
        return done

    def _store_batch(self, batch: _Unstored) -> None:
        self._renew()
        if batch.tables:
            self._rollups.write(batch.tables)
        rows = [row for each in batch.windows for row in each.touches]
        newest_ns = max((each.start_ns for each in batch.windows if each.tier == "1m"), default=0)
        with transaction.atomic():
            # Whoever took it has written another name into it: so this says that nobody had it since the call above.
            has_lease = self._lease.renew(self._feed.writer)
            if has_lease:
                touch(self._store, MINUTES, batch.stale_ns, PREDECESSOR)
                settle(self._store, rows)
                advance(self._store, minutes_until_ns=0, hours_until_ns=0, newest_ns=newest_ns)
            else:
                # Who took over may have made them before this write: they are made anew.
                for tier in TIERS:
                    touch(
                        self._store,
                        tier,
                        {each.start_ns for each in batch.windows if each.tier == tier},
                        self._feed.writer,
                    )
        if not has_lease:
            self.drop()
            raise RollupLeaseLost
        self._newest_ns = max(self._newest_ns, newest_ns)
        self.totals.windows += len(batch.windows)
        self.totals.rows += batch.rows
        self.totals.made_at = time.time()

    # How far it is.

    def _advance(self, now_ns: int, done: list[WaitingWindow]) -> None:
        self.waiting.remove(done)
        minutes_ns = self._reached("1m", now_ns - IDLE_NS, done, now_ns)
        touched_hours = {each.start_ns - each.start_ns % HOUR_NS for each in done if each.tier == "1m"}
        touched_hours |= {each.start_ns - each.start_ns % HOUR_NS for each in self.waiting.of("1m")}
        hours_ns = self._reached("1h", minutes_ns, [], now_ns, touched_hours)
        self.totals.lag_seconds = max(0.0, (now_ns - minutes_ns) / SECOND)
        if (minutes_ns, hours_ns) != (self._until_ns["1m"], self._until_ns["1h"]):
            advance(self._store, minutes_until_ns=minutes_ns, hours_until_ns=hours_ns, newest_ns=0)
            self._until_ns = {"1m": minutes_ns, "1h": hours_ns}

    def _reached(
        self, tier: Tier, idle_ns: int, done: list[WaitingWindow], now_ns: int, touched: Iterable[int] = ()
    ) -> int:
        """Up to where all windows have been made: none that waits, and was never made, begins before."""
        step_ns, until_ns = STEP_NS[tier], self._until_ns[tier]
        ends = [each.end_ns for each in done if each.tier == tier and each.is_over(now_ns)]
        reached_ns = max([until_ns, idle_ns - idle_ns % step_ns, *ends])
        open_ns = [each.start_ns for each in self.waiting.of(tier)] + list(touched)
        return max(until_ns, min([reached_ns, *(each for each in open_ns if each >= until_ns)]))

    def _apply_retention(self, now_ns: int) -> None:
        now = self._clock()
        if self._expired is not None and now - self._expired < RETENTION_SECONDS:
            return
        self._expired = now
        # Neither a clock that is ahead nor a fleet that has stopped makes windows old.
        self._rollups.apply_retention(min(now_ns, self._newest_ns + MINUTE_NS))


def _is_of(table: WindowTable, waiting: WaitingWindow) -> bool:
    return table.tier == waiting.tier and bool((table.starts_ns == waiting.start_ns).all())
