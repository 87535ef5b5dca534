"""The roll-ups of a collector: it tells what it wrote, and one collector at a time rolls up in a thread beside its pipeline."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from broker.backoff import backoff
from ingest.rollups.feed import RollupFeed
from ingest.rollups.roller import Roller, RollupConfig, RollupLeaseLost, RollupTotals
from inventory.leases import RENEW_SECONDS, make_holder
from inventory.queries import newest_reading
from inventory.rollup_state import forget, open_state, read_state
from readings.checks import MAX_AHEAD_NS
from readings.model import PointBlock
from readings.times import to_ns
from stores.base import RefusedReading, Store, StoreError
from stores.open import store_key
from stores.rollups.windows import RollupStore
from telemetry_site.outage import Outage, one_line
from telemetry_site.watchdog import Watchdog

logger = logging.getLogger(__name__)

TURN_SECONDS = 5.0
FAULT_SECONDS = 60.0
# Somebody may allow them.
OFF_SECONDS = 60.0
# Making one window, at most an hour of a large fleet from raw.
STUCK_SECONDS = 1800.0
CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupSettings:
    """How to roll up. ``open_rollups`` returns the store of the windows, or None where there are none; it may raise StoreError."""

    open_rollups: Callable[[], RollupStore | None]
    config: RollupConfig = field(default_factory=RollupConfig)


def prepare_state(raw: Store) -> None:
    """Note that touches are recorded from now on, unless they were before. Raises StoreError, django.db.Error."""
    if read_state(store_key()) is None:
        open_state(store_key(), _newest_written(raw))


def _newest_written(raw: Store) -> int | None:
    """The time of the newest reading that is stored, or now, where nobody knows; None without any."""
    seen = newest_reading()
    known = [each for each in (raw.stats().newest_ns, None if seen is None else to_ns(seen)) if each is not None]
    return max(known, default=time.time_ns() if raw.metric_names() else None)


def make_roller(raw: Store, rollups: RollupStore, feed: RollupFeed, config: RollupConfig) -> Roller:
    """A roller of the store that the settings name."""
    return Roller(raw, rollups, feed, config, store=store_key(), newest_ns=lambda: _newest_written(raw))


class CollectorRollups:
    """What a collector does for roll-ups, ``settings`` None: nothing. It never stops the collector: what fails is tried again.

    Call ``prepare`` before anything is written, ``see`` with what was written, ``save`` before its offset is committed. ``run`` rolls up.
    """

    def __init__(self, raw: Store, settings: RollupSettings | None) -> None:
        self.feed = RollupFeed(store_key, make_holder())
        self.watch = Watchdog()
        self.roller: Roller | None = None
        self._raw = raw
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="roll-ups", daemon=True)
        self._outage = Outage("roll-ups")
        self._waits: Iterator[float] = backoff(most=30.0)
        if settings is None:
            self.feed.turn_off()

    @property
    def totals(self) -> RollupTotals:
        """Totals of this process."""
        return RollupTotals() if self.roller is None else self.roller.totals

    def prepare(self) -> None:
        """Before the first write. Raises StoreError, django.db.Error."""
        if self.feed.is_on:
            close_old_connections()
            prepare_state(self._raw)

    def see(self, blocks: Sequence[PointBlock], refused: Sequence[RefusedReading] = ()) -> None:
        """Note what was written."""
        self.feed.see(blocks, refused)

    def save(self) -> None:
        """Record what was touched. Raises django.db.Error and then keeps it."""
        self.feed.save()

    async def run(self) -> None:
        """Roll up until it is cancelled."""
        if self._settings is not None:
            self._thread.start()
        await asyncio.Event().wait()

    async def close(self) -> None:
        """End after the window in hand, if that takes a moment only: what is not finished is made anew by the next."""
        self._stop.set()
        if self.roller is not None:
            self.roller.stopping.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)

    # In the thread, which is a daemon's, so that a long window does not keep the process from ending.

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._stop.wait(self._step())
            if self.roller is not None:
                self.roller.release()
        except Exception as error:
            if not self._stop.is_set():
                raise
            logger.debug("roll-ups ended: %s", one_line(error))
        finally:
            connections.close_all()

    def _step(self) -> float:
        """One turn; returns the seconds until the next."""
        try:
            close_old_connections()
            with self.watch.doing("rolling up", STUCK_SECONDS):
                seconds = self._turn()
        except RollupLeaseLost:
            logger.info("another collector rolls up now")
            return TURN_SECONDS
        except (StoreError, DatabaseError, InterfaceError) as error:
            if not self._stop.is_set():  # else it may be that the store was closed
                self._outage.begin(error)
            return next(self._waits)
        except Exception:
            if not self._stop.is_set():
                logger.exception("roll-ups begin anew in a minute")
            if self.roller is not None:
                self.roller.drop()
            return FAULT_SECONDS
        self._outage.end()
        self._waits = backoff(most=30.0)
        return seconds

    def _turn(self) -> float:
        roller = self.roller or self._open()
        if roller is None:
            return OFF_SECONDS
        if not roller.holds_lease and not roller.acquire():
            return RENEW_SECONDS
        return 0.0 if roller.turn() else TURN_SECONDS

    def _open(self) -> Roller | None:
        rollups = None if self._settings is None else self._settings.open_rollups()
        if self._settings is None or rollups is None:
            self.feed.turn_off()
            if forget(store_key()):
                logger.warning("what is written while roll-ups are off is missing in them until they are rebuilt")
            return None
        if not self.feed.is_on:
            # What is being written now was not noted.
            self.feed.turn_on()
            open_state(store_key(), time.time_ns() + MAX_AHEAD_NS)
        self.roller = make_roller(self._raw, rollups, self.feed, self._settings.config)
        if self._stop.is_set():
            self.roller.stopping.set()
        return self.roller
