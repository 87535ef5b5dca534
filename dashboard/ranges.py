"""The range of time that a page shows, as its URL says: a preset, or two times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import time_ns

from readings.times import format_time, parse_duration, parse_time

PRESETS = ("15m", "1h", "6h", "24h", "7d", "30d")
# Those that most pages offer; 30 days of readings are kept by few.
SHOWN_PRESETS = PRESETS[:-1]
DEFAULT_PRESET = "1h"


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A range in nanoseconds, [start, end). ``preset`` is empty for an absolute range, which does not move with the clock."""

    start_ns: int
    end_ns: int
    preset: str = ""

    @property
    def start(self) -> str:
        """Its start as text."""
        return format_time(self.start_ns)

    @property
    def end(self) -> str:
        """Its end as text."""
        return format_time(self.end_ns)


def range_of(query: Mapping[str, str], anchor_ns: int | None = None, default: str = DEFAULT_PRESET) -> TimeRange:
    """The range of ``range=1h`` or ``start=…&end=…``. A preset ends at ``anchor_ns``, else now.

    What cannot be read is as if it were not there: a page with a bad link shows ``default``.
    """
    end_ns = time_ns() if anchor_ns is None else anchor_ns
    try:
        start, end = parse_time(query["start"]), parse_time(query["end"])
        if start < end:
            return TimeRange(start, end)
    except (KeyError, ValueError):
        pass
    preset = query.get("range", default)
    if preset not in PRESETS:
        preset = default
    return TimeRange(end_ns - parse_duration(preset), end_ns, preset)
