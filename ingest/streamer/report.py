"""A streamer's progress and backlog, for its log, its /health and its /metrics."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ingest.watchdog import Watchdog
from readings.times import spell_duration


class Progress:
    """Shows how many bytes of a source have been read."""

    def __init__(self, bar: tqdm[Any] | None = None) -> None:
        self._bar = bar

    def at(self, position: int) -> None:
        """Move the bar to this position."""
        if self._bar is not None:
            self._bar.update(position - self._bar.n)


@contextmanager
def progress_bar(total: int, title: str) -> Iterator[Progress]:
    """A bar on standard error if that is a terminal; log lines appear above it."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    with (
        logging_redirect_tqdm(),
        tqdm(total=total, desc=title, unit="B", unit_scale=True, dynamic_ncols=True) as bar,
    ):
        yield Progress(bar)


logger = logging.getLogger(__name__)

REPORT_SECONDS = 60.0


class Backlog(NamedTuple):
    """The part of the captures that is not answered yet: bytes of their files, rows (estimated), and seconds at the pace so far (None
    before there is one)."""

    bytes: int
    rows: int
    seconds: float | None

    def __str__(self) -> str:
        left = "" if self.seconds is None else f", {spell_duration(self.seconds)} at this pace"
        return f"{self.bytes / 1e6:,.1f} MB to go (about {self.rows:,} rows{left})"


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Report:
    """A streamer's counters and state. ``behind_s`` is the age of the oldest batch that the broker has not answered.

    ``backlog`` is None for live sources, and for captures whose end is unknown. ``trouble`` names what the streamer waits for.
    ``refresh`` is set by the run in progress and updates the figures that change by themselves.
    """

    read: int = 0
    sent: int = 0
    batches: int = 0
    waiting: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    behind_s: float = 0.0
    backlog: Backlog | None = None
    later_bytes: int = 0  # of the captures that come after this one
    spool_bytes: int | None = None
    connected: bool = False
    trouble: list[str] = field(default_factory=list)
    watch: Watchdog = field(default_factory=Watchdog)
    refresh: Callable[[], None] = _nothing

    def now(self) -> Report:
        """Refresh the figures; returns the report."""
        self.refresh()
        return self

    def line(self) -> str:
        """The report on one line."""
        parts = [f"{self.read} readings read", f"{self.sent} sent and answered in {self.batches} batches"]
        if self.refused:
            parts.append("refused: " + self.reasons())
        if self.waiting:
            parts.append(f"{self.waiting} batches waiting, {spell_duration(self.behind_s)} behind")
        if self.backlog is not None and self.backlog.bytes:
            parts.append(str(self.backlog))
        return "; ".join(parts)

    def reasons(self) -> str:
        """The refused rows and readings, by reason."""
        return ", ".join(f"{reason} {count}" for reason, count in sorted(self.refused.items()))


async def report_often(report: Report) -> None:
    """Log the report every minute, until cancelled."""
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        logger.info("%s", report.now().line())
