"""Heat: which GPUs and hosts are hot, and which GPUs are throttled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from api.fleet import shared_prefix
from api.views.bands import SMALL_FLEET
from api.views.query import choose_step
from dashboard.fleet_rows import (
    Place,
    choices,
    chosen,
    codes,
    group_median,
    order_of,
    ordered,
    place,
)
from dashboard.questions import ask_series
from dashboard.views.page import Page
from inventory.fleet import Fleet, fleet_now
from readings.clock_events import CLOCK_EVENT_BITS, CLOCK_EVENTS, FAULT_BITS, ClockEvent, clock_events
from readings.mig import POWER, TEMPERATURE, UTILISATION
from readings.times import SECOND
from stores.aggregate.buckets import Buckets
from stores.base import GroupSeries, TooBusy, TooMuch

MEMORY_TEMPERATURE = "DCGM_FI_DEV_MEMORY_TEMP"
MARGIN = "DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS"
SLOWDOWN = "DCGM_FI_DEV_GPU_TEMP_SLOWDOWN_CELSIUS"
SM_CLOCK = "DCGM_FI_DEV_SM_CLOCK"
HOT_CELSIUS = 85.0

MOST_GPUS = 50
MOST_HOSTS = 20
MOST_GPUS_FOR_TIMES = 1000
# A line through fewer points, or through points of nearly one power, says nothing about airflow.
LEAST_FOR_FIT = 16
LEAST_POWER_SPREAD = 50.0
_COLUMNS = ("temperature", "memory", "over", "margin", "util", "power", "clock")


@dataclass(frozen=True, slots=True)
class Heat:
    """What each row of the fleet says about heat (float64, NaN where unknown); all of GPUs that report now."""

    temperature: NDArray[np.float64]
    memory: NDArray[np.float64]
    over: NDArray[np.float64]
    margin: NDArray[np.float64]
    util: NDArray[np.float64]
    power: NDArray[np.float64]
    clock: NDArray[np.float64]
    mask: NDArray[np.float64]

    @classmethod
    def of(cls, fleet: Fleet) -> Heat:
        """The fleet's. The margin is the GPU's own, else what is left to its slowdown temperature."""
        temperature = fleet.metric(TEMPERATURE)
        margin, slowdown = fleet.metric(MARGIN), fleet.metric(SLOWDOWN)
        return cls(
            temperature=temperature,
            memory=fleet.metric(MEMORY_TEMPERATURE),
            over=temperature - group_median(temperature, codes(fleet.models)[1]),
            margin=np.where(np.isnan(margin), slowdown - temperature, margin),
            util=fleet.metric(UTILISATION),
            power=fleet.metric(POWER),
            clock=fleet.metric(SM_CLOCK),
            mask=fleet.metric(CLOCK_EVENTS),
        )

    @property
    def throttled(self) -> NDArray[np.bool_]:
        """Whose clocks heat or a lack of power holds down."""
        is_fault: NDArray[np.bool_] = (np.nan_to_num(self.mask).astype(np.int64) & FAULT_BITS) != 0
        return is_fault


class HotGpu(NamedTuple):
    """A row of the table of GPUs. ``events`` is None where the GPU does not say why its clocks are low."""

    place: Place
    events: list[ClockEvent] | None
    temperature: float
    memory: float
    over: float
    margin: float
    util: float
    power: float
    clock: float


class HotHost(NamedTuple):
    """A row of the table of hosts, in °C. ``unexplained`` is what the GPUs' power does not explain, NaN where unknown."""

    name: str
    gpus: int
    mean: float
    hottest: float
    over: float
    unexplained: float


class Held(NamedTuple):
    """How many GPUs give one reason now."""

    event: ClockEvent
    gpus: int


def hot_gpus(fleet: Fleet, heat: Heat, kept: NDArray[np.bool_], sort: str) -> list[HotGpu]:
    """The first MOST_GPUS rows in the order that is asked for."""
    order = order_of(sort, "-temperature", _COLUMNS)
    rows = np.flatnonzero(kept & ~(np.isnan(heat.temperature) & np.isnan(heat.mask)))
    rows = ordered(rows, getattr(heat, order.key), descending=order.descending)[:MOST_GPUS]
    return [
        HotGpu(
            place(fleet, row),
            None if np.isnan(heat.mask[row]) else clock_events(heat.mask[row]),
            *(float(getattr(heat, name)[row]) for name in _COLUMNS),
        )
        for row in rows.tolist()
    ]


def unexplained(
    temperature: NDArray[np.float64], power: NDArray[np.float64], models: NDArray[np.intp]
) -> NDArray[np.float64]:
    """°C above the line that a model's GPUs follow from power to temperature: what is left is cooling, not load.

    NaN where a model has too few GPUs, or all draw about the same.
    """
    rest = np.full(len(temperature), np.nan)
    for model in np.unique(models):
        known = np.flatnonzero((models == model) & ~np.isnan(temperature) & ~np.isnan(power))
        if len(known) < LEAST_FOR_FIT or np.ptp(power[known]) < LEAST_POWER_SPREAD:
            continue
        slope, offset = np.polyfit(power[known], temperature[known], 1)
        rest[known] = temperature[known] - (slope * power[known] + offset)
    return rest


