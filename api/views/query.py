"""One metric over time, in windows and by group."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import msgspec
from django.conf import settings
from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from api.browse.renderers import PageRenderer
from api.errors import BadRequest
from api.exports.windows import WindowLayout, group_names, unit_of_answer
from api.params import TIME_SCHEMA, Parameter, choice, duration_ns, flag, number, several, time_ns
from api.places import places
from api.schema.answers import GroupAnswer, GroupSeriesAnswer, SeriesAnswer
from api.tiers import RAW, StepChoice, TierName, answer_series
from api.views.base import CSV_SAFE, ExportView
from inventory.queries import hosts_between, pods_between
from readings.catalogue import canonical_name, combine_of, info
from readings.times import DURATION_PATTERN, SECOND, format_duration, format_time, is_relative
from stores.aggregate.buckets import Buckets
from stores.base import Aggregate, By, GroupSeries, PodAssignment, SeriesQuery
from stores.rollups.choice import Snap

CHOSEN_WINDOWS = 1_000
MOST_WINDOWS = 10_000
MOST_GROUPS = 1_000
MOST_POINTS = 1_000_000
PAGE_POINTS = 50_000
MOST_ASSIGNMENTS = 100_000

_MINUTE, _HOUR, _DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
_STEPS = (
    *(number * SECOND for number in (10, 15, 30)),
    *(number * _MINUTE for number in (1, 2, 5, 10, 15, 30)),
    *(number * _HOUR for number in (1, 2, 3, 6, 12)),
    *(number * _DAY for number in (1, 2, 7, 14, 30, 90, 180, 360)),
)  # fmt: skip


def choose_step(start_ns: int, end_ns: int, most: int = CHOSEN_WINDOWS) -> int:
    """The shortest round step, from 10 s, with which a series has at most ``most`` points; else the longest."""
    fitting = (step for step in _STEPS if Buckets(start_ns, end_ns, step).count <= most)
    return next(fitting, _STEPS[-1])


def check_windows(buckets: Buckets) -> None:
    """Raise BadRequest for more windows than a series may have."""
    if buckets.count > MOST_WINDOWS:
        raise BadRequest(
            f"every {format_duration(buckets.every_ns)} would make {buckets.count:,} points in a series: {MOST_WINDOWS:,} are allowed;"
            f" leave it out or use {format_duration(choose_step(buckets.start_ns, buckets.end_ns))}"
        )


def buckets_of(values: Mapping[str, Any], most: int = CHOSEN_WINDOWS, range_ns: int = _HOUR) -> Buckets:
    """The windows that start_time, end_time and every ask for; without every at most ``most``, without start_time of ``range_ns``.

    Raises BadRequest.
    """
    end = time.time_ns() if values["end_time"] is None else values["end_time"]
    start = end - range_ns if values["start_time"] is None else values["start_time"]
    if end <= start:
        raise BadRequest("end_time must be later than start_time")
    buckets = Buckets(start, end, values["every"] or choose_step(start, end, most))
    check_windows(buckets)
    return buckets


def assignments_for(values: Mapping[str, Any], buckets: Buckets) -> tuple[PodAssignment, ...] | None:
    """The pods' assignments, if the query concerns pods or namespaces. Raises BadRequest if there are too many."""
    if values["by"] not in {"namespace", "pod"} and not values["namespace"] and not values["pod"]:
        return None
    found = pods_between(
        buckets.start_ns, buckets.end_ns, namespaces=values["namespace"], pods=values["pod"], most=MOST_ASSIGNMENTS + 1
    )
    if len(found) > MOST_ASSIGNMENTS:
        raise BadRequest(
            f"more than {MOST_ASSIGNMENTS:,} pods ran in that time: ask for a shorter range or for some of them"
        )
    return tuple(map(PodAssignment._make, found))


