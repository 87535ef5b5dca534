"""The answer of ``/api/v1/fleet``: the whole fleet in columns, small enough to be asked for every few seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.params import format_datetime
from api.schema.answers import (
    AvailabilityAnswer,
    EventCountsAnswer,
    FleetAnswer,
    FleetCountsAnswer,
    FleetGpusAnswer,
    FleetHostAnswer,
    FleetMetricAnswer,
    FleetTotalsAnswer,
    HostAvailabilityAnswer,
)
from health.queries import NO_EVENTS, Ongoing, SeverityCounts, ongoing_now
from inventory.fleet import Coded, Fleet, HostNow, SlotState
from readings.catalogue import info, unit_of
from readings.mig import MEMORY_USED, POWER, TEMPERATURE, UTILISATION
from readings.times import format_time, to_datetime

_Values = NDArray[np.float64]
_Mask = NDArray[np.bool_]
_HAS_NO_FRACTION = 1e15
_SHORT_UUID = len("GPU-39bd9cd5")


def select_slots(
    fleet: Fleet,
    *,
    hostnames: Collection[str] = (),
    models: Collection[str] = (),
    namespaces: Collection[str] = (),
    pods: Collection[str] = (),
) -> _Mask:
    """Which slots match: values of one filter are alternatives, and all filters must match."""
    chosen = np.ones(len(fleet), np.bool_)
    if hostnames:
        wanted = [number for number, host in enumerate(fleet.hosts) if host.name in hostnames]
        chosen &= np.isin(fleet.host, wanted)
    for coded, names in zip(fleet.slots.coded, (models, namespaces, pods), strict=True):
        if names:
            chosen &= np.isin(coded.places, [place for place, name in enumerate(coded.names) if name in names])
    return chosen


def fleet_answer(fleet: Fleet, metric: str, chosen: _Mask) -> FleetAnswer:
    """The fleet's snapshot with one metric more than the usual ones, of the slots chosen."""
    at = np.flatnonzero(chosen)
    ongoing = ongoing_now()
    marks = event_marks(fleet, ongoing)
    used, total, power = fleet.metric(MEMORY_USED), fleet.memory_total(), fleet.metric(POWER)
    utilisation = fleet.metric(UTILISATION)
    hosts, host_place = _hosts(fleet, at, utilisation, power, ongoing)
    (models, model_place), (namespaces, namespace_place), (pods, pod_place) = (
        _names(coded, at) for coded in fleet.slots.coded
    )
    known = info(metric)
    return FleetAnswer(
        newest=None if fleet.newest_ns is None else format_time(fleet.newest_ns),
        live=fleet.live,
        metric=FleetMetricAnswer(metric, metric if known is None else known.title, unit_of(metric)),
        metrics=fleet.metric_names(),
        prefix=shared_prefix([host.name for host in hosts_of(fleet, at)]),
        counts=fleet_counts(fleet, chosen),
        totals=fleet_totals(fleet, chosen),
        events=EventCountsAnswer(*ongoing_counts(fleet, chosen, ongoing)),
        hosts=hosts,
        models=models,
        namespaces=namespaces,
        pods=pods,
        gpus=FleetGpusAnswer(
            host=host_place,
            slot=fleet.slot[at].tolist(),
            id=short_ids([fleet.ids[row] for row in at], fleet.ids),
            state=fleet.state[at].tolist(),
            last_seen=[
                None if state == SlotState.REPORTING or not seen_ns else format_time(seen_ns)
                for state, seen_ns in zip(fleet.state[at].tolist(), fleet.last_seen_ns[at].tolist(), strict=True)
            ],
            model=model_place,
            namespace=namespace_place,
            pod=pod_place,
            utilisation=_numbers(utilisation[at]),
            temperature=_numbers(fleet.metric(TEMPERATURE)[at]),
            power=_numbers(power[at], 1),
            memory_used=_numbers(used[at]),
            memory_total=_numbers(total[at]),
            value=_numbers(fleet.metric(metric)[at]),
            mark=marks[at].tolist(),
        ),
    )


def event_marks(fleet: Fleet, ongoing: Ongoing) -> NDArray[np.uint8]:
    """The mark of each slot: that of the worst ongoing event of its GPU, or of the slot where none was seen; 0 without any."""
    marks = np.zeros(len(fleet), np.uint8)
    for row, counts in _rows_with_events(fleet, ongoing):
        marks[row] = counts.mark
    return marks


