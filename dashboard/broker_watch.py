"""What the broker last said, so that a page does not wait for one that is away, and can say since when it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from api.schema.answers import BrokerAnswer, SubscriberAnswer
from api.views.stats import ask_broker

Answer = tuple[BrokerAnswer, list[SubscriberAnswer]]
# An answer serves the pages of this many seconds; a broker that is away is asked less often, since that may take long.
FRESH_SECONDS = 1.0
AWAY_SECONDS = 10.0


class BrokerNow(NamedTuple):
    """The broker now. While it is away the figures are the last that it gave, at ``good_ns``; None: this process has none."""

    broker: BrokerAnswer
    subscribers: list[SubscriberAnswer]
    available: bool
    error: str | None
    good_ns: int | None


class BrokerWatch:
    """Remembers the last answer, and the last good one."""

    def __init__(self, ask: Callable[[], Answer] = ask_broker) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._next = 0.0
        self._last: Answer | None = None
        self._good: Answer | None = None
        self._good_ns: int | None = None

    def now(self) -> BrokerNow:
        """The broker's figures; asks it if the last answer is too old. Never raises for a broker that is away."""
        with self._lock:
            if self._last is None or time.monotonic() >= self._next:
                self._last = self._ask()
                is_there = self._last[0].available
                self._next = time.monotonic() + (FRESH_SECONDS if is_there else AWAY_SECONDS)
                if is_there:
                    self._good, self._good_ns = self._last, time.time_ns()
            last, good = self._last, self._good or self._last
            return BrokerNow(*good, last[0].available, last[0].error, self._good_ns)


watch = BrokerWatch()
