"""The GPUs of the fleet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from time import time_ns
from typing import Any
from urllib.parse import quote

import msgspec
from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import NotFound, no_such
from api.links import SAFE, item_url, list_url
from api.pagination import encode_place, list_links, parse_place, read_paging
from api.params import Parameter, choice, cursor_of, flag, format_datetime, is_storable, paging_of, several
from api.schema.answers import EventCountsAnswer, GpuAnswer, GpuDetailAnswer, GpuPageAnswer, LatestAnswer
from api.views.base import ApiView
from health.queries import NO_EVENTS, SeverityCounts, ongoing_now
from inventory.models import GPU
from inventory.queries import (
    STATES,
    Ages,
    GpuRow,
    ages_now,
    gpu_rows,
    gpus_for_list,
    latest_readings,
    parse_moment,
)
from readings.times import SECOND, format_time, to_datetime, to_ns
from stores.open import get_store

GPU_IN_PATH = {"uuid": "the GPU's id: its uuid, or uuid:instance for a MIG instance"}
_MAX_ID_LENGTH = 200


def gpu_list(rows: Sequence[GpuRow], ages: Ages, gpus_url: str) -> Any:
    """A list of GpuAnswer, already encoded as JSON. ``gpus_url`` comes from ``list_url``."""
    base = msgspec.json.encode(gpus_url).decode()[:-1]
    by_gpu = ongoing_now().by_gpu
    none = _counts_text(NO_EVENTS)
    parts = []
    for row in rows:
        events = _counts_text(by_gpu[row.id]) if row.id in by_gpu else none
        described, gpu_id = _described(row[:-2])
        seen_ns = ages.last_seen_ns.get(row.id)
        seen = _seen_text(row.last_seen) if seen_ns is None else format_datetime(to_datetime(seen_ns))
        parts.append(
            f'{described},"state":"{ages.state_of(row.id)}","first_seen":"{_seen_text(row.first_seen)}",'
            f'"last_seen":"{seen}","events":{events},"url":{base}/{gpu_id}"}}'
        )
    return msgspec.Raw(f"[{','.join(parts)}]".encode())


def _counts_text(counts: SeverityCounts) -> str:
    return msgspec.json.encode(EventCountsAnswer(*counts)).decode()


@lru_cache(maxsize=16_384)
def _described(fields: tuple[Any, ...]) -> tuple[str, str]:
    """The start of a GPU's JSON object, with the fields that seldom change, and its id quoted for a URL."""
    text = msgspec.json.encode(dict(zip(GpuAnswer.__struct_fields__[: len(fields)], fields, strict=True))).decode()
    return text[:-1], quote(fields[0], safe=SAFE)


@lru_cache(maxsize=32_768)
def _seen_text(text: str) -> str:
    return format_datetime(parse_moment(text))


def gpu_detail_answer(gpu: GPU, ages: Ages, request: Request) -> GpuDetailAnswer:
    """One GPU with its newest readings. Its host must be loaded already."""
    url = item_url(list_url("gpus", request), gpu.id)
    now_ns = time_ns()
    latest = {
        each.metric_name: LatestAnswer(
            value=each.value,
            unit=each.unit,
            timestamp=format_time(each.time_ns),
            age_seconds=round((now_ns - each.time_ns) / SECOND, 3),
        )
        for each in latest_readings(gpu)
    }
    return GpuDetailAnswer(
        id=gpu.id,
        uuid=gpu.uuid,
        mig_id=gpu.mig_id,
        mig_profile=gpu.mig_profile,
        gpu_id=gpu.index,
        device=gpu.device,
        model_name=gpu.model_name,
        hostname=gpu.host.name if gpu.host else "",
        driver_version=gpu.driver_version,
        namespace=gpu.namespace,
        pod=gpu.pod,
        container=gpu.container,
        state=ages.state_of(gpu.id),
        first_seen=format_datetime(gpu.first_seen),
        last_seen=format_datetime(to_datetime(ages.last_seen_ns.get(gpu.id, to_ns(gpu.last_seen)))),
        events=EventCountsAnswer(*ongoing_now().by_gpu.get(gpu.id, NO_EVENTS)),
        url=url,
        latest=latest,
        labels=gpu.labels,
        telemetry_url=f"{url}/telemetry",
        metrics_url=f"{url}/metrics",
        host_url=item_url(list_url("hosts", request), gpu.host.name) if gpu.host else None,
    )


