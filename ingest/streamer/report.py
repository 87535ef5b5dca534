"""A streamer's progress and backlog, for its log, its /health and its /metrics."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.samples import RefusedRow
from readings.checks import Kinds
from readings.text import printable
from readings.times import spell_duration
from telemetry_site.watchdog import Watchdog


@contextmanager
def progress_bar(total: int, title: str) -> Iterator[Callable[[int], None]]:
    """A bar of bytes on standard error if that is a terminal; log lines appear above it. Yields what moves it to a position."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from tqdm import tqdm  # a service does without: it takes 10 ms to import, and starts a thread
    from tqdm.contrib.logging import logging_redirect_tqdm

    with (
        logging_redirect_tqdm(),
        tqdm(total=total, desc=title, unit="B", unit_scale=True, dynamic_ncols=True) as bar,
    ):

        def move(position: int) -> None:
            bar.update(position - bar.n)

        yield move


logger = logging.getLogger(__name__)

REPORT_SECONDS = 60.0
MOST_EXAMPLES, EXAMPLE_CHARACTERS = 50, 300


class Backlog(NamedTuple):
    """The part of the captures that is not answered yet: bytes of their files, rows (estimated), and seconds at the pace so far (None
    before there is one)."""

    bytes: int
    rows: int
    seconds: float | None

    def __str__(self) -> str:
        left = "" if self.seconds is None else f", {spell_duration(self.seconds)} at this pace"
        return f"{self.bytes / 1e6:,.1f} MB to go (about {self.rows:,} rows{left})"


@dataclass(slots=True)
class Report:
    """A streamer's counters and state. ``counts``: rows and readings by reason of any kind. ``behind_s`` is the age of the oldest batch that the broker has not answered.

    ``backlog`` is None for live sources, and for captures whose end is unknown. ``trouble`` names what the streamer waits for.
    ``refresh`` is set by the run in progress and updates the figures that change by themselves.
    """

    read: int = 0
    sent: int = 0
    batches: int = 0
    waiting: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    behind_s: float = 0.0
    backlog: Backlog | None = None
    later_bytes: int = 0  # of the captures that come after this one
    spool_bytes: int | None = None
    connected: bool = False
    trouble: list[str] = field(default_factory=list)
    examples: dict[str, str] = field(
        default_factory=dict
    )  # the first refused row or reading of each reason, for people
    resumed: bool = False  # rows before this run were sent by an earlier one
    watch: Watchdog = field(default_factory=Watchdog)
    refresh: Callable[[], None] = lambda: None

    def now(self) -> Report:
        """Refresh the figures; returns the report."""
        self.refresh()
        return self

    def line(self) -> str:
        """The report on one line."""
        parts = [f"{self.read} readings read", f"{self.sent} sent and answered in {self.batches} batches"]
        parts += self.kinds.spelled()
        if self.waiting:
            parts.append(f"{self.waiting} batches waiting, {spell_duration(self.behind_s)} behind")
        if self.backlog is not None and self.backlog.bytes:
            parts.append(str(self.backlog))
        return "; ".join(parts)

    def note(self, reason: str, text: str) -> None:
        """Keep the first example of a reason, escaped and shortened."""
        if reason not in self.examples and len(self.examples) < MOST_EXAMPLES:
            self.examples[reason] = printable(
                text if len(text) <= EXAMPLE_CHARACTERS else text[:EXAMPLE_CHARACTERS] + "…"
            )

    def note_rows(self, rows: Iterable[RefusedRow], source: str = "") -> None:
        """Keep the first refused row of each reason."""
        for row in rows:
            if row.reason not in self.examples:
                self.note(row.reason, f"{source}line {row.line}: {row.detail}: {row.raw}")

    def shown_examples(self) -> list[str]:
        """One line for each reason that has an example."""
        return [f"  {printable(reason)}: {text}" for reason, text in sorted(self.examples.items())]

    @property
    def kinds(self) -> Kinds:
        """The rows and readings that were refused, remarked on and passed over, by reason."""
        return Kinds.of(self.counts)


async def report_often(report: Report) -> None:
    """Log the report every minute, until cancelled."""
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        logger.info("%s", report.now().line())