def aggregate_of(metric_name: str, asked: Aggregate | None) -> Aggregate:
    """The aggregate that is asked for, or the metric's default. Raises BadRequest for one that means nothing for the metric."""
    metric = info(metric_name)
    is_code = combine_of(metric_name) == "never"
    if asked == "increase" and metric is not None and metric.kind != "counter":
        raise BadRequest(
            f"agg increase is for counters, and {metric.name} is not one: use {'last' if is_code else 'mean'}, max or another"
        )
    if is_code and asked in ADDING:
        usable = ", ".join(each for each in AGGREGATES if each not in {*ADDING, "increase"})
        raise BadRequest(
            f"agg {asked} cannot be: {metric_name} is a code, a state or a bitmask, which cannot be added up: use {usable}"
        )
    return asked or ("last" if is_code else "mean")


def series_query(values: Mapping[str, Any], buckets: Buckets, heavy: Callable[[], None]) -> SeriesQuery:
    """The query for the store, which calls ``heavy`` if it turns out to be."""
    return SeriesQuery(
        metric_name=values["metric"],
        aggregate=aggregate_of(values["metric"], values["agg"]),
        buckets=buckets,
        by=values["by"],
        gpus=values["uuid"],
        hostnames=values["hostname"],
        models=values["model"],
        mig=values["mig"],
        assignments=assignments_for(values, buckets),
        namespaces=values["namespace"],
        pods=values["pod"],
        top=values["top"],
        most_groups=_most_groups(buckets),
        memory=settings.QUERY_MEMORY,
        heavy=heavy,
        hosts=hosts_between,
    )


def with_buckets(query: SeriesQuery, buckets: Buckets) -> SeriesQuery:
    """The same question in other windows."""
    return replace(query, buckets=buckets, most_groups=_most_groups(buckets))


