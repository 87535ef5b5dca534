"""Summaries of hosts, from the newest readings of their GPUs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import fsum
from statistics import fmean

import msgspec
from django.db.models import TextField
from django.db.models.functions import Cast

from inventory.models import GPU, Host
from inventory.queries import parse_moment, stale_before
from readings.mig import MEMORY_USED, POWER, UTILISATION, board_value
from readings.times import to_ns


@dataclass(frozen=True, slots=True)
class HostSummary:
    """One host. Counts are of physical GPUs; utilisation in %, power in W, memory in MiB; None where unknown."""

    name: str
    gpu_count: int
    reporting: int
    stale: int
    mean_utilisation: float | None
    power_watts: float | None
    memory_used_mib: float | None
    last_seen: datetime


@dataclass(slots=True)
class _Board:
    """The newest readings of a physical GPU (``own``; None before its row was read) and of its instances."""

    last_seen: datetime
    own: dict[str, float] | None = None
    instances: list[dict[str, float]] = field(default_factory=list)

    def value(self, metric_name: str) -> float | None:
        """The board's own value, else the one that its instances make."""
        if self.own is not None and metric_name in self.own:
            return self.own[metric_name]
        values = [instance[metric_name] for instance in self.instances if metric_name in instance]
        return board_value(metric_name, values) if values else None


def host_summaries(names: Sequence[str] | None = None, *, cutoff: datetime | None = None) -> list[HostSummary]:
    """A summary of each host, or of those named, sorted by name. Three queries, however many hosts and GPUs there are.

    A board counts once: with its own reading, else with the value of its MIG instances (see readings.mig). Stale GPUs,
    and single values as old as theirs, count in no mean or sum. Passing ``cutoff`` (from ``stale_before``) saves a
    query.
    """
    cutoff = cutoff or stale_before()
    hosts = Host.objects.order_by("name")
    gpus = GPU.objects.filter(host__isnull=False)
    if names is not None:
        hosts = hosts.filter(name__in=names)
        gpus = gpus.filter(host__name__in=names)
    # As text: Django would build a dict of all values of each GPU, and a datetime of each time.
    text = [Cast(name, TextField()) for name in ("last_seen", "latest")]
    boards = _boards(gpus.values_list("host_id", "uuid", "mig_id", *text), cutoff)
    # An instance that was left behind when its board moved is no GPU of the host.
    return [
        _summary(host, [board for board in boards[host.pk].values() if board.own is not None], cutoff) for host in hosts
    ]


class _Latest(msgspec.Struct):
    """The newest readings, [value, time in ns], of the metrics in a summary."""

    utilisation: tuple[float, int] | None = msgspec.field(name=UTILISATION, default=None)
    power: tuple[float, int] | None = msgspec.field(name=POWER, default=None)
    memory_used: tuple[float, int] | None = msgspec.field(name=MEMORY_USED, default=None)


_decode_latest = msgspec.json.Decoder(_Latest).decode


def _boards(
    rows: Iterable[tuple[int | None, str, str, str, str]], cutoff: datetime | None
) -> dict[int | None, dict[str, _Board]]:
    by_host: dict[int | None, dict[str, _Board]] = defaultdict(dict)
    # Readings' times are cut to microseconds before they are compared.
    oldest_ns = None if cutoff is None else to_ns(cutoff)
    for host_id, uuid, mig_id, seen, latest_text in rows:
        last_seen = parse_moment(seen)
        board = by_host[host_id].setdefault(uuid, _Board(last_seen))
        board.last_seen = max(board.last_seen, last_seen)
        latest = _decode_latest(latest_text)
        values = {
            name: reading[0]
            for name, reading in (
                (UTILISATION, latest.utilisation),
                (POWER, latest.power),
                (MEMORY_USED, latest.memory_used),
            )
            if reading is not None and (oldest_ns is None or reading[1] >= oldest_ns)
        }
        if mig_id:
            board.instances.append(values)
        else:
            board.own = values
    return by_host


def _summary(host: Host, boards: list[_Board], cutoff: datetime | None) -> HostSummary:
    reporting = [board for board in boards if cutoff is None or board.last_seen >= cutoff]

    def values(metric_name: str) -> list[float]:
        return [value for board in reporting if (value := board.value(metric_name)) is not None]

    utilisation, power, memory = values(UTILISATION), values(POWER), values(MEMORY_USED)
    return HostSummary(
        name=host.name,
        gpu_count=len(boards),
        reporting=len(reporting),
        stale=len(boards) - len(reporting),
        mean_utilisation=fmean(utilisation) if utilisation else None,
        power_watts=fsum(power) if power else None,
        memory_used_mib=fsum(memory) if memory else None,
        last_seen=host.last_seen,
    )
