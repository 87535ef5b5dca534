"""The ground truth of a synthetic fleet: a line of JSON for each event that should come of a fault, or for a fault that none should come of."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ingest.errors import SourceError
from ingest.simulator.course import BegunFault
from ingest.simulator.faults import EVENT_NEEDS, NAMED, Expected
from readings.times import SECOND, format_time

Line = dict[str, Any]


def truth_lines(
    fault: BegunFault, time_ns: int, step_s: float, metrics: Collection[str], source: str
) -> Iterator[Line]:
    """The lines of a fault whose first bad sample is of ``time_ns``, in a fleet that reports ``metrics`` every ``step_s`` seconds.

    ``rule`` is null if no rule can see it: it is too short, or the metrics do not show it.
    """
    events = [
        event
        for event in fault.events
        if event.opens(fault.lasts_s, step_s)
        and set(NAMED[fault.name].metrics) <= set(metrics)
        and EVENT_NEEDS.get(event.rule, "") in {"", *metrics}
    ]
    seen: list[Expected | None] = [*events]
    for event in seen or [None]:
        kind = event.kind if event else "gpu" if fault.uuid else "host" if fault.hostname else "source"
        ends_ns = None if math.isinf(fault.lasts_s) else time_ns + round(fault.lasts_s * SECOND)
        yield {
            "fault": fault.name,
            "rule": event.rule if event else None,
            "entity": {"kind": kind, "id": {"gpu": fault.uuid, "host": fault.hostname, "source": source}[kind]},
            "subject": event.subject if event else "",
            "severity": event.severity if event else None,
            "starts": format_time(time_ns),
            "ends": None if ends_ns is None else format_time(ends_ns),
            "opens_by": _later(time_ns, event.opens_after(step_s)) if event else None,
            "closes_by": _closes_by(event, ends_ns, step_s),
            "hostname": fault.hostname,
        }


def _later(time_ns: int, seconds: float) -> str:
    return format_time(time_ns + round(seconds * SECOND))


def _closes_by(event: Expected | None, ends_ns: int | None, step_s: float) -> str | None:
    return None if event is None or event.stays or ends_ns is None else _later(ends_ns, event.closes_after(step_s))


class TruthFile:
    """Appends the lines to a file as the faults begin. Raises SourceError if it cannot be written."""

    def __init__(self, path: Path, source: str) -> None:
        self._path, self._source = path, source
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise SourceError(f"the truth cannot be written to {path}: {error.strerror}") from error

    def write(self, fault: BegunFault, time_ns: int, step_s: float, metrics: Collection[str]) -> None:
        """Write a fault's lines, so that whoever reads the file sees them at once."""
        try:
            for line in truth_lines(fault, time_ns, step_s, metrics, self._source):
                self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise SourceError(f"the truth cannot be written to {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