def ongoing_counts(fleet: Fleet, chosen: _Mask, ongoing: Ongoing) -> SeverityCounts:
    """How many events are ongoing: of these slots and of their hosts; of the whole fleet all there are."""
    if chosen.all():
        return ongoing.total
    found = [counts for row, counts in _rows_with_events(fleet, ongoing) if chosen[row]]
    names = {fleet.hosts[number].name for number in np.unique(fleet.host[chosen]).tolist()}
    found += [counts for name, counts in ongoing.of_hosts.items() if name in names]
    return SeverityCounts(*map(sum, zip(*found, strict=True))) if found else NO_EVENTS


def _rows_with_events(fleet: Fleet, ongoing: Ongoing) -> Iterator[tuple[int, SeverityCounts]]:
    row_of = fleet.slots.row_of
    for name, counts in ongoing.by_gpu.items():
        row = row_of.get(name)
        if row is None:
            row = _row_of_slot(fleet, name)
        if row is not None:
            yield row, counts


def _row_of_slot(fleet: Fleet, name: str) -> int | None:
    """The row of ``host/slot``."""
    hostname, _, slot = name.rpartition("/")
    host = host_named(fleet, hostname) if hostname and slot.isdecimal() else None
    if host is None:
        return None
    rows = np.flatnonzero(fleet.slot[host.rows] == int(slot))
    return host.rows.start + int(rows[0]) if len(rows) else None


def host_named(fleet: Fleet, name: str) -> HostNow | None:
    """The host of this name; None for one that is retired or unknown."""
    at = bisect_left(fleet.hosts, name, key=lambda host: host.name)
    return fleet.hosts[at] if at < len(fleet.hosts) and fleet.hosts[at].name == name else None


def fleet_counts(fleet: Fleet, chosen: _Mask) -> FleetCountsAnswer:
    """How many hosts and GPUs there are in each state, and how many do nothing."""
    states = np.bincount(fleet.state[chosen], minlength=len(SlotState)).tolist()
    idle, held = fleet.is_idle() & chosen, fleet.is_held() & chosen
    busy_hosts = np.unique(fleet.host[chosen & (fleet.metric(UTILISATION) > 0)])
    idle_hosts = np.setdiff1d(np.unique(fleet.host[idle]), busy_hosts)
    return FleetCountsAnswer(
        hosts=len(np.unique(fleet.host[chosen])),
        gpus=int(np.count_nonzero(fleet.slots.has_gpu & chosen)),
        expected=int(np.count_nonzero(chosen)),
        reporting=states[SlotState.REPORTING],
        stale=states[SlotState.STALE],
        missing=states[SlotState.MISSING],
        maintenance=states[SlotState.MAINTENANCE],
        idle=int(np.count_nonzero(idle)),
        idle_held=int(np.count_nonzero(held)),
        idle_hosts=len(idle_hosts),
        at_full=int(np.count_nonzero((fleet.metric(UTILISATION) == 100.0) & chosen)),
    )


def fleet_totals(fleet: Fleet, chosen: _Mask) -> FleetTotalsAnswer:
    """Means and sums over the GPUs that report; None where none of them has the metric."""
    utilisation = _known(fleet.metric(UTILISATION)[chosen])
    used, total = fleet.metric(MEMORY_USED)[chosen], fleet.memory_total()[chosen]
    both = ~np.isnan(used) & ~np.isnan(total)
    power = fleet.metric(POWER)
    return FleetTotalsAnswer(
        utilisation_mean=None if not len(utilisation) else round(float(utilisation.mean()), 3),
        utilisation_p95=percentile(utilisation, 95),
        memory_used_mib=_sum(used),
        memory_total_mib=_sum(total[both]),
        power_watts=_sum(power[chosen]),
        idle_power_watts=_sum(power[chosen & fleet.is_idle()]),
    )


def availability_answer(fleet: Fleet, chosen: _Mask) -> AvailabilityAnswer:
    """Which share of each host's slots chosen has a fresh reading, for each metric that any GPU has."""
    at = np.flatnonzero(chosen)
    numbers, place = np.unique(fleet.host[at], return_inverse=True)
    names = fleet.metric_names()
    have = np.zeros((len(numbers), len(names)))
    for column, name in enumerate(names):
        has_reading = ~np.isnan(fleet.metric(name)[at])
        have[:, column] = np.bincount(place[has_reading], minlength=len(numbers))
    shares = np.round(have / np.bincount(place, minlength=len(numbers)).reshape(-1, 1), 4)
    hosts = (fleet.hosts[number].name for number in numbers.tolist())
    return AvailabilityAnswer(
        names, [HostAvailabilityAnswer(name, row) for name, row in zip(hosts, shares.tolist(), strict=True)]
    )


