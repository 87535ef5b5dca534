"""Drops old readings, but not most of the store on the word of this machine's clock alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from readings.times import SECOND, format_time, spell_duration
from stores.base import Store, StoreError
from telemetry_site.outage import Outage

logger = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
# The newest reading of a fleet at work is not older.
_AGREES_WITHIN_NS = 3600 * SECOND
# The part of the store's time that a pass may drop although the newest reading is older than that.
_MOST_DROPPED = 0.1
_SAID_AGAIN_SECONDS = 3600.0


class Retention:
    """Drops readings older than ``retention`` seconds from the store (0: never).

    A clock that is days ahead makes all readings look old. A pass that would drop over a tenth of the time that the store
    spans therefore waits until the store's newest reading is of the last hour by this clock, or an operator makes the file
    ``confirmation``. A fleet that has stopped loses its readings a minute's worth at a time, which never waits.
    """

    def __init__(
        self, store: Store, retention: float, confirmation: Path, *, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.waiting = False
        self.looked = asyncio.Event()  # it is known whether the clock is in doubt
        self._store = store
        self._retention_ns = int(retention * SECOND)
        self._confirmation = confirmation
        self._now_ns = now_ns
        self._outage = Outage("the store, asked to drop old readings")
        self._said_at = 0.0

    async def run(self) -> None:
        """A pass every EVERY_SECONDS, until cancelled."""
        while True:
            if self._retention_ns and not self._store.expires_by_itself:
                try:
                    dropped = await self.apply()
                    self._outage.end()
                    if dropped:
                        logger.info("retention: dropped %d readings", dropped)
                except StoreError as error:
                    self._outage.begin(error)
            self.looked.set()
            await asyncio.sleep(EVERY_SECONDS)

    async def apply(self) -> int:
        """One pass; returns how many readings it dropped. Raises StoreError."""
        now_ns = self._now_ns()
        oldest_ns = now_ns - self._retention_ns
        waited, self.waiting = self.waiting, await asyncio.to_thread(self._is_doubtful, now_ns, oldest_ns)
        self.looked.set()
        if self.waiting:
            return 0
        if waited:
            logger.info("retention goes on")
        return await asyncio.to_thread(self._store.apply_retention, oldest_ns)

    def _is_doubtful(self, now_ns: int, oldest_ns: int) -> bool:
        stats = self._store.stats()
        first, last = stats.oldest_ns, stats.newest_ns
        if first is None or last is None or oldest_ns <= first or last >= now_ns - _AGREES_WITHIN_NS:
            return False
        dropped = min(1.0, (oldest_ns - first) / (last - first)) if last > first else 1.0
        if dropped <= _MOST_DROPPED or self._is_confirmed():
            return False
        if not self.waiting or time.monotonic() - self._said_at >= _SAID_AGAIN_SECONDS:
            self._said_at = time.monotonic()
            logger.warning(
                "retention waits: by this machine's clock (%(now)s) the newest reading is %(age)s old, and %(part)d %% of"
                " the time in the store is over. Is the clock right? Readings that are newer end the wait; so does the"
                " file %(file)s, after which old readings are dropped",
                {
                    "now": format_time(now_ns - now_ns % SECOND),
                    "age": spell_duration((now_ns - last) / SECOND),
                    "part": round(dropped * 100),
                    "file": self._confirmation,
                },
            )
        return True

    def _is_confirmed(self) -> bool:
        """Whether an operator made the file, which counts for one pass."""
        try:
            self._confirmation.unlink()
        except OSError:
            return False
        logger.warning("retention: %s confirms that most of the store is to be dropped", self._confirmation)
        return True
