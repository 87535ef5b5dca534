"""Questions for windows: their limits, the step that is chosen when none is given, and the shape of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.errors import BadRequest
from inventory.queries import occupied_between
from readings.catalogue import unit_of
from readings.times import SECOND, format_duration, format_time
from stores.aggregate.buckets import Grid
from stores.base import GroupSeries, Occupancy, SeriesQuery

CHOSEN_WINDOWS = 1_000
MOST_WINDOWS = 10_000
MOST_GROUPS = 1_000
MOST_POINTS = 1_000_000
MOST_PLACEMENTS = 100_000

_MINUTE, _HOUR, _DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
_STEPS = (
    *(number * SECOND for number in (10, 15, 30)),
    *(number * _MINUTE for number in (1, 2, 5, 10, 15, 30)),
    *(number * _HOUR for number in (1, 2, 3, 6, 12)),
    *(number * _DAY for number in (1, 2, 7, 14, 30, 90, 180, 360)),
)  # fmt: skip
# What a group is called by, in the order of stores.base.GroupSeries.group.
_NAMES: dict[str | None, tuple[str, ...]] = {None: (), "pod": ("namespace", "pod")}


def choose_step(start_ns: int, end_ns: int) -> int:
    """The shortest round step that gives a series at most CHOSEN_WINDOWS points, 10 seconds at least."""
    return next(step for step in _STEPS if Grid(start_ns, end_ns, step).count <= CHOSEN_WINDOWS)


def check_windows(grid: Grid) -> None:
    """Raise BadRequest for more windows than a series may have."""
    if grid.count > MOST_WINDOWS:
        raise BadRequest(
            f"every {format_duration(grid.every_ns)} would make {grid.count:,} points in a series: {MOST_WINDOWS:,} are allowed;"
            f" leave it out or use {format_duration(choose_step(grid.start_ns, grid.end_ns))}"
        )


def occupancies_for(values: Mapping[str, Any], grid: Grid) -> tuple[Occupancy, ...] | None:
    """What ran where, if the question is about that. Raises BadRequest when that is too much."""
    if values["by"] not in {"namespace", "pod"} and not values["namespace"] and not values["pod"]:
        return None
    found = occupied_between(
        grid.start_ns, grid.end_ns, namespaces=values["namespace"], pods=values["pod"], most=MOST_PLACEMENTS + 1
    )
    if len(found) > MOST_PLACEMENTS:
        raise BadRequest(
            f"more than {MOST_PLACEMENTS:,} pods ran in that time: ask for a shorter range or for some of them"
        )
    return tuple(map(Occupancy._make, found))


def series_query(values: Mapping[str, Any], grid: Grid) -> SeriesQuery:
    """The question to the store."""
    return SeriesQuery(
        metric_name=values["metric"],
        aggregate=values["agg"],
        every_ns=grid.every_ns,
        start_ns=grid.start_ns,
        end_ns=grid.end_ns,
        by=values["by"],
        gpus=values["uuid"],
        hostnames=values["hostname"],
        models=values["model"],
        mig=values["mig"],
        occupancies=occupancies_for(values, grid),
        namespaces=values["namespace"],
        pods=values["pod"],
        top=values["top"],
        most_groups=min(MOST_GROUPS, MOST_POINTS // grid.count),
    )


def group_names(by: str | None) -> tuple[str, ...]:
    """What the parts of a group's name are called."""
    return _NAMES.get(by, (str(by),))


def unit_of_answer(query: SeriesQuery) -> str:
    """The unit of the values."""
    return "count" if query.aggregate == "count" else unit_of(query.metric_name)


def series_answer(query: SeriesQuery, found: list[GroupSeries]) -> dict[str, Any]:
    """The answer's body."""
    grid = Grid(query.start_ns, query.end_ns, query.every_ns)
    times = [format_time(time_ns) for time_ns in grid.times()]
    names = group_names(query.by)
    return {
        "metric": query.metric_name,
        "unit": unit_of_answer(query),
        "agg": query.aggregate,
        "every": format_duration(query.every_ns),
        "start_time": format_time(query.start_ns),
        "end_time": format_time(query.end_ns),
        "data": [
            {"group": dict(zip(names, each.group, strict=True)), "points": list(zip(times, each.values, strict=True))}
            for each in found
        ],
        "count": len(found),
    }
