"""Snapshots of made-up fleets, for what is shown of them."""

from __future__ import annotations

from typing import Any

from dashboard.top.feed import (
    Broker,
    Counts,
    FleetNow,
    GpuColumns,
    HostRow,
    PipelineNow,
    ReadingCounts,
    Snapshot,
    StoreNow,
    Subscriber,
    Totals,
)
from dashboard.top.summary import Summary, summarise

TIME = "2026-11-28T11:33:03Z"


def pipeline(**fields: Any) -> PipelineNow:
    """A pipeline that is well, unless told otherwise."""
    told: dict[str, Any] = {
        "broker": Broker(True, None),
        "subscribers": [Subscriber("collector-1", 12, True)],
        "readings": ReadingCounts(1_234_567, {"blank": 3, "spike": 4}),
        "store": StoreNow(3.4),
    }
    return PipelineNow(**(told | fields))


def snapshot(hosts: int = 4, per_host: int = 8, *, name: str = "host-{:03d}", **columns: Any) -> Snapshot:
    """GPUs whose load, temperature and power rise with their number. Every fourth is idle; each second of these is held.

    ``columns`` replaces columns; the counts follow ``state``.
    """
    count = hosts * per_host
    numbers = range(count)
    idle = [number % 4 == 0 for number in numbers]
    told: dict[str, Any] = {
        "host": [number // per_host for number in numbers],
        "slot": [number % per_host for number in numbers],
        "id": [f"GPU-{number:08x}" for number in numbers],
        "state": [0] * count,
        "namespace": [number % 2 for number in numbers],
        "pod": [-1 if number % 3 == 0 else 0 for number in numbers],
        "utilisation": [0 if is_idle else min(100, number) for number, is_idle in enumerate(idle)],
        "temperature": [30 + number % 60 for number in numbers],
        "power": [70.5 + number % 600 for number in numbers],
        "memory_used": [7 if number % 8 == 0 else 40_000 + number for number in numbers],
        "memory_total": [81_559] * count,
    }
    gpus = GpuColumns(**(told | columns))
    reporting, stale, missing = (gpus.state.count(state) for state in range(3))
    counts = Counts(hosts, count, len(gpus.state), reporting, stale, missing, gpus.state.count(3), 8, 4, 1, 2)
    totals = Totals(43.781, 100.0, count * 40_000.0, count * 81_559.0, count * 300.0, count * 20.0)
    names = [HostRow(name.format(number)) for number in range(hosts)]
    fleet = FleetNow("2026-11-28T11:33:00Z", True, counts, totals, names, ["blue", "red"], ["train-1"], gpus)
    return Snapshot(fleet, pipeline())


def summary(shown: Snapshot, rows: int = 100) -> Summary:
    """The summary of a snapshot."""
    return summarise(shown, time=TIME, source="here", rows=rows)
