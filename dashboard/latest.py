"""The newest values of one GPU, as pages show them: with their age, and with what is absent and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from django.conf import settings

from dashboard.families import by_family, title_of
from inventory.newest import HostNewest
from readings.catalogue import info, unit_of
from readings.clock_events import clock_events
from readings.times import SECOND


class Newest(NamedTuple):
    """A value and the time of its reading in ns."""

    value: float
    time_ns: int


@dataclass(frozen=True, slots=True)
class LatestRow:
    """One line of the table. ``newest`` is None for a metric that other GPUs have and this one never gave.

    ``is_supported`` is False if no GPU of its model gives the metric.
    """

    metric_name: str
    title: str
    unit: str
    newest: Newest | None
    is_old: bool = False
    words: str = ""
    is_supported: bool = True

    @property
    def description(self) -> str:
        """What the catalogue says of the metric."""
        metric = info(self.metric_name)
        return metric.description if metric else ""


def newest_of(hosts: Mapping[str, HostNewest], gpu_id: str) -> dict[str, Newest]:
    """The newest value of each metric of a GPU or MIG instance."""
    for newest in hosts.values():
        if gpu_id in newest.gpu_ids:
            row = newest.gpu_ids.index(gpu_id)
            values, times = newest.values[row], newest.times_ns[row]
            return {
                newest.metric_names[column]: Newest(float(values[column]), int(times[column]))
                for column in np.flatnonzero(times > 0).tolist()
            }
    return {}


def is_old(newest: Newest, now_ns: int) -> bool:
    """Whether a value is too old to be that of now. For a GPU that reports, now is its newest reading."""
    return now_ns - newest.time_ns > int(settings.STALE_AFTER * SECOND)


def latest_table(
    values: Mapping[str, Newest],
    now_ns: int,
    elsewhere: Collection[str] = (),
    of_model: Collection[str] | None = None,
) -> dict[str, list[LatestRow]]:
    """The lines by family. ``now_ns`` is as in ``is_old``.

    ``elsewhere`` names metrics that other GPUs have, ``of_model`` those that GPUs of the same model have (None: not known).
    """
    return {
        family: [_row(name, values.get(name), now_ns, of_model is None or name in of_model) for name in names]
        for family, names in by_family({*values, *elsewhere}).items()
    }


def _row(name: str, newest: Newest | None, now_ns: int, is_supported: bool) -> LatestRow:
    unit, factor = SHOWN_IN.get(unit_of(name), (unit_of(name), 1.0))
    if newest is None:
        return LatestRow(name, title_of(name), unit, None, is_supported=is_supported)
    shown = newest._replace(value=newest.value * factor)
    return LatestRow(name, title_of(name), unit, shown, is_old(newest, now_ns), words_of(name, newest.value))


# Units that people read more easily, and what to multiply by. Charts of the same metrics use them too.
SHOWN_IN = {
    "ratio": ("%", 100.0),
    "ns": ("s", 1e-9),
    "mJ": ("kWh", 1 / 3.6e9),
    "KB/s": ("kB/s", 1.0),
    **dict.fromkeys(("count", "state", "code", "bool", "bitmask"), ("", 1.0)),
}


def words_of(metric_name: str, value: float) -> str:
    """The words for a code, a state or a bitmask; empty for a plain number."""
    if unit_of(metric_name) == "bitmask":
        return ", ".join(event.name for event in clock_events(value)) or "none"
    if unit_of(metric_name) == "bool":
        return "yes" if value else "no"
    if metric_name == "DCGM_FI_DEV_PSTATE":
        return f"P{value:.0f}"
    if metric_name == "DCGM_FI_DEV_XID_ERRORS":
        return f"XID {value:.0f}" if value else "none"
    return ""
