"""Power: who draws it now, what idles, what is left to the limits, and energy over the range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from api.fleet import shared_prefix
from api.views.query import choose_step
from dashboard.fleet_rows import Place, choices, chosen, codes, order_of, ordered, place
from dashboard.questions import ask_series
from dashboard.views.page import Page
from inventory.fleet import Fleet, SlotState, fleet_now
from readings.mig import POWER, UTILISATION
from readings.times import SECOND
from stores.aggregate.buckets import Buckets
from stores.base import GroupSeries, TooBusy, TooMuch

LIMIT = "DCGM_FI_DEV_ENFORCED_POWER_LIMIT"
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"

GROUPS = ("model", "host", "namespace", "owner")
MOST_GROUPS = 30
MOST_GPUS = 30
MOST_GPUS_FOR_ENERGY = 1000
# A counter that grew by more than this many times what the GPU can have drawn did not count: it was set.
DOUBT = 1.5
# Shorter windows would miss GPUs that are read each half minute.
SHORTEST_STEP_NS = 60 * SECOND
_COLUMNS = ("watts", "share", "util")
_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Draw:
    """What each row of the fleet says about power (float64, NaN where unknown). ``share`` is % of the limit that holds."""

    watts: NDArray[np.float64]
    limit: NDArray[np.float64]
    share: NDArray[np.float64]
    util: NDArray[np.float64]

    @classmethod
    def of(cls, fleet: Fleet) -> Draw:
        """The fleet's, of GPUs that report now."""
        watts, limit = fleet.metric(POWER), fleet.metric(LIMIT)
        limit = np.where(limit > 0, limit, np.nan)
        return cls(watts, limit, 100 * watts / limit, fleet.metric(UTILISATION))


class Sums(NamedTuple):
    """Sums over some GPUs, in W. ``limit`` and ``headroom`` are over those that send both power and limit; None: none does."""

    gpus: int
    watts: float | None
    idle_gpus: int
    idle_watts: float
    limited: int
    limit: float | None
    headroom: float | None

    @classmethod
    def of(cls, draw: Draw, kept: NDArray[np.bool_]) -> Sums:
        """Sums the newest reading of each GPU: never over time."""
        known = kept & ~np.isnan(draw.watts)
        idle = known & (draw.util == 0)
        both = known & ~np.isnan(draw.limit)
        count, limited = int(np.count_nonzero(known)), int(np.count_nonzero(both))
        limit = float(draw.limit[both].sum()) if limited else None
        return cls(
            count,
            float(draw.watts[known].sum()) if count else None,
            int(np.count_nonzero(idle)),
            float(draw.watts[idle].sum()),
            limited,
            limit,
            None if limit is None else limit - float(draw.watts[both].sum()),
        )

    @property
    def mean(self) -> float | None:
        """W for each GPU."""
        return None if self.watts is None else self.watts / self.gpus


class Group(NamedTuple):
    """The GPUs of one model, host, namespace or owner. ``name`` is empty for those without one; ``share`` in %."""

    name: str
    sums: Sums
    share: float


class Consumer(NamedTuple):
    """A row of the table of GPUs."""

    place: Place
    watts: float
    share: float
    util: float


def names_of(fleet: Fleet, by: str) -> tuple[str, ...]:
    """The name of each row's group."""
    match by:
        case "model":
            return fleet.models
        case "namespace":
            return fleet.namespaces
    names = [host.name if by == "host" else host.owner for host in fleet.hosts]
    return tuple(names[host] for host in fleet.host.tolist())


def groups(fleet: Fleet, draw: Draw, kept: NDArray[np.bool_], by: str) -> list[Group]:
    """The groups with known power, the largest first."""
    total = float(np.nansum(draw.watts[kept])) or 1.0
    names, numbers = codes(names_of(fleet, by))
    found = []
    for number, name in enumerate(names):
        sums = Sums.of(draw, kept & (numbers == number))
        if sums.watts is not None:
            found.append(Group(name, sums, 100 * sums.watts / total))
    return sorted(found, key=lambda group: -group.share)


def consumers(fleet: Fleet, draw: Draw, kept: NDArray[np.bool_], sort: str) -> list[Consumer]:
    """The first MOST_GPUS GPUs in the order that is asked for."""
    order = order_of(sort, "-watts", _COLUMNS)
    rows = ordered(np.flatnonzero(kept & ~np.isnan(draw.watts)), getattr(draw, order.key), descending=order.descending)
    return [
        Consumer(place(fleet, row), *(float(values[row]) for values in (draw.watts, draw.share, draw.util)))
        for row in rows[:MOST_GPUS].tolist()
    ]


