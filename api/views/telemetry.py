"""Readings of one GPU and of the whole fleet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import BadRequest
from api.exports.readings import ReadingLayout, json_list
from api.pagination import Cursor, cut_list, encode_cursor, list_links, parse_cursor, read_paging
from api.params import (
    END_BEFORE,
    END_TIME,
    ORDER,
    START_TIME,
    cursor_of,
    fixed_times,
    paging_of,
    read_range,
    several,
)
from api.places import LIGHT_ROWS, places
from api.schema.answers import MetricNamesAnswer, ReadingPageAnswer
from api.views.base import CSV_SAFE, ApiView, ExportView
from api.views.gpus import GPU_IN_PATH, check_id, check_known
from inventory.queries import hosts_between
from readings.catalogue import canonical_name
from stores.base import ReadingsQuery, RowBatch
from stores.open import get_store
from telemetry_site.env import whole_number

DEFAULT_ROWS = 100

METRIC_NAME = several("metric_name", "only this metric, by its name or an alias", canonical_name)
HOSTNAME = several("hostname", "only readings taken on this host")
GPU_ID = several(
    "gpu_id",
    "only readings taken at this index of a host",
    whole_number(0, 2**31 - 1),
    type="integer",
    minimum=0,
    maximum=2**31 - 1,
)
MODEL = several("model", "only GPUs of this model, by its full name")
NAMESPACE = several("namespace", "only readings taken while this namespace used the GPU")
POD = several("pod", "only readings taken while this pod used the GPU")
PAGING = paging_of(str(DEFAULT_ROWS), exports=True)
CURSOR = cursor_of("telemetry", parse_cursor)


def _conditions(values: dict[str, Any]) -> dict[str, Any]:
    """The conditions that both views share. Raises BadRequest."""
    start_ns, end_ns = read_range(values)
    return {
        "metric_names": values["metric_name"],
        "hostnames": values["hostname"],
        "start_ns": start_ns,
        "end_ns": end_ns,
        "newest_first": values["order"] == "desc",
        "hosts": hosts_between,
    }


def _page(query: ReadingsQuery) -> RowBatch:
    """A page of rows. One that skips many is a heavy question."""
    with places.question() as heavy:
        if query.offset > LIGHT_ROWS:
            heavy()
        return get_store().page(query)


def _checked(batches: Iterator[RowBatch], gpu: str) -> Iterator[RowBatch]:
    """Passes batches on. Raises NotFound if there are none and the GPU is unknown."""
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        check_known(gpu)


class GpuTelemetryView(ExportView):
    """The readings of one GPU, newest first."""

    name = "Telemetry of a GPU"
    tag = "telemetry"
    operation_id = "gpu_telemetry"
    answer = ReadingPageAnswer
    parameters = (START_TIME, END_TIME, END_BEFORE, *PAGING, METRIC_NAME, HOSTNAME, GPU_ID, ORDER, CSV_SAFE)
    path_help = GPU_IN_PATH
    error_statuses = (400, 404, 503)

    def get(self, request: Request, uuid: str) -> HttpResponseBase:
        """The readings of one GPU, newest first."""
        check_id(uuid)
        values = self.values
        paging = read_paging(values, DEFAULT_ROWS, cut=not self.is_export)
        query = ReadingsQuery(
            gpus=(uuid,),
            gpu_ids=values["gpu_id"],
            offset=paging.offset,
            limit=paging.given,
            **_conditions(values),
        )
        if self.is_export:
            rows = _checked(get_store().stream(query), uuid)
            return self.export(rows, ReadingLayout(), "telemetry", uuid, *values["metric_name"][:1])
        page = _page(replace(query, limit=paging.size + 1))
        if not len(page):
            check_known(uuid)
        fixed = fixed_times(request.query_params, values)
        links = list_links(request, paging, more=len(page) > paging.size, **fixed)
        page = page.cut(0, paging.size)
        return Response(ReadingPageAnswer(json_list(page), len(page), **links._asdict()))


class GpuMetricsView(ApiView):
    """The names of the metrics for which a GPU has readings."""

    name = "Metrics of a GPU"
    tag = "telemetry"
    operation_id = "gpu_metrics"
    answer = MetricNamesAnswer
    parameters = paging_of("all")
    path_help = GPU_IN_PATH
    error_statuses = (400, 404, 503)

    def get(self, request: Request, uuid: str) -> Response:
        """The names of the metrics for which a GPU has readings."""
        check_id(uuid)
        names = get_store().metric_names(uuid)
        if not names:
            check_known(uuid)
        part, links = cut_list(request, self.values, names)
        return Response(MetricNamesAnswer(part, len(names), **links._asdict()))


class TelemetryView(ExportView):
    """The readings of the whole fleet, newest first."""

    name = "Telemetry"
    tag = "telemetry"
    operation_id = "telemetry"
    answer = ReadingPageAnswer
    parameters = (
        METRIC_NAME,
        HOSTNAME,
        GPU_ID,
        MODEL,
        NAMESPACE,
        POD,
        START_TIME,
        END_TIME,
        END_BEFORE,
        ORDER,
        *PAGING,
        CURSOR,
        CSV_SAFE,
    )

    def get(self, request: Request) -> HttpResponseBase:
        """The readings of the whole fleet, newest first."""
        values = self.values
        conditions = _conditions(values)
        newest_first: bool = conditions["newest_first"]
        paging = read_paging(values, DEFAULT_ROWS, cut=not self.is_export)
        cursor: Cursor | None = values["cursor"]
        if cursor is not None and cursor.newest_first != newest_first:
            raise BadRequest("cursor comes from an answer in the other order: keep order unchanged")
        query = ReadingsQuery(
            gpu_ids=values["gpu_id"],
            models=values["model"],
            namespaces=values["namespace"],
            pods=values["pod"],
            after=cursor.position if cursor else None,
            **conditions,
        )
        if self.is_export:
            rows = get_store().stream(replace(query, limit=paging.given, offset=paging.offset))
            return self.export(rows, ReadingLayout(), "telemetry", "fleet", *values["metric_name"][:1])
        page_rows = _page(replace(query, limit=paging.size + 1, offset=paging.offset))
        more = len(page_rows) > paging.size
        page_rows = page_rows.cut(0, paging.size)
        after = encode_cursor(Cursor(newest_first, page_rows.position(-1))) if more else ""
        fixed = fixed_times(request.query_params, values)
        links = list_links(request, paging, more=more, following=after, **fixed)
        return Response(ReadingPageAnswer(json_list(page_rows), len(page_rows), **links._asdict()))
