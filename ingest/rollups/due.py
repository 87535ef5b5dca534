"""When touched windows are rolled up: soon after they are over, and late readings together.

A window that is over is made once, and again when late readings have stopped coming or have come for long. One that is open, or in the
future, is made when nothing has come for a while: readings have stopped, or a clock is wrong. When it is made never decides whether it
is right: it waits again as soon as it is touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from inventory.rollup_touches import MINUTES, WindowTouch
from readings.times import SECOND
from stores.rollups.windows import STEP_NS, Tier

# Readings take so long to come: the interval of flushes, and what streamers gather.
GRACE_NS: Mapping[Tier, int] = {"1m": 20 * SECOND, "1h": 60 * SECOND}
# A window that ended longer ago is late.
RECENT_NS = 15 * 60 * SECOND
QUIET_SECONDS = 10.0
# Late readings that keep coming wait no longer. Hours cost sixty times as much.
LONGEST_SECONDS: Mapping[Tier, float] = {"1m": 60.0, "1h": 1800.0}
OPEN_SECONDS: Mapping[Tier, float] = {"1m": 60.0, "1h": 300.0}
TIERS: tuple[Tier, ...] = ("1m", "1h")

Window = tuple[Tier, int]


@dataclass(slots=True)
class WaitingWindow:
    """A touched window. Times in seconds of one monotonic clock: when it was first seen waiting, and seen to be touched last."""

    tier: Tier
    start_ns: int
    touches: tuple[WindowTouch, ...]
    since: float
    touched: float

    @property
    def window(self) -> Window:
        """Its tier and start."""
        return self.tier, self.start_ns

    @property
    def end_ns(self) -> int:
        """Its end."""
        return self.start_ns + STEP_NS[self.tier]

    def is_over(self, now_ns: int) -> bool:
        """Whether most of its readings have come."""
        return self.end_ns + GRACE_NS[self.tier] <= now_ns

    def is_recent(self, until_ns: int, now_ns: int) -> bool:
        """Whether it is over, not for long, and was never made."""
        return self.start_ns >= until_ns and self.is_over(now_ns) and now_ns < self.end_ns + RECENT_NS

    def is_due(self, now_ns: int, now: float) -> bool:
        """Whether one that is not recent is to be made."""
        quiet = now - self.touched
        if not self.is_over(now_ns):
            return quiet >= OPEN_SECONDS[self.tier]
        return quiet >= QUIET_SECONDS or now - self.since >= LONGEST_SECONDS[self.tier]


@dataclass(slots=True)
class DueWindows:
    """Those to be made now, in the order of time: recent ones first, which take little, then late ones."""

    recent: list[WaitingWindow] = field(default_factory=list)
    late: list[WaitingWindow] = field(default_factory=list)


class WaitingWindows:
    """The touched windows as the database had them last."""

    def __init__(self) -> None:
        self._windows: dict[Window, WaitingWindow] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def update(self, rows: Iterable[WindowTouch], now: float) -> None:
        """Take over what the database has at the time ``now``."""
        found: dict[Window, list[WindowTouch]] = defaultdict(list)
        for row in rows:
            found["1m" if row.tier == MINUTES else "1h", row.start_ns].append(row)
        before, self._windows = self._windows, {}
        for window, touches in found.items():
            known, all_of_it = before.get(window), tuple(touches)
            if known is None:
                known = WaitingWindow(*window, all_of_it, now, now)
            elif known.touches != all_of_it:
                known.touches, known.touched = all_of_it, now
            self._windows[window] = known

    def due(self, until_ns: Mapping[Tier, int], now_ns: int, now: float) -> DueWindows:
        """What is to be made now. Windows from ``until_ns`` on were never made."""
        found = DueWindows()
        hour_ns = STEP_NS["1h"]
        of_minutes = {start_ns - start_ns % hour_ns for tier, start_ns in self._windows if tier == "1m"}
        for tier in TIERS:
            for waiting in self.of(tier):
                is_long = now - waiting.since >= LONGEST_SECONDS[tier] and waiting.end_ns + RECENT_NS <= now_ns
                if tier == "1h" and waiting.start_ns in of_minutes and not is_long:
                    continue  # its minutes touch it once more when they are made
                if waiting.is_recent(until_ns[tier], now_ns):
                    found.recent.append(waiting)
                elif waiting.is_due(now_ns, now):
                    found.late.append(waiting)
        return found

    def of(self, tier: Tier) -> list[WaitingWindow]:
        """All windows of a tier, in the order of time."""
        return sorted((each for each in self._windows.values() if each.tier == tier), key=lambda each: each.start_ns)

    def remove(self, windows: Iterable[WaitingWindow]) -> None:
        """These have been made."""
        for each in windows:
            self._windows.pop(each.window, None)
