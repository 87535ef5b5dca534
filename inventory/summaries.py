"""How each host is doing, from the newest readings of its GPUs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import fsum
from statistics import fmean

import msgspec
from django.db.models import TextField
from django.db.models.functions import Cast

from inventory.board import MEMORY_USED, POWER, UTILISATION
from inventory.models import GPU, Host
from inventory.queries import parse_moment, stale_before
from inventory.sync.seen import to_ns


@dataclass(frozen=True, slots=True)
class HostSummary:
    """One host. Counts are of physical GPUs; utilisation in %, power in W, memory in MiB; None where nothing is known."""

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
    """The newest readings of a physical GPU (``own``, None until its row came) and of its instances."""

    last_seen: datetime
    own: dict[str, float] | None = None
    instances: list[dict[str, float]] = field(default_factory=list)

    def value(self, metric_name: str, combine: Callable[[Iterable[float]], float]) -> float | None:
        """The board's own value, else what its instances make together."""
        if self.own is not None and metric_name in self.own:
            return self.own[metric_name]
        values = [instance[metric_name] for instance in self.instances if metric_name in instance]
        return combine(values) if values else None


def host_summaries(names: Sequence[str] | None = None, *, cutoff: datetime | None = None) -> list[HostSummary]:
    """A summary of each host, or of those named, sorted by name. Three queries, however many hosts and GPUs there are.

    A board counts once, also when it has MIG instances: its power as the board's, its memory as its own reading or the
    sum of its instances', its utilisation as its own or their mean. Values of stale GPUs, and single values as old as
    theirs, are in no mean and no sum, so these are of what reports now. ``cutoff`` saves a query where ``stale_before``
    was already asked.
    """
    cutoff = cutoff or stale_before()
    hosts = Host.objects.order_by("name")
    gpus = GPU.objects.filter(host__isnull=False)
    if names is not None:
        hosts = hosts.filter(name__in=names)
        gpus = gpus.filter(host__name__in=names)
    # As text: Django would make a dict of every value that a GPU has, and a datetime of each time.
    text = [Cast(name, TextField()) for name in ("last_seen", "latest")]
    boards = _boards(gpus.values_list("host_id", "uuid", "mig_id", *text), cutoff)
    # An instance that stayed behind when its board moved is no GPU of the host.
    return [
        _summary(host, [board for board in boards[host.pk].values() if board.own is not None], cutoff) for host in hosts
    ]


class _Latest(msgspec.Struct):
    """Of a GPU's newest readings, [value, time in ns] each, those that sums are made of."""

    utilisation: tuple[float, int] | None = msgspec.field(name=UTILISATION, default=None)
    power: tuple[float, int] | None = msgspec.field(name=POWER, default=None)
    memory_used: tuple[float, int] | None = msgspec.field(name=MEMORY_USED, default=None)


_decode_latest = msgspec.json.Decoder(_Latest).decode


def _boards(
    rows: Iterable[tuple[int | None, str, str, str, str]], cutoff: datetime | None
) -> dict[int | None, dict[str, _Board]]:
    found: dict[int | None, dict[str, _Board]] = defaultdict(dict)
    # Readings' times are cut to microseconds before they are compared.
    oldest_ns = None if cutoff is None else to_ns(cutoff)
    for host_id, uuid, mig_id, seen, latest_text in rows:
        last_seen = parse_moment(seen)
        board = found[host_id].setdefault(uuid, _Board(last_seen))
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
    return found


def _summary(host: Host, boards: list[_Board], cutoff: datetime | None) -> HostSummary:
    reporting = [board for board in boards if cutoff is None or board.last_seen >= cutoff]

    def values(metric_name: str, combine: Callable[[Iterable[float]], float]) -> list[float]:
        return [value for board in reporting if (value := board.value(metric_name, combine)) is not None]

    utilisation, power, memory = values(UTILISATION, fmean), values(POWER, max), values(MEMORY_USED, fsum)
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
