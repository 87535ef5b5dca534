"""Which times readings get: their own, the time of sending, or their own shifted so that the last one is now."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from readings.times import SECOND, format_time, spell_duration

if TYPE_CHECKING:
    from readings.columns import Columns, Ints  # with numpy, which a live source does without


@dataclass(frozen=True, slots=True)
class Choice:
    """What TIMESTAMPS means for one capture: ``mode`` source, now or shift, the shift, and a line that explains it."""

    mode: str
    shift_ns: int = 0
    explanation: str = ""


def choose(wish: str, last_ns: int | None, *, retention: float, now_ns: int) -> Choice:
    """Choose for a capture whose newest reading is at ``last_ns`` (None: it has no usable time).

    ``auto`` keeps the times unless retention (seconds, 0: for ever) would drop the newest reading. Shifts are whole
    seconds, so that times keep their short form.
    """
    if wish in {"source", "now"} or last_ns is None:
        return Choice("source" if wish in {"auto", "shift"} else wish)
    age_ns = now_ns - last_ns
    if wish == "auto" and (retention == 0 or age_ns < retention * SECOND):
        return Choice("source", 0, f"TIMESTAMPS=auto: times are kept; the last reading is of {format_time(last_ns)}")
    shift_ns = age_ns // SECOND * SECOND
    moved = f"times are moved {'forward' if shift_ns >= 0 else 'back'} by {spell_duration(abs(shift_ns) / SECOND)}"
    if wish == "shift":
        return Choice("shift", shift_ns, f"TIMESTAMPS=shift: {moved}, so that the last reading is now")
    return Choice(
        "shift",
        shift_ns,
        f"TIMESTAMPS=auto: the last reading, of {format_time(last_ns)}, is older than RETENTION_PERIOD "
        f"({spell_duration(retention)}): {moved}; set TIMESTAMPS=source and RETENTION_PERIOD=0 to keep them",
    )


@dataclass(slots=True)
class Stamper:
    """Sets the times of readings. Remembers the last time of each series, so that ``now`` never repeats one."""

    choice: Choice
    clock: Callable[[], int] = time.time_ns
    _last: dict[tuple[str, str], int] = field(default_factory=dict)

    def stamp(self, columns: Columns) -> Columns:
        """The readings with the times to publish them with."""
        if self.choice.mode == "now":
            return columns._replace(time_ns=self._now_for(columns)) if columns.size else columns
        return columns.shifted(self.choice.shift_ns) if self.choice.shift_ns else columns

    def _now_for(self, columns: Columns) -> Ints:
        """One time for all, so that the metrics of a GPU share a point. A series with several readings counts up from it."""
        now, last, series = self.clock(), self._last, columns.series()
        begin = []
        for key, count in zip(series.ids, series.counts.tolist(), strict=True):
            begin.append(max(now, last.get(key, 0) + 1))
            last[key] = begin[-1] + count - 1
        return series.numbered(begin)