class PowerPage(Page):
    """Who draws the power."""

    title = "Power"
    menu = "power"
    template_name = "dashboard/power.html"

    def page_context(self) -> dict[str, Any]:
        fleet = fleet_now()
        query = self.request.GET.dict()
        draw = Draw.of(fleet)
        kept = chosen(fleet, query)
        by = query.get("by", "")
        by = by if by in GROUPS else GROUPS[0]
        found = groups(fleet, draw, kept, by)
        shown = consumers(fleet, draw, kept, query.get("sort", ""))
        prefix = shared_prefix([host.name for host in fleet.hosts])
        self._script = {"gpus": len(fleet), "most_gpus": MOST_GPUS_FOR_ENERGY, "host_prefix": prefix}
        return {
            "fleet": fleet,
            "prefix": prefix,
            "choices": choices(fleet, query),
            "by": by,
            "group_names": GROUPS,
            "groups": found[:MOST_GROUPS],
            "group_count": len(found),
            "totals": Sums.of(draw, kept),
            "reporting": int(np.count_nonzero(kept & fleet.rows_in(SlotState.REPORTING))),
            "gpus": shown,
            "most": next(iter(consumers(fleet, draw, kept, "-watts")), None),
        }

    def data(self) -> dict[str, Any]:
        return self._script


class Energy(NamedTuple):
    """Energy in a range, kWh: of ``counted`` GPUs by their own counters, of ``estimated`` ones by mean power and time.

    ``covered`` is the share in % of the range for which the estimate had readings; None without an estimate. Of the estimated
    GPUs, ``doubted`` have a counter that grew by more than the GPU can draw.
    """

    kwh: float
    counted: int
    counted_kwh: float
    estimated: int
    estimated_kwh: float
    covered: float | None
    doubted: int


def energy(counters: list[GroupSeries], power: list[GroupSeries], step_ns: int, range_ns: int) -> Energy | None:
    """The energy of GPUs with a counter, and an estimate for the others. None without any reading.

    ``counters``: how much each GPU's counter (mJ) grew in each window; ``power``: each GPU's mean power (W) in each window.
    """
    grown = {series.group[0]: sum(known) / 1000 for series in counters if (known := _known(series))}
    drawn = {series.group[0]: known for series in power if (known := _known(series))}
    seconds = range_ns / SECOND
    doubted = {gpu for gpu, joules in grown.items() if gpu in drawn and joules > DOUBT * max(drawn[gpu]) * seconds}
    counted = [joules for gpu, joules in grown.items() if gpu not in doubted]
    estimated = [watts for gpu, watts in drawn.items() if gpu not in grown or gpu in doubted]
    if not counted and not estimated:
        return None
    step = step_ns / SECOND
    covered = min(100.0, 100 * sum(map(len, estimated)) * step / (len(estimated) * seconds)) if estimated else None
    counted_kwh, estimated_kwh = sum(counted) / _JOULES_PER_KWH, sum(map(sum, estimated)) * step / _JOULES_PER_KWH
    return Energy(
        counted_kwh + estimated_kwh, len(counted), counted_kwh, len(estimated), estimated_kwh, covered, len(doubted)
    )


def _known(series: GroupSeries) -> list[float]:
    return [value for value in series.values if value is not None]


class EnergyPart(Page):
    """The part of the page that asks the store: energy in the range."""

    title = "Energy"
    menu = "power"
    template_name = "dashboard/power_energy.html"

    def page_context(self) -> dict[str, Any]:
        fleet = fleet_now()
        query = self.request.GET.dict()
        asked = int(np.count_nonzero(chosen(fleet, query)))
        if asked > MOST_GPUS_FOR_ENERGY:
            return {
                "why_not": f"Not asked: it would read every reading of {asked:,} GPUs. Choose a host or a namespace."
            }
        shown = self.range
        step_ns = max(SHORTEST_STEP_NS, choose_step(shown.start_ns, shown.end_ns))
        buckets = Buckets(shown.start_ns, shown.end_ns, step_ns)
        try:
            counters = (
                ask_series(ENERGY, "increase", buckets, query, by="gpu") if ENERGY in fleet.metric_names() else []
            )
            power = ask_series(POWER, "mean", buckets, query, by="gpu")
        except (TooBusy, TooMuch) as error:
            return {"why_not": f"The store does not answer it: {error}."}
        found = energy(counters, power, step_ns, shown.end_ns - shown.start_ns)
        return {"energy": found, "every": step_ns / SECOND}
