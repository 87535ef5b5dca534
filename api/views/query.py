"""One metric over time: in windows, by group."""

from __future__ import annotations

import time
from typing import get_args

from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import BadRequest
from api.params import TIME_SCHEMA, Parameter, boolean, duration_ns, one_of, several, whole_number
from api.serializers import SeriesSerializer
from api.times import time_ns
from api.views.export import CSV_SAFE, ExportView
from api.window_rows import Windows
from api.windows import MOST_GROUPS, check_windows, choose_step, series_answer, series_query
from readings.catalogue import canonical_name, info
from readings.times import SECOND
from stores.aggregate.buckets import Grid
from stores.base import Aggregate, By
from stores.open import get_store

DEFAULT_RANGE_NS = 3600 * SECOND
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
GROUPS: tuple[str, ...] = get_args(By)

METRIC = Parameter(
    name="metric",
    help="one metric, by its name or an alias, as DCGM_FI_DEV_GPU_UTIL; /api/v1/metrics lists them",
    parse=canonical_name,
    required=True,
)
AGG = Parameter(
    name="agg",
    help="what each point is of the readings in its window: sum is the sum over GPUs of each GPU's mean; increase is for counters,"
    " by how much they grew, with resets",
    parse=one_of(*AGGREGATES),
    schema={"type": "string", "enum": list(AGGREGATES), "default": "mean"},
    default="mean",
)
EVERY = Parameter(
    name="every",
    help="length of a window, as 30s, 5m or 1h; without it the shortest round one that makes at most 1000 points",
    parse=duration_ns(SECOND // 1000, 366 * 86_400 * SECOND),
    schema={"type": "string", "pattern": r"^[0-9]{1,15}(\.[0-9]{1,9})?(ms|s|m|h|d)$", "example": "5m"},
)
BY = Parameter(
    name="by",
    help="one series for each of these; without it one of all. Namespaces and pods have what ran on them",
    parse=one_of(*GROUPS),
    schema={"type": "string", "enum": list(GROUPS)},
)
TOP = Parameter(
    name="top",
    help="only so many groups: those with the largest value over the whole range, the largest first",
    parse=whole_number(1, MOST_GROUPS),
    schema={"type": "integer", "minimum": 1, "maximum": MOST_GROUPS},
)
START_TIME = Parameter(
    name="start_time",
    help="readings at or after this time (RFC 3339, or -24h for a day ago); without it an hour before end_time",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
END_TIME = Parameter(
    name="end_time",
    help="readings before this time (RFC 3339, or -5m for five minutes ago); without it now",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
UUID = several("uuid", "only this GPU with its MIG instances, or, as uuid:instance, one instance")
HOSTNAME = several("hostname", "only readings taken on this host")
MODEL = several("model", "only GPUs of this model, by its full name")
NAMESPACE = several("namespace", "only while this namespace had the GPU")
POD = several("pod", "only while this pod had the GPU")
MIG = Parameter(
    name="mig",
    help="true, with by=gpu: each MIG instance by itself",
    parse=boolean,
    schema={"type": "string", "enum": ["true", "false"], "default": "false"},
    default=False,
)


class QueryView(ExportView):
    """One metric over time: an aggregate in windows, by GPU, host, model, namespace or pod.

    Windows are aligned to the clock (a window of 5 minutes begins at :00, :05, …) and hold readings in [start_time, end_time);
    a window without a reading is null. A board counts once, however many MIG instances it has and pods share it.
    """

    name = "Query"
    tag = "telemetry"
    operation_id = "query"
    answer = SeriesSerializer
    parameters = (
        METRIC,
        AGG,
        EVERY,
        BY,
        TOP,
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
        grid = self._grid()
        query = series_query(self.values, grid)
        if self.is_export:
            layout = Windows(query)
            return self.export(layout.parts(get_store().series(query)), layout, "query", query.metric_name)
        return Response(series_answer(query, get_store().series(query)))

    def _grid(self) -> Grid:
        values = self.values
        end = time.time_ns() if values["end_time"] is None else values["end_time"]
        start = end - DEFAULT_RANGE_NS if values["start_time"] is None else values["start_time"]
        if end <= start:
            raise BadRequest("end_time must be later than start_time")
        if values["mig"] and values["by"] != "gpu":
            raise BadRequest("mig=true tells instances apart: ask for it with by=gpu")
        if values["agg"] == "increase" and (metric := info(values["metric"])) and metric.kind != "counter":
            raise BadRequest(f"agg increase is for counters, and {metric.name} is none: use mean, max or another")
        grid = Grid(start, end, values["every"] or choose_step(start, end))
        check_windows(grid)
        return grid