def percentile(values: _Values, rank: int) -> float | None:
    """The value of rank floor(n·rank/100 + 0.5), as the stores count; None of nothing. NaN must be gone."""
    if not len(values):
        return None
    place = max(0, int(len(values) * rank / 100 + 0.5) - 1)
    return float(np.partition(values, place)[place])


def hosts_of(fleet: Fleet, at: NDArray[np.intp]) -> list[Any]:
    """The hosts of these slots, in the fleet's order."""
    return [fleet.hosts[number] for number in np.unique(fleet.host[at]).tolist()]


def shared_prefix(names: Sequence[str]) -> str:
    """What all host names begin with, up to the last separator: the rest names a host shortly."""
    if len(names) < 2:
        return ""
    pairs = zip(min(names), max(names), strict=False)
    length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    common = names[0][:length]
    cut = max(common.rfind(mark) for mark in "-._") + 1
    # One more part stays, so that "hgpu-012" is not shown as "012".
    shorter = max(common.rfind(mark, 0, max(0, cut - 1)) for mark in "-._") + 1
    return common[:shorter]


def short_id(gpu_id: str) -> str:
    """``GPU-39bd9cd5`` for a UUID; any other id unchanged."""
    return gpu_id[:_SHORT_UUID] if len(gpu_id) == 40 and gpu_id[:4] == "GPU-" else gpu_id


def short_ids(ids: Sequence[str], all_ids: Sequence[str]) -> list[str]:
    """``GPU-39bd9cd5`` for a UUID if no other GPU of the fleet begins so, else the whole id."""
    short = {gpu_id: short_id(gpu_id) for gpu_id in all_ids}
    times: dict[str, int] = {}
    for each in short.values():
        times[each] = times.get(each, 0) + 1
    return [short[gpu_id] if times[short[gpu_id]] == 1 else gpu_id for gpu_id in ids]


def _hosts(
    fleet: Fleet, at: NDArray[np.intp], utilisation: _Values, power: _Values, ongoing: Ongoing
) -> tuple[list[FleetHostAnswer], list[int]]:
    numbers, place = np.unique(fleet.host[at], return_inverse=True)
    count = len(numbers)
    means = _by_host(utilisation[at], place, count, mean=True)
    watts = _by_host(power[at], place, count, mean=False)
    sizes = np.bincount(place, minlength=count).tolist()
    answers = [
        FleetHostAnswer(
            name=host.name,
            expected=expected,
            state=host.asset_state,
            owner=host.owner,
            tags=dict(host.tags),
            last_seen=format_datetime(to_datetime(host.last_seen_ns)) if host.last_seen_ns else None,
            utilisation_mean=None if mean != mean else round(mean, 3),
            power_watts=None if power_sum != power_sum else round(power_sum, 3),
            mark=ongoing.of_hosts.get(host.name, NO_EVENTS).mark,
        )
        for host, expected, mean, power_sum in zip(
            (fleet.hosts[number] for number in numbers.tolist()), sizes, means.tolist(), watts.tolist(), strict=True
        )
    ]
    return answers, place.tolist()


def _by_host(values: _Values, place: NDArray[np.intp], count: int, *, mean: bool) -> _Values:
    known = ~np.isnan(values)
    sums = np.bincount(place[known], weights=values[known], minlength=count)
    numbers = np.bincount(place[known], minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(numbers == 0, np.nan, sums / numbers if mean else sums)


def _names(coded: Coded, at: NDArray[np.intp]) -> tuple[list[str], list[int]]:
    """The names that these slots have, and the place of each slot's name among them; -1 for none."""
    places = coded.places[at]
    used, renumbered = np.unique(places, return_inverse=True)
    nones = int(len(used) > 0 and used[0] == -1)
    return [coded.names[place] for place in used[nones:].tolist()], (renumbered - nones).tolist()


def _numbers(values: _Values, digits: int = 3) -> list[float | int | None]:
    # Rounding multiplies first, and the largest numbers would become infinite.
    small = np.abs(values) < _HAS_NO_FRACTION
    rounded = values.copy()
    rounded[small] = np.round(values[small], digits)
    return [
        None if value != value else int(value) if is_small and value.is_integer() else value
        for value, is_small in zip(rounded.tolist(), small.tolist(), strict=True)
    ]


def _known(values: _Values) -> _Values:
    return values[~np.isnan(values)]


def _sum(values: _Values) -> float | None:
    known = _known(values)
    return round(float(known.sum()), 3) if len(known) else None