def check_id(gpu_id: str) -> None:
    """Raise NotFound for a text that cannot be a GPU's id, so that it never reaches a database."""
    if len(gpu_id) > _MAX_ID_LENGTH or not is_storable(gpu_id):
        raise no_such_gpu(gpu_id)


def check_known(gpu_id: str) -> None:
    """Raise NotFound if neither the inventory, which is up to a second behind, nor the store knows the GPU."""
    if not GPU.objects.filter(pk=gpu_id).exists() and not get_store().metric_names(gpu_id):
        raise no_such_gpu(gpu_id)


def no_such_gpu(gpu_id: str) -> NotFound:
    """The error for an unknown GPU."""
    return no_such("GPU", gpu_id)


HOSTNAME = several("hostname", "only GPUs of this host")
MODEL = several("model", "only GPUs of this model, by its full name")
NAMESPACE = several("namespace", "only GPUs that this namespace uses now")
POD = several("pod", "only GPUs that this pod uses now")
PAGING = paging_of("the maximum")
CURSOR = cursor_of("gpus", parse_place)
STATE = choice(
    "state",
    "reporting: only GPUs that report; stale: only those whose last reading is more than STALE_AFTER old: by the clock, and in a capture by its newest reading",
    *STATES,
)
SEARCH = Parameter(name="search", help="words that must all occur in the id, host name, model or pod", parse=str)
MIG = flag("mig", "true: include MIG instances beside the physical GPUs")


class GpuListView(ApiView):
    """The GPUs of the fleet, by host and index."""

    name = "GPUs"
    tag = "fleet"
    operation_id = "gpus"
    answer = GpuPageAnswer
    parameters = (*PAGING, CURSOR, HOSTNAME, MODEL, NAMESPACE, POD, STATE, SEARCH, MIG)

    def get(self, request: Request) -> Response:
        """The GPUs of the fleet, by host and index."""
        values = self.values
        ages = ages_now()
        cursor, paging = values["cursor"], read_paging(values, settings.MAX_PAGE_SIZE)
        find = partial(
            gpus_for_list,
            hostnames=values["hostname"],
            models=values["model"],
            namespaces=values["namespace"],
            pods=values["pod"],
            state=values["state"],
            search=values["search"] or "",
            mig=values["mig"],
            ages=ages,
        )
        found = find()
        start, size = paging.offset, paging.size
        # One row more than the page has shows whether another page follows.
        rows = gpu_rows((find(after=cursor) if cursor else found)[start : start + size + 1])
        more, rows = len(rows) > size, rows[:size]
        is_all = start == 0 and cursor is None and not more
        count = len(rows) if is_all else found.count()
        following = encode_place(rows[-1].position) if more else ""
        return Response(
            GpuPageAnswer(
                data=[row.id for row in rows],
                count=count,
                gpus=gpu_list(rows, ages, list_url("gpus", request)),
                **list_links(request, paging, more=more, following=following)._asdict(),
            )
        )


class GpuView(ApiView):
    """A GPU: its description, its host, and its newest reading of each metric."""

    name = "GPU"
    tag = "fleet"
    operation_id = "gpu"
    answer = GpuDetailAnswer
    path_help = GPU_IN_PATH
    error_statuses = (400, 404, 503)

    def get(self, request: Request, uuid: str) -> Response:
        """A GPU: its description, its host, and its newest reading of each metric."""
        check_id(uuid)
        gpu = GPU.objects.select_related("host").filter(pk=uuid).first()
        if gpu is None:
            raise no_such_gpu(uuid)
        return Response(gpu_detail_answer(gpu, ages_now(), request))
