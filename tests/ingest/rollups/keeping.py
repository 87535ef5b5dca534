"""A store of windows in memory, that can be looked into; and what raw readings say that has to be in it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import pytest

from inventory.rollup_touches import touches
from stores.rollups.windows import STEP_NS, Tier, WindowTable
from tests.stores.rollups.reckoning import Cell, Given, reckoned

TIERS: tuple[Tier, ...] = ("1m", "1h")


class KeptWindows:
    """A RollupStore, but for reading."""

    def __init__(self) -> None:
        self.windows: dict[tuple[Tier, int], dict[Cell, float]] = defaultdict(dict)
        self.writes = 0
        self.retention_ns: list[int] = []

    def write(self, tables: Sequence[WindowTable]) -> None:
        self.writes += 1
        for table in tables:
            for row, (place, start_ns) in enumerate(zip(table.places.tolist(), table.starts_ns.tolist(), strict=True)):
                cells = self.windows[table.tier, start_ns]
                for stat, values in table.stats.items():
                    for name, value in zip(table.names, values[row].tolist(), strict=True):
                        if not math.isnan(value):
                            cells[table.level, table.keys[place], name, stat] = value

    def read(self, *_: object, **__: object) -> WindowTable:
        raise NotImplementedError

    def drop(self, tier: Tier, start_ns: int, end_ns: int) -> None:
        for window in list(self.windows):
            if window[0] == tier and start_ns <= window[1] < end_ns:
                del self.windows[window]

    def apply_retention(self, now_ns: int) -> None:
        self.retention_ns.append(now_ns)

    def bytes(self) -> dict[Tier, int]:
        return {}

    def ping(self) -> None:
        pass

    def close(self) -> None:
        pass


def starts(readings: Iterable[Given], tier: Tier) -> set[int]:
    """The windows that have readings."""
    step_ns = STEP_NS[tier]
    return {each.time_ns // step_ns * step_ns for each in readings}


def assert_right(kept: KeptWindows, readings: Sequence[Given], store: str) -> int:
    """Each window that does not wait is what its readings say; returns how many there are."""
    waiting = {(each.tier, each.start_ns) for each in touches(store)}
    # Hours wait with their minutes.
    waiting |= {("1h", start_ns - start_ns % STEP_NS["1h"]) for tier, start_ns in waiting if tier == "1m"}
    count = 0
    for tier in TIERS:
        for start_ns in starts(readings, tier):
            if (tier, start_ns) not in waiting:
                count += 1
                expected = pytest.approx(reckoned(readings, tier, start_ns), rel=1e-12, abs=1e-12)
                assert kept.windows[tier, start_ns] == expected, (tier, start_ns)
    return count
