"""``manage.py rollup``: roll up what waits, or make a range anew from raw, whichever process has the lease."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ingest.rollups.roller import PREDECESSOR, Roller, RollupConfig, RollupLeaseLost
from inventory.rollup_state import HOUR_NS, MINUTE_NS, lease_of, reach_back, read_state
from inventory.rollup_touches import HOURS, MINUTES, WindowTouch, touch, touches
from stores.base import ReadingsQuery, Store
from stores.rollups.windows import RollupStore

WAIT_SECONDS = 1.0
SAY_SECONDS = 5.0
# Turns that make nothing although something waits: it is refused.
MOST_IDLE = 3
# The lease of a process that was killed runs out before.
LEASE_WAIT_SECONDS = 25.0


class RollupRefusal(Exception):
    """It cannot be done. The text says what can."""


class RawRange(NamedTuple):
    """Windows that begin in [start_ns, end_ns) can be made from raw: hours at its start, minutes at its end."""

    start_ns: int
    end_ns: int


def raw_range(raw: Store, config: RollupConfig, now_ns: int) -> RawRange | None:
    """What raw has whole; None for an empty store. Raises StoreError."""
    oldest, newest = (
        raw.page(ReadingsQuery(limit=1, newest_first=newest_first)).times for newest_first in (False, True)
    )
    if not oldest or not newest:
        return None
    start_ns, whole_ns = oldest[0] - oldest[0] % HOUR_NS, config.first_whole_ns(now_ns)
    if whole_ns > start_ns:
        start_ns = -(-whole_ns // HOUR_NS) * HOUR_NS
    return RawRange(start_ns, newest[0] - newest[0] % MINUTE_NS + MINUTE_NS)


class RollupRun:
    """One run of the command. ``say`` is told how far it is. Every method may raise StoreError and django.db.Error."""

    def __init__(self, roller: Roller, rollups: RollupStore, store: str, say: Callable[[str], None]) -> None:
        self._roller = roller
        self._rollups = rollups
        self._store = store
        self._say = say
        self._said = 0.0

    def once(self) -> None:
        """Make all windows that wait now, and their hours. Raises RollupRefusal while another process rolls up."""
        deadline = time.monotonic() + LEASE_WAIT_SECONDS
        while not self._roller.holds_lease and not self._roller.acquire():
            if time.monotonic() > deadline:
                holder = lease_of(self._store).holder().partition(":")[0]
                raise RollupRefusal(f"the collector on {holder} rolls up already")
            time.sleep(WAIT_SECONDS)
        # Minutes touch those that count from them, and then their hours.
        for tier in (MINUTES, MINUTES, HOURS):
            self._wait(tier, set(touches(self._store)).__contains__)

    def rebuild(self, start_ns: int, end_ns: int) -> None:
        """Drop the windows of a range of whole hours and make them anew from raw."""
        minutes = range(start_ns, end_ns, MINUTE_NS)
        # Before, so that a kill leaves no hole; and after, since some may have been made again meanwhile.
        touch(self._store, MINUTES, minutes, PREDECESSOR)
        self._rollups.drop("1m", start_ns, end_ns)
        self._rollups.drop("1h", start_ns, end_ns)
        touch(self._store, MINUTES, minutes, PREDECESSOR)
        for tier in (MINUTES, HOURS):
            self._wait(tier, lambda each: each.writer == PREDECESSOR and start_ns <= each.start_ns < end_ns)
        state = read_state(self._store)
        if state is not None and end_ns >= max(state.minutes_from_ns, state.hours_from_ns):
            reach_back(self._store, start_ns)

    def _wait(self, tier: str, is_wanted: Callable[[WindowTouch], bool]) -> None:
        """Until no such touch of the tier is left. This process makes the windows if it can have the lease."""
        all_of_them, idle = 0, 0
        while True:
            left = len({each.start_ns for each in touches(self._store) if each.tier == tier and is_wanted(each)})
            all_of_them = max(all_of_them, left)
            self._tell(tier, all_of_them, left)
            if not left:
                return
            if self._turn():
                idle = 0
                continue
            idle += self._roller.holds_lease
            if idle > MOST_IDLE:
                raise RollupRefusal(f"{left} windows of {tier} cannot be made: the log says why")
            time.sleep(WAIT_SECONDS)

    def _turn(self) -> bool:
        """Whether this process has made any window."""
        roller = self._roller
        try:
            if not roller.holds_lease and not roller.acquire():
                return False
            done = roller.totals.windows
            roller.turn(everything=True)
        except RollupLeaseLost:
            return False
        return roller.totals.windows > done

    def _tell(self, tier: str, all_of_them: int, left: int) -> None:
        if left and time.monotonic() - self._said < SAY_SECONDS:
            return
        self._said = time.monotonic()
        self._say(f"{all_of_them - left:,} of {all_of_them:,} windows of {tier}")
