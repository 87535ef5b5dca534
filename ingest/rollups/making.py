"""Makes a window: from what this process saw of it, or else from the raw readings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from inventory.queries import hosts_between
from stores.base import Store
from stores.rollups.combining import combine
from stores.rollups.memory import MemoryWindow, WindowMemory
from stores.rollups.partials import SourcePartials, together
from stores.rollups.raw import partials_from_raw, windows_after
from stores.rollups.windows import STEP_NS, Tier, WindowTable

Road = Literal["memory", "mixed", "raw"]
ROADS: tuple[Road, ...] = ("memory", "mixed", "raw")
# With more GPUs to read, all of them are read: a store answers that as fast.
MOST_UNTRUSTED = 200


@dataclass(frozen=True, slots=True)
class MadeWindow:
    """The tables of one window, and the starts of other minutes that are no longer right because of it."""

    tables: list[WindowTable]
    stale_ns: Collection[int]


class WindowMaker:
    """Makes windows out of one store. Every method may raise StoreError, StoreUnavailable and django.db.Error."""

    def __init__(self, raw: Store) -> None:
        self.made: Counter[Road] = Counter()
        self._raw = raw

    def make(self, tier: Tier, start_ns: int, memory: WindowMemory | None, *, look_ahead: bool) -> MadeWindow:
        """Make one window. With ``look_ahead`` readings may have come into it after later windows were made.

        Then a counter's next reading, in whatever minute, has another reading before it than it had.
        """
        partials, road = self._partials(tier, start_ns, memory)
        stale = windows_after(self._raw, partials, STEP_NS["1m"], hosts=hosts_between) if look_ahead else frozenset()
        self.made[road] += 1
        return MadeWindow(combine(partials, tier, start_ns), stale)

    def _partials(self, tier: Tier, start_ns: int, memory: WindowMemory | None) -> tuple[SourcePartials, Road]:
        seen = None if memory is None else memory.window(tier, start_ns)
        if memory is None or seen is None or len(seen.untrusted) > MOST_UNTRUSTED:
            return self._read(tier, start_ns), "raw"
        if not seen.untrusted:
            return seen.partials, "memory"
        return self._complete(memory, seen), "mixed"

    def _complete(self, memory: WindowMemory, seen: MemoryWindow) -> SourcePartials:
        """What the memory has, and the rest from raw."""
        rest = self._read(seen.tier, seen.start_ns, sorted(seen.untrusted))
        memory.settle(seen, rest)
        return together([seen.partials, rest])

    def _read(self, tier: Tier, start_ns: int, gpus: Collection[str] = ()) -> SourcePartials:
        return partials_from_raw(self._raw, start_ns, start_ns + STEP_NS[tier], gpus=tuple(gpus), hosts=hosts_between)
