"""How many readings a bucket holds. The server has to look at every one of them to tell, so nobody waits long for it.

It counts about ten million a second. A count that takes longer than an asker waits goes on in a thread of its own, and the
asker gets the one before; a count is good for a multiple of its cost, so that counting is never most of what a server does.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from stores.base import StoreError
from stores.influxdb.client import InfluxConnection
from stores.influxdb.line_protocol import SHARE
from stores.influxdb.reader import Reader

_PATIENCE = 1.0  # seconds
_GOOD_FOR = 20.0  # times its cost
_WORTH_KEEPING = 0.1  # seconds


class Counts(NamedTuple):
    """Readings, their series, and shares."""

    readings: int
    series: int
    shares: int


class _Kept(NamedTuple):
    """A count, until when it is good, and how many of our own writes came before it."""

    counts: Counts
    until: float
    writes: int


class Counter:
    """Counts one bucket. Safe for threads; a forked child makes its own."""

    def __init__(self, connection: InfluxConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._running: _Run | None = None
        self._kept: _Kept | None = None

    def counts(self, writes: int) -> Counts | None:
        """The newest count there is, None while the first one goes on. ``writes`` grows with each write of this process:
        no count from before the last of them is taken for a new one. Raises what the connection raises."""
        with self._lock:
            kept = self._kept
            if kept is not None and time.monotonic() < kept.until and kept.writes == writes:
                return kept.counts
            run = self._running
            if run is None or run.done.is_set():
                run = self._running = _Run(self._connection, writes)
                run.start()
        if not run.done.wait(_PATIENCE):
            return kept.counts if kept is not None else None
        if run.error is not None:
            raise run.error
        with self._lock:
            if run.counts is not None:
                good_for = run.seconds * _GOOD_FOR if run.seconds > _WORTH_KEEPING else 0.0
                self._kept = _Kept(run.counts, run.ended + good_for, run.writes)
        return run.counts


class _Run(threading.Thread):
    """One count. ``done`` is set when there is a result or an error."""

    def __init__(self, connection: InfluxConnection, writes: int) -> None:
        super().__init__(name="influx-count", daemon=True)
        self._connection = connection
        self.writes = writes
        self.done = threading.Event()
        self.counts: Counts | None = None
        self.error: StoreError | None = None
        self.seconds = self.ended = 0.0

    def run(self) -> None:
        began = time.monotonic()
        try:
            found = Reader(self._connection).counts()
            shares = Reader(self._connection, SHARE).counts()
            self.counts = Counts(sum(found.values()), len(found), sum(shares.values()))
        except StoreError as error:
            self.error = error
        finally:
            self.ended = time.monotonic()
            self.seconds = self.ended - began
            self.done.set()