def hot_hosts(fleet: Fleet, heat: Heat, kept: NDArray[np.bool_]) -> list[HotHost]:
    """The hosts that are hottest for what they do: first what power does not explain, else what is over the median."""
    rest = unexplained(heat.temperature, heat.power, codes(fleet.models)[1])
    found = []
    known = kept & ~np.isnan(heat.temperature)
    for host in fleet.hosts:
        rows = np.arange(host.rows.start, host.rows.stop)
        rows = rows[known[rows]]
        if not len(rows):
            continue
        temperatures, left = heat.temperature[rows], rest[rows]
        found.append(
            HotHost(
                host.name,
                len(rows),
                float(temperatures.mean()),
                float(temperatures.max()),
                float(heat.over[rows].mean()),
                float(np.nanmean(left)) if not np.isnan(left).all() else np.nan,
            )
        )
    found.sort(key=lambda host: -(host.over if np.isnan(host.unexplained) else host.unexplained))
    return found[:MOST_HOSTS]


def held(heat: Heat, kept: NDArray[np.bool_]) -> list[Held]:
    """Every reason with the number of GPUs that give it; faults first."""
    masks = heat.mask[kept & ~np.isnan(heat.mask)].astype(np.int64)
    counts = [Held(event, int(np.count_nonzero(masks & event.bit))) for event in CLOCK_EVENT_BITS]
    return sorted(counts, key=lambda each: (not each.event.bit & FAULT_BITS, -each.gpus))


def _best(values: NDArray[np.float64], kept: NDArray[np.bool_], *, lowest: bool = False) -> int | None:
    rows = np.flatnonzero(kept & ~np.isnan(values))
    if not len(rows):
        return None
    return int(rows[np.argmin(values[rows]) if lowest else np.argmax(values[rows])])


class HotPage(Page):
    """Temperature and throttling."""

    title = "Hot"
    menu = "hot"
    template_name = "dashboard/hot.html"

    def page_context(self) -> dict[str, Any]:
        fleet = fleet_now()
        query = self.request.GET.dict()
        heat = Heat.of(fleet)
        kept = chosen(fleet, query)
        shown = kept & heat.throttled if query.get("only") == "throttled" else kept
        return {
            "fleet": fleet,
            "is_large": len(fleet) > SMALL_FLEET,
            "prefix": shared_prefix([host.name for host in fleet.hosts]),
            "choices": choices(fleet, query),
            "only_throttled": query.get("only") == "throttled",
            "gpus": hot_gpus(fleet, heat, shown, query.get("sort", "")),
            "gpu_count": int(np.count_nonzero(shown & ~np.isnan(heat.temperature))),
            "hosts": hot_hosts(fleet, heat, kept),
            "held": held(heat, kept),
            "any_held": any(each.gpus for each in held(heat, kept)),
            **self._tiles(fleet, heat, kept),
        }

    def _tiles(self, fleet: Fleet, heat: Heat, kept: NDArray[np.bool_]) -> dict[str, Any]:
        temperatures = heat.temperature[kept & ~np.isnan(heat.temperature)]

        def one(values: NDArray[np.float64], *, lowest: bool = False) -> dict[str, Any]:
            row = _best(values, kept, lowest=lowest)
            return {"value": None} if row is None else {"value": float(values[row]), "place": place(fleet, row)}

        return {
            "hottest": one(heat.temperature),
            "hottest_memory": one(heat.memory),
            "least_margin": one(heat.margin, lowest=True),
            "median": float(np.median(temperatures)) if len(temperatures) else None,
            "known": len(temperatures),
            "hot_celsius": HOT_CELSIUS,
            "above": int(np.count_nonzero(temperatures > HOT_CELSIUS)),
            "throttled": int(np.count_nonzero(heat.throttled & kept)),
            "tell_reasons": int(np.count_nonzero(kept & ~np.isnan(heat.mask))),
        }


class HotTime(NamedTuple):
    """How long a GPU was above HOT_CELSIUS, and its highest mean of a window."""

    place: Place
    seconds: float
    highest: float


class HotTimesPart(Page):
    """The part of the page that asks the store: how long GPUs were above HOT_CELSIUS in the range."""

    title = "Time above"
    menu = "hot"
    template_name = "dashboard/hot_times.html"
    extra_context = {"hot_celsius": HOT_CELSIUS}  # noqa: RUF012 - declared so by Django; known also while the store is away

    def page_context(self) -> dict[str, Any]:
        fleet = fleet_now()
        query = self.request.GET.dict()
        rows = np.flatnonzero(chosen(fleet, query))
        context = {"prefix": shared_prefix([host.name for host in fleet.hosts])}
        if len(rows) > MOST_GPUS_FOR_TIMES:
            return {
                **context,
                "why_not": f"Not asked: it would read every reading of {len(rows):,} GPUs. Choose a host or a namespace.",
            }
        step_ns = choose_step(self.range.start_ns, self.range.end_ns)
        try:
            buckets = Buckets(self.range.start_ns, self.range.end_ns, step_ns)
            found = ask_series(TEMPERATURE, "mean", buckets, query, by="gpu")
        except (TooBusy, TooMuch) as error:
            return {**context, "why_not": f"The store does not answer it: {error}."}
        times = hot_times(fleet, rows, found, step_ns)
        return {
            **context,
            "asked": len(found),
            "every": step_ns / SECOND,
            "times": times[:MOST_HOSTS],
            "more": max(0, len(times) - MOST_HOSTS),
        }


def hot_times(fleet: Fleet, rows: NDArray[np.intp], found: list[GroupSeries], step_ns: int) -> list[HotTime]:
    """The GPUs that were above HOT_CELSIUS, the longest first. ``found`` has the means of each GPU's windows."""
    by_id = {fleet.ids[row]: row for row in rows.tolist()}
    times = []
    for series in found:
        row = by_id.get(series.group[0])
        known = [value for value in series.values if value is not None]
        above = sum(value > HOT_CELSIUS for value in known)
        if row is not None and above:
            times.append(HotTime(place(fleet, row), above * step_ns / SECOND, max(known)))
    return sorted(times, key=lambda each: -each.seconds)
