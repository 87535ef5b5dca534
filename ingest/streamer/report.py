"""A streamer's progress and backlog, for its log, /health and /metrics."""

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
    """Shows how far a source has been read, in bytes."""

    def __init__(self, bar: tqdm[Any] | None = None) -> None:
        self._bar = bar

    def at(self, position: int) -> None:
        """Everything before this byte has been read."""
        if self._bar is not None:
            self._bar.update(position - self._bar.n)


@contextmanager
def progress_bar(total: int, title: str) -> Iterator[Progress]:
    """A progress bar on standard error if that is a terminal. Log lines then appear above it."""
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
    """What is left of the captures: bytes that are not answered, about how many rows they hold, and how many seconds they take at
    the pace so far (None if unknown)."""

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
    """Counts of readings. ``behind_s`` is the age of the oldest unanswered one.

    ``backlog`` is None for live sources and for captures of unknown length. ``trouble`` names the partners that the streamer
    waits for. ``refresh`` updates the fields that change by themselves.
    """

    read: int = 0
    sent: int = 0
    batches: int = 0
    waiting: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    behind_s: float = 0.0
    backlog: Backlog | None = None
    later_bytes: int = 0  # of captures that come later
    spool_bytes: int | None = None
    connected: bool = False
    trouble: list[str] = field(default_factory=list)
    watch: Watchdog = field(default_factory=Watchdog)
    refresh: Callable[[], None] = _nothing

    def now(self) -> Report:
        """Refresh and return the report."""
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
        """Refused readings by reason."""
        return ", ".join(f"{reason} {count}" for reason, count in sorted(self.refused.items()))


async def report_often(report: Report) -> None:
    """Log the report every REPORT_SECONDS, until cancelled."""
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        logger.info("%s", report.now().line())
