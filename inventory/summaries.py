"""Summaries of hosts, from the newest readings of their GPUs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from math import fsum, isnan
from statistics import fmean
from typing import NamedTuple

import numpy as np

from inventory.models import GPU, AssetState, Host
from inventory.newest import HostNewest, fresh_since_of, newest_by_host
from inventory.packing import Floats, Ints
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
# Of more hosts, those that were not asked for are left out after reading.
_MOST_NAMED = 200


def host_summaries(
    names: Sequence[str] | None = None, *, newest: Mapping[str, HostNewest] | None = None
) -> list[HostSummary]:
    """A summary of each host, or of those named, sorted by name. A few queries, however many hosts and GPUs there are.

    A board counts once: with its own reading, else with the value of its MIG instances (see readings.mig). Stale GPUs,
    and single values as old as theirs, count in no mean or sum. Passing ``newest``, of all hosts, saves queries.
    """
    newest = newest_by_host() if newest is None else newest
    hosts = Host.objects.order_by("name")
    if names is not None and len(names) <= _MOST_NAMED:
        hosts = hosts.filter(name__in=names)
    wanted = None if names is None else set(names)
    boards = _boards(list(newest.values()))
    return [
        _summary(_HostRecord(*row), boards.get(row[0], _NO_BOARDS))
        for row in hosts.values_list("name", "last_seen", "asset_state", "owner", "tags")
        if wanted is None or row[0] in wanted
    ]


class _HostRecord(NamedTuple):
    name: str
    last_seen: datetime
    asset_state: str
    owner: str
    tags: Mapping[str, str]


class _HostBoards(NamedTuple):
    """The physical GPUs of a host, with their instances: ``values`` are those of each metric of _SHOWN that are not old."""

    stale: Sequence[bool]
    last_seen_ns: Sequence[int]
    values: Sequence[Sequence[float]]


_NO_BOARDS = _HostBoards((), (), ((), (), ()))


def _summary(host: _HostRecord, boards: _HostBoards) -> HostSummary:
    utilisation, power, memory = boards.values
    stale = sum(boards.stale)
    newest = [to_datetime(max(boards.last_seen_ns))] if boards.last_seen_ns else []
    return HostSummary(
        name=host.name,
        gpu_count=len(boards.stale),
        reporting=len(boards.stale) - stale,
        stale=stale,
        mean_utilisation=fmean(utilisation) if utilisation else None,
        power_watts=fsum(power) if power else None,
        memory_used_mib=fsum(memory) if memory else None,
        last_seen=max([host.last_seen, *newest]),
        asset_state=host.asset_state,
        owner=host.owner,
        tags=host.tags,
    )


def _boards(hosts: Sequence[HostNewest]) -> dict[str, _HostBoards]:
    """The boards of each host."""
    if not hosts:
        return {}
    since = fresh_since_of(hosts)
    last_seen = np.concatenate([host.last_seen_ns for host in hosts])
    stale = last_seen < since
    values = _fresh_values(hosts, since)
    is_board = np.ones(len(since), np.bool_)
    board_of = dict(GPU.objects.exclude(mig_id="").values_list("pk", "uuid"))
    first = np.cumsum([0, *(len(host.gpu_ids) for host in hosts)])
    for host, start in zip(hosts, first.tolist(), strict=False):
        if not board_of.keys().isdisjoint(host.gpu_ids):
            parts = _parts(host.gpu_ids, board_of, start)
            is_board[list(chain.from_iterable(parts.values()))] = False
            # An instance that was left behind when its board moved is no GPU of the host.
            for row, gpu_id in enumerate(host.gpu_ids, start):
                if of_board := parts.get(gpu_id):
                    stale[row] &= stale[of_board].all()
                    last_seen[row] = max(last_seen[row], last_seen[of_board].max())
                    _add_parts(values[row], values[of_board])
    bounds = np.concatenate(([0], np.cumsum(is_board)))[first].tolist()
    is_stale, last_ns, columns = stale[is_board].tolist(), last_seen[is_board].tolist(), values[is_board].T.tolist()
    return {
        host.hostname: _HostBoards(
            is_stale[start:end],
            last_ns[start:end],
            [[value for value in column[start:end] if not isnan(value)] for column in columns],
        )
        for host, start, end in zip(hosts, bounds, bounds[1:], strict=False)
    }


def _fresh_values(hosts: Sequence[HostNewest], since: Ints) -> Floats:
    """The values of _SHOWN that are not old, a row for each GPU; NaN for others."""
    found = np.full((len(since), len(_SHOWN)), np.nan)
    alike: dict[tuple[str, ...], list[tuple[HostNewest, int]]] = defaultdict(list)
    start = 0
    for host in hosts:
        alike[host.metric_names].append((host, start))
        start += len(host.gpu_ids)
    for names, placed in alike.items():
        rows = np.concatenate([np.arange(first, first + len(host.gpu_ids)) for host, first in placed])
        values = np.concatenate([host.values for host, _ in placed])
        times = np.concatenate([host.times_ns for host, _ in placed])
        for number, name in enumerate(_SHOWN):
            if name in names:
                column = names.index(name)
                fresh = (times[:, column] != 0) & (times[:, column] >= since[rows])
                found[rows, number] = np.where(fresh, values[:, column], np.nan)
    return found


def _parts(gpu_ids: Sequence[str], board_of: Mapping[str, str], start: int) -> dict[str, list[int]]:
    """The rows of a host's MIG instances by board, where the host's first GPU has this row."""
    parts: dict[str, list[int]] = defaultdict(list)
    for row, gpu_id in enumerate(gpu_ids, start):
        if gpu_id in board_of:
            parts[board_of[gpu_id]].append(row)
    return parts


def _add_parts(own: Floats, parts: Floats) -> None:
    """Sets what the board does not say itself to what its instances make."""
    for column, name in enumerate(_SHOWN):
        values = [value for value in parts[:, column].tolist() if not isnan(value)]
        if values and isnan(own[column]):
            own[column] = board_value(name, values)
