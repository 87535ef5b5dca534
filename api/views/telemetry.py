"""Readings of one GPU and of the whole fleet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import BadRequest
from api.exports.readings import ReadingLayout, json_list
from api.pagination import Cursor, Links, encode_cursor, offset_links, page_links, parse_cursor, same_with
from api.params import (
    END_TIME,
    MOST_ROWS,
    ORDER,
    START_TIME,
    Parameter,
    check_range,
    cursor_of,
    number,
    row_count,
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
LIMIT = Parameter(
    name="limit",
    help=(
        f"maximum number of rows (default {DEFAULT_ROWS}), cut to the service's MAX_PAGE_SIZE."
        " For csv, ndjson and parquet: default all rows, and any limit is allowed"
    ),
    parse=row_count,
    schema={"type": "integer", "minimum": 1, "maximum": MOST_ROWS},
)
OFFSET = number("offset", "rows to skip at the start", 0, 1_000_000_000, default=0)
TELEMETRY_PAGE = number(
    "page", "which page, from 1; while new readings arrive, follow next, which uses a cursor", 1, 1_000_000
)
TELEMETRY_PAGE_SIZE = Parameter(
    name="page_size",
    help=(
        f"rows on a page (default {DEFAULT_ROWS}), cut to the service's MAX_PAGE_SIZE."
        " For csv, ndjson and parquet: all rows unless it is given"
    ),
    parse=row_count,
    schema={"type": "integer", "minimum": 1, "maximum": MOST_ROWS},
)
TELEMETRY_LIMIT = Parameter(
    name="limit",
    help="maximum number of rows, of any size for csv, ndjson and parquet; for a page, the smaller of this and page_size",
    parse=row_count,
    schema={"type": "integer", "minimum": 1, "maximum": MOST_ROWS},
)
CURSOR = cursor_of("telemetry", parse_cursor)


def _conditions(values: dict[str, Any]) -> dict[str, Any]:
    """The conditions that both views share. Raises BadRequest."""
    check_range(values["start_time"], values["end_time"])
    return {
        "metric_names": values["metric_name"],
        "hostnames": values["hostname"],
        "start_ns": values["start_time"],
        "end_ns": values["end_time"],
        "newest_first": values["order"] == "desc",
        "hosts": hosts_between,
    }


def _rows_asked(*given: int | None) -> int:
    return min(settings.MAX_PAGE_SIZE, *[each for each in given if each is not None] or [DEFAULT_ROWS])


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
    parameters = (START_TIME, END_TIME, LIMIT, OFFSET, METRIC_NAME, HOSTNAME, GPU_ID, ORDER, CSV_SAFE)
    path_help = GPU_IN_PATH
    error_statuses = (400, 404, 503)

    def get(self, request: Request, uuid: str) -> HttpResponseBase:
        """The readings of one GPU, newest first."""
        check_id(uuid)
        values = self.values
        query = ReadingsQuery(
            gpus=(uuid,),
            gpu_ids=values["gpu_id"],
            offset=values["offset"],
            limit=values["limit"],
            **_conditions(values),
        )
        if self.is_export:
            rows = _checked(get_store().stream(query), uuid)
            return self.export(rows, ReadingLayout(), "telemetry", uuid, *values["metric_name"][:1])
        limit, offset = _rows_asked(values["limit"]), values["offset"]
        page = _page(replace(query, limit=limit + 1))
        if not len(page):
            check_known(uuid)
        links = offset_links(request, offset, limit, more=len(page) > limit)
        page = page.cut(0, limit)
        return Response(ReadingPageAnswer(json_list(page), len(page), **links._asdict()))


class GpuMetricsView(ApiView):
    """The names of the metrics for which a GPU has readings."""

    name = "Metrics of a GPU"
    tag = "telemetry"
    operation_id = "gpu_metrics"
    answer = MetricNamesAnswer
    path_help = GPU_IN_PATH
    error_statuses = (400, 404, 503)

    def get(self, request: Request, uuid: str) -> Response:
        """The names of the metrics for which a GPU has readings."""
        check_id(uuid)
        names = get_store().metric_names(uuid)
        if not names:
            check_known(uuid)
        return Response(MetricNamesAnswer(names, len(names)))


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
        ORDER,
        TELEMETRY_PAGE,
        TELEMETRY_PAGE_SIZE,
        TELEMETRY_LIMIT,
        CURSOR,
        CSV_SAFE,
    )

    def get(self, request: Request) -> HttpResponseBase:
        """The readings of the whole fleet, newest first."""
        values = self.values
        conditions = _conditions(values)
        newest_first: bool = conditions["newest_first"]
        page: int | None = values["page"]
        cursor: Cursor | None = values["cursor"]
        if cursor is not None and page is not None:
            raise BadRequest("page and cursor exclude each other: give one of them")
        if cursor is not None and cursor.newest_first != newest_first:
            raise BadRequest("cursor comes from an answer in the other order: keep order unchanged")
        size = _rows_asked(values["page_size"], values["limit"])
        query = ReadingsQuery(
            gpu_ids=values["gpu_id"],
            models=values["model"],
            namespaces=values["namespace"],
            pods=values["pod"],
            after=cursor.position if cursor else None,
            **conditions,
        )
        if self.is_export:
            given = [each for each in (values["page_size"], values["limit"]) if each is not None]
            before = ((page or 1) - 1) * (values["page_size"] or size)
            rows = get_store().stream(replace(query, limit=min(given, default=None), offset=before))
            return self.export(rows, ReadingLayout(), "telemetry", "fleet", *values["metric_name"][:1])
        page_rows = _page(replace(query, limit=size + 1, offset=((page or 1) - 1) * size))
        more = len(page_rows) > size
        page_rows = page_rows.cut(0, size)
        if page is not None:
            links = page_links(request, page, more=more)
        else:
            # A cursor stays right while newer readings arrive, but leads forward only.
            after = encode_cursor(Cursor(newest_first, page_rows.position(-1))) if more else None
            links = Links(next=same_with(request, cursor=after) if after else None, previous=None)
        return Response(ReadingPageAnswer(json_list(page_rows), len(page_rows), **links._asdict()))
