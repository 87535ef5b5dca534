"""Summaries of hosts, from the newest readings of their GPUs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import fsum
from statistics import fmean

from inventory.models import GPU, AssetState, Host
from inventory.newest import HostNewest, newest_by_host
from inventory.queries import Ages, ages_now
from readings.mig import MEMORY_USED, POWER, UTILISATION, board_value
from readings.times import to_datetime


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
    asset_state: str = AssetState.ACTIVE
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


_SHOWN = (UTILISATION, POWER, MEMORY_USED)


@dataclass(slots=True)
class _Board:
    """The newest readings of a physical GPU (``own``; None before its row was read) and of its instances."""

    last_seen_ns: int
    stale: bool
    own: dict[str, float] | None = None
    instances: list[dict[str, float]] = field(default_factory=list)

    def value(self, metric_name: str) -> float | None:
        """The board's own value, else the one that its instances make."""
        if self.own is not None and metric_name in self.own:
            return self.own[metric_name]
        values = [instance[metric_name] for instance in self.instances if metric_name in instance]
        return board_value(metric_name, values) if values else None


def host_summaries(names: Sequence[str] | None = None, *, ages: Ages | None = None) -> list[HostSummary]:
    """A summary of each host, or of those named, sorted by name. A few queries, however many hosts and GPUs there are.

    A board counts once: with its own reading, else with the value of its MIG instances (see readings.mig). Stale GPUs,
    and single values as old as theirs, count in no mean or sum. Passing ``ages`` saves queries.
    """
    ages = ages or ages_now()
    hosts = Host.objects.order_by("name")
    gpus = GPU.objects.exclude(host=None)
    if names is not None:
        hosts = hosts.filter(name__in=names)
        gpus = gpus.filter(host__name__in=names)
    newest = newest_by_host(names)
    boards = _boards(gpus.values_list("host__name", "pk", "uuid", "mig_id"), newest, ages)
    # An instance that was left behind when its board moved is no GPU of the host.
    return [_summary(host, [board for board in boards[host.name].values() if board.own is not None]) for host in hosts]


def _fresh_values(newest: Iterable[HostNewest], ages: Ages) -> dict[str, dict[str, float]]:
    """The values that summaries show and that are not old, by GPU id and metric name."""
    fresh: dict[str, dict[str, float]] = defaultdict(dict)
    for host in newest:
        for name in _SHOWN:
            if name not in host.metric_names:
                continue
            column = host.metric_names.index(name)
            rows = zip(host.gpu_ids, host.values[:, column].tolist(), host.times_ns[:, column].tolist(), strict=True)
            for gpu_id, value, time_ns in rows:
                if time_ns and time_ns >= ages.fresh_since_ns.get(gpu_id, 0):
                    fresh[gpu_id][name] = value
    return fresh


def _boards(
    rows: Iterable[tuple[str, str, str, str]], newest: Mapping[str, HostNewest], ages: Ages
) -> dict[str, dict[str, _Board]]:
    by_host: dict[str, dict[str, _Board]] = defaultdict(dict)
    fresh = _fresh_values(newest.values(), ages)
    for hostname, gpu_id, uuid, mig_id in rows:
        last_seen_ns, stale = ages.last_seen_ns.get(gpu_id, 0), gpu_id in ages.stale
        board = by_host[hostname].setdefault(uuid, _Board(last_seen_ns, stale))
        board.last_seen_ns = max(board.last_seen_ns, last_seen_ns)
        board.stale = board.stale and stale
        values = fresh.get(gpu_id, {})
        if mig_id:
            board.instances.append(values)
        else:
            board.own = values
    return by_host


def _summary(host: Host, boards: list[_Board]) -> HostSummary:
    reporting = [board for board in boards if not board.stale]

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
        last_seen=max([host.last_seen, *(to_datetime(board.last_seen_ns) for board in boards)]),
        asset_state=host.asset_state,
        owner=host.owner,
        tags=host.tags,
    )
