"""The newest readings of the fleet, host by host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from django.conf import settings
from numpy.typing import NDArray

from inventory.models import GPU
from readings.times import SECOND, to_ns


@dataclass(frozen=True, slots=True)
class HostNewest:
    """The newest readings of a host's GPUs and MIG instances: row ``i`` of each array is of ``gpu_ids[i]``.

    ``values`` (float64, GPUs x metrics) has NaN and ``times_ns`` (int64, the same shape) 0 where there is no reading.
    ``last_seen_ns`` (int64) is each GPU's newest reading of all. ``live`` (bool): its times are those of a live source,
    not of a capture. ``sources`` names the streamer that gave the newest reading.
    """

    hostname: str
    gpu_ids: tuple[str, ...]
    last_seen_ns: NDArray[np.int64]
    live: NDArray[np.bool_]
    sources: tuple[str, ...]
    metric_names: tuple[str, ...]
    values: NDArray[np.float64]
    times_ns: NDArray[np.int64]


def newest_by_host(hostnames: Collection[str] | None = None) -> dict[str, HostNewest]:
    """The newest readings by host name, of all hosts or of those named. GPUs without a host are under ``""``."""
    gpus = GPU.objects.select_related("host").order_by("index", "id")
    if hostnames is not None:
        gpus = gpus.filter(host__name__in=hostnames)
    by_host: dict[str, list[GPU]] = defaultdict(list)
    for gpu in gpus:
        by_host[gpu.host.name if gpu.host else ""].append(gpu)
    return {name: _packed(name, rows) for name, rows in by_host.items()}


def stale_mask(
    last_seen_ns: NDArray[np.int64], live: NDArray[np.bool_], sources: Sequence[str], now_ns: int
) -> NDArray[np.bool_]:
    """Which GPUs are stale: their newest reading is more than STALE_AFTER old. Row ``i`` of each argument is one GPU.

    A live source's readings age by the clock, ``now_ns``. Those of a capture age by the newest reading of its source, so
    that a replay is not all stale: give all GPUs of a source, or of the fleet, at once.
    """
    reference = np.full(len(last_seen_ns), now_ns, np.int64)
    if not live.all():
        of_source = np.unique(np.array(sources, np.str_), return_inverse=True)[1].reshape(-1)
        newest = np.zeros(len(last_seen_ns), np.int64)
        np.maximum.at(newest, of_source[~live], last_seen_ns[~live])
        reference = np.where(live, reference, newest[of_source])
    return np.asarray(reference - last_seen_ns > int(settings.STALE_AFTER * SECOND), np.bool_)


def _packed(hostname: str, gpus: list[GPU]) -> HostNewest:
    names = tuple(sorted({name for gpu in gpus for name in gpu.latest}))
    columns = {name: column for column, name in enumerate(names)}
    values = np.full((len(gpus), len(names)), np.nan)
    times = np.zeros((len(gpus), len(names)), np.int64)
    for row, gpu in enumerate(gpus):
        for name, (value, time_ns) in gpu.latest.items():
            values[row, columns[name]], times[row, columns[name]] = value, time_ns
    return HostNewest(
        hostname,
        tuple(gpu.pk for gpu in gpus),
        np.array([to_ns(gpu.last_seen) for gpu in gpus], np.int64),
        np.zeros(len(gpus), np.bool_),
        ("",) * len(gpus),
        names,
        values,
        times,
    )
