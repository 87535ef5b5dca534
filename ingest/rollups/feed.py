"""What a collector tells the roll-ups of the blocks that it has written: which minutes they touched, and what was in them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from inventory.rollup_state import MINUTE_NS
from inventory.rollup_touches import MINUTES, touch
from readings.model import PointBlock
from stores.base import RefusedReading
from stores.rollups.memory import WindowMemory
from stores.validate import split_storable


class RollupFeed:
    """Safe for several threads. ``writer`` names this process, ``store`` tells the store's key.

    Blocks are in the memory before their touches are in the database: who finds a touch finds its readings.
    """

    def __init__(self, store: Callable[[], str], writer: str) -> None:
        self.writer = writer
        self.is_on = True
        self._store = store
        self._lock = threading.Lock()
        self._minutes: set[int] = set()  # touched and not recorded, in minutes since 1970
        self._newest = 0
        self._memory: WindowMemory | None = None

    @property
    def memory(self) -> WindowMemory | None:
        """What was in the last minutes and hours, while this process rolls up."""
        return self._memory

    def see(self, blocks: Sequence[PointBlock], refused: Sequence[RefusedReading] = ()) -> None:
        """Note blocks that the store has written, but for those readings."""
        if not self.is_on:
            return
        touched = _minutes_of(blocks)
        if not touched:
            return
        with self._lock:
            memory = self._memory
            if memory is not None:
                memory.add(blocks)
                for reading in refused:
                    memory.distrust(reading.gpu, reading.time_ns)
            self._minutes |= touched
            self._newest = max(self._newest, max(touched))

    def save(self) -> None:
        """Record the touched minutes. Raises django.db.Error and then keeps them."""
        with self._lock:
            taken, self._minutes = self._minutes, set()
        if not taken:
            return
        try:
            touch(self._store(), MINUTES, [minute * MINUTE_NS for minute in taken], self.writer)
        except BaseException:
            with self._lock:
                self._minutes |= taken
            raise

    def begin_memory(self, newest_ns: int) -> None:
        """Remember what is written from now on. Windows that begin up to ``newest_ns`` may hold other readings already."""
        with self._lock:
            self._memory = WindowMemory(max(newest_ns, self._newest * MINUTE_NS))

    def end_memory(self) -> None:
        """Another process rolls up now."""
        with self._lock:
            self._memory = None

    def turn_on(self) -> None:
        """There are roll-ups again."""
        self.is_on = True

    def turn_off(self) -> None:
        """There are no roll-ups."""
        with self._lock:
            self.is_on = False
            self._memory = None
            self._minutes = set()


def _minutes_of(blocks: Sequence[PointBlock]) -> set[int]:
    """The minutes since 1970 that have points."""
    try:
        times = [block.arrays.time_ns for block in blocks if block.points]
    except ValueError:  # something that no store takes
        times = [block.arrays.time_ns for block in split_storable(blocks)[0]]
    if not times:
        return set()
    minutes: list[int] = np.unique(np.concatenate(times) // MINUTE_NS).tolist()
    return set(minutes)
