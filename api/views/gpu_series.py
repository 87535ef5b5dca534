"""Many metrics of one GPU over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import BadRequest
from api.gpu_series import GpuWindows, How, MetricWindows, how_of
from api.params import TEXT_SCHEMA, Parameter
from api.places import LIGHT_ROWS, places
from api.schema.answers import GpuSeriesAnswer, MetricSeriesAnswer
from api.views.base import ApiView
from api.views.gpus import GPU_IN_PATH, check_id, check_known
from api.views.query import END_TIME, EVERY, START_TIME, buckets_of
from inventory.models import GPU
from inventory.queries import hosts_between
from readings.catalogue import canonical_name, unit_of
from readings.mig import how_parts_combine
from readings.times import format_duration, format_time
from stores.aggregate.buckets import Buckets
from stores.base import Aggregate, ReadingsQuery, SeriesQuery
from stores.open import get_store

MOST_METRICS = 100
MOST_POINTS = 200_000

METRIC = Parameter(
    name="metric",
    help="a metric, by its name or an alias; may be given several times; /api/v1/gpus/{uuid}/metrics lists those it has",
    parse=canonical_name,
    schema={"type": "array", "items": TEXT_SCHEMA, "minItems": 1, "maxItems": MOST_METRICS},
    many=True,
    required=True,
)


class GpuSeriesView(ApiView):
    """Many metrics of one GPU over time, in windows, with the lowest and highest reading of each.

    Windows are aligned to the clock and cover readings in [start_time, end_time). A window without readings is null. A metric that
    a GPU gives only for its MIG instances is combined from them, without lowest and highest.
    """

    name = "Series of a GPU"
    tag = "telemetry"
    operation_id = "gpu_series"
    answer = GpuSeriesAnswer
    parameters = (METRIC, EVERY, START_TIME, END_TIME)
    path_help = GPU_IN_PATH
    error_statuses = (400, 404, 503)

    def get(self, request: Request, uuid: str) -> Response:
        """Many metrics of one GPU over time."""
        check_id(uuid)
        buckets = buckets_of(self.values)
        names = tuple(dict.fromkeys(self.values["metric"]))
        if buckets.count * len(names) > MOST_POINTS:
            raise BadRequest(
                f"{len(names)} metrics in {buckets.count:,} windows are too much at once: {MOST_POINTS:,} points are allowed;"
                " ask for fewer metrics or longer windows"
            )
        with places.question() as heavy:
            found = _own(uuid, names, buckets, heavy)
            absent = [each.metric_name for each in found if np.isnan(each.values).all()]
            if len(absent) == len(names):
                check_known(uuid)
            if absent and GPU.objects.filter(uuid=uuid).exclude(mig_id="").exists():
                found = [
                    _of_instances(uuid, each.metric_name, buckets, heavy) if each.metric_name in absent else each
                    for each in found
                ]
        return Response(_answer(uuid, buckets, found))


def _own(gpu_id: str, names: Sequence[str], buckets: Buckets, heavy: Callable[[], None]) -> list[MetricWindows]:
    """The windows from the GPU's own readings. Raises TooBusy."""
    windows, rows = GpuWindows(names, buckets), 0
    query = ReadingsQuery(
        gpus=(gpu_id,),
        metric_names=tuple(names),
        start_ns=buckets.start_ns,
        end_ns=buckets.end_ns,
        newest_first=False,
        limit=None,
        hosts=hosts_between,
    )
    for batch in get_store().stream(query):
        windows.add(batch)
        rows += len(batch)
        if rows > LIGHT_ROWS:
            heavy()
    return windows.answer()


def _aggregate(name: str, how: How) -> Aggregate:
    if how == "mean":
        return "sum" if how_parts_combine(name) == "add" else "mean"
    return "increase" if how == "increase" else "last"


def _of_instances(uuid: str, name: str, buckets: Buckets, heavy: Callable[[], None]) -> MetricWindows:
    """The windows of a board as its MIG instances make them."""
    how = how_of(name)
    query = SeriesQuery(
        metric_name=name,
        aggregate=_aggregate(name, how),
        buckets=buckets,
        gpus=(uuid,),
        heavy=heavy,
        hosts=hosts_between,
    )
    series = get_store().series(query)
    values = series[0].values if series else [None] * buckets.count
    return MetricWindows(name, "last" if how == "bits" else how, np.array(values, np.float64))


def _answer(gpu_id: str, buckets: Buckets, found: Sequence[MetricWindows]) -> GpuSeriesAnswer:
    times = [f'["{format_time(time_ns)}",' for time_ns in buckets.times()]
    return GpuSeriesAnswer(
        gpu=gpu_id,
        every=format_duration(buckets.every_ns),
        start_time=format_time(buckets.start_ns),
        end_time=format_time(buckets.end_ns),
        data=[
            MetricSeriesAnswer(each.metric_name, unit_of(each.metric_name), each.how, _points(times, each))
            for each in found
        ],
        count=len(found),
    )


def _points(starts: Sequence[str], windows: MetricWindows) -> Any:
    """[start, value] of each window, or [start, mean, lowest, highest], already encoded as JSON. NaN becomes null."""
    columns = [each for each in (windows.values, windows.lowest, windows.highest) if each is not None]
    texts = [msgspec.json.encode(column.tolist())[1:-1].decode().split(",") for column in columns]
    points = ",".join(f"{start}{','.join(row)}]" for start, *row in zip(starts, *texts, strict=True))
    return msgspec.Raw(f"[{points}]".encode())