def _most_groups(buckets: Buckets) -> int:
    return min(MOST_GROUPS, MOST_POINTS // buckets.count)


def points_list(starts: Sequence[str], values: Sequence[float | None]) -> Any:
    """The points of one group, already encoded as JSON: there may be a million in an answer. ``starts`` begin each point."""
    numbers = msgspec.json.encode(values)[1:-1].decode().split(",")
    # Nothing here runs Python for a point.
    points = "],".join(map(operator.add, starts, numbers))
    return msgspec.Raw(f"[{points}]]".encode())


def series_answer(query: SeriesQuery, found: list[GroupSeries], tier: TierName = RAW) -> SeriesAnswer:
    """The answer's body."""
    times = [f'["{format_time(time_ns)}",' for time_ns in query.buckets.times()]
    names = group_names(query.by)
    return SeriesAnswer(
        metric=query.metric_name,
        unit=unit_of_answer(query),
        agg=query.aggregate,
        every=format_duration(query.buckets.every_ns),
        start_time=format_time(query.buckets.start_ns),
        end_time=format_time(query.buckets.end_ns),
        data=[
            GroupSeriesAnswer(GroupAnswer(**dict(zip(names, each.group, strict=True))), points_list(times, each.values))
            for each in found
        ],
        count=len(found),
        tier=tier,
    )


DEFAULT_RANGE_NS = 3600 * SECOND
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
# Those that add values up.
ADDING = ("mean", "sum")
GROUPS: tuple[str, ...] = get_args(By)

METRIC = Parameter(
    name="metric",
    help="one metric, by its name or an alias, as DCGM_FI_DEV_GPU_UTIL; /api/v1/metrics lists them",
    parse=canonical_name,
    required=True,
)
AGG = choice(
    "agg",
    "how the readings of a window become one value. sum: the sum over GPUs of each GPU's mean; increase, for counters only:"
    " by how much they grew, allowing for resets. Default: mean, and last for codes, states and bitmasks, which cannot be added",
    *AGGREGATES,
)
EVERY = Parameter(
    name="every",
    help="length of a window, as 30s, 5m or 1h; default: the shortest round one that makes at most 1000 points",
    parse=duration_ns(SECOND // 1000, 366 * 86_400 * SECOND),
    schema={"type": "string", "pattern": f"^{DURATION_PATTERN}$", "example": "5m"},
)
BY = choice(
    "by",
    "one series for each of these; default: one series over all. Pods and namespaces count the GPUs while they used them",
    *GROUPS,
)
TOP = number(
    "top",
    "only this many groups: those with the largest value over the whole range, largest first",
    1,
    MOST_GROUPS,
)
TIER = choice(
    "tier",
    "answer from raw readings, or from roll-ups of a minute or an hour; default: what is quickest and exact",
    *get_args(TierName),
)
# Files have no place for it.
TIER_HEADER = "X-Tier"
START_TIME = Parameter(
    name="start_time",
    help="readings at or after this time (RFC 3339, or -24h for a day ago); default: an hour before end_time",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
END_TIME = Parameter(
    name="end_time",
    help="readings before this time (RFC 3339, or -5m for five minutes ago); default: now",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
UUID = several("uuid", "only this GPU with its MIG instances, or one instance, as uuid:instance")
HOSTNAME = several("hostname", "only readings taken on this host")
MODEL = several("model", "only GPUs of this model, by its full name")
NAMESPACE = several("namespace", "only while this namespace used the GPU")
POD = several("pod", "only while this pod used the GPU")
MIG = flag("mig", "true, with by=gpu: a series for each MIG instance")


class QueryView(ExportView):
    """One metric over time: an aggregate for each window, by GPU, host, model, namespace or pod.

    Windows are aligned to the clock (windows of 5 minutes start at :00, :05, …) and cover readings in [start_time, end_time).
    A window without readings is null. A board counts once, however many MIG instances it has or pods share it.

    Questions about many GPUs or long ranges are answered from roll-ups of a minute or an hour, where these give exactly what the
    readings would; `tier` says which. Then ends of the range that are relative to now move to the last whole step that is complete.
    """

    name = "Query"
    tag = "telemetry"
    operation_id = "query"
    answer = SeriesAnswer
    parameters = (
        METRIC,
        AGG,
        EVERY,
        BY,
        TOP,
        TIER,
        START_TIME,
        END_TIME,
        UUID,
        HOSTNAME,
        MODEL,
        NAMESPACE,
        POD,
        MIG,
        CSV_SAFE,
    )

    def get(self, request: Request) -> HttpResponseBase:
        """One metric over time, in windows and by group."""
        if self.values["mig"] and self.values["by"] != "gpu":
            raise BadRequest("mig=true separates MIG instances: use it with by=gpu")
        buckets = buckets_of(self.values)
        step = StepChoice(buckets.every_ns, self.values["every"] is not None, CHOSEN_WINDOWS)
        with places.question() as heavy:
            asked = series_query(self.values, buckets, heavy)
            tier, query, found = answer_series(asked, with_buckets, step, self._snap(), self.values["tier"])
            if not self.is_export:
                return Response(series_answer(query, self._shown(found, query.buckets), tier))
        layout = WindowLayout(query)
        response = self.export(layout.parts(found), layout, "query", query.metric_name)
        response[TIER_HEADER] = tier
        return response

    def _snap(self) -> Snap:
        """Which ends of the range are not told as fixed times."""
        start, end = (self.request.query_params.get(name) for name in ("start_time", "end_time"))
        end_moves = end is None or is_relative(end)
        return Snap(start=end_moves if start is None else is_relative(start), end=end_moves)

    def _shown(self, found: list[GroupSeries], buckets: Buckets) -> list[GroupSeries]:
        """The groups in the answer: for a program all of them, for the page in a browser as many as it can show."""
        most = max(1, PAGE_POINTS // buckets.count)
        if not isinstance(self.request.accepted_renderer, PageRenderer) or len(found) <= most:
            return found
        self.note = (
            f"The first {most} of {len(found)} groups are shown. top=N chooses the largest; JSON and CSV have all."
        )
        return found[:most]
