"""The GPUs of the fleet."""

from __future__ import annotations

from functools import partial

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from api.cursor import encode_place, parse_place
from api.errors import BadRequest
from api.gpus import GPU_IN_PATH, check_id, gpu_detail_answer, gpu_list, list_url, no_such_gpu
from api.pagination import list_links
from api.params import PAGE, PAGE_SIZE, Parameter, boolean, cursor_of, one_of, several, text
from api.serializers import GpuDetailSerializer, GpuPageSerializer
from api.views.base import ApiView
from inventory.models import GPU
from inventory.queries import STATES, gpu_rows, gpus_for_list, stale_before

HOSTNAME = several("hostname", "only GPUs in this host")
MODEL = several("model", "only GPUs of this model, by its full name")
NAMESPACE = several("namespace", "only GPUs that this namespace has now")
POD = several("pod", "only GPUs that this pod has now")
CURSOR = cursor_of("gpus", parse_place)
STATE = Parameter(
    name="state",
    help="only GPUs that report, or only those whose last reading is STALE_AFTER older than the fleet's newest",
    parse=one_of(*STATES),
    schema={"type": "string", "enum": list(STATES)},
)
SEARCH = Parameter(name="search", help="words that must all occur in id, host name, model or pod", parse=text)
MIG = Parameter(
    name="mig",
    help="true: MIG instances too, next to the physical GPUs",
    parse=boolean,
    schema={"type": "string", "enum": ["true", "false"], "default": "false"},
    default=False,
)


class GpuListView(ApiView):
    """The GPUs of the fleet, by host and index."""

    name = "GPUs"
    tag = "fleet"
    operation_id = "gpus"
    answer = GpuPageSerializer
    parameters = (PAGE, PAGE_SIZE, CURSOR, HOSTNAME, MODEL, NAMESPACE, POD, STATE, SEARCH, MIG)

    def get(self, request: Request) -> Response:
        """The GPUs of the fleet, by host and index."""
        values = self.values
        cutoff = stale_before()
        page, cursor = values["page"], values["cursor"]
        if page is not None and cursor is not None:
            raise BadRequest("page and cursor exclude each other: give one of them")
        find = partial(
            gpus_for_list,
            hostnames=values["hostname"],
            models=values["model"],
            namespaces=values["namespace"],
            pods=values["pod"],
            state=values["state"],
            search=values["search"] or "",
            mig=values["mig"],
            cutoff=cutoff,
        )
        found = find()
        size = values["page_size"] or settings.MAX_PAGE_SIZE
        start = ((page or 1) - 1) * size
        # One more than the page has, to know whether there are more.
        rows = gpu_rows((find(after=cursor) if cursor else found)[start : start + size + 1])
        more, rows = len(rows) > size, rows[:size]
        is_all = start == 0 and cursor is None and not more
        count = len(rows) if is_all else found.count()
        following = encode_place(rows[-1].place) if more else None
        return Response(
            {
                "data": [row.id for row in rows],
                "count": count,
                "gpus": gpu_list(rows, cutoff, list_url("gpus", request)),
                **list_links(request, page, following)._asdict(),
            }
        )


class GpuView(ApiView):
    """What a GPU is, where it sits, and its newest reading of each metric."""

    name = "GPU"
    tag = "fleet"
    operation_id = "gpu"
    answer = GpuDetailSerializer
    path_help = GPU_IN_PATH
    error_statuses = (400, 404, 503)

    def get(self, request: Request, uuid: str) -> Response:
        """What a GPU is, where it sits, and its newest reading of each metric."""
        check_id(uuid)
        gpu = GPU.objects.select_related("host").filter(pk=uuid).first()
        if gpu is None:
            raise no_such_gpu(uuid)
        return Response(gpu_detail_answer(gpu, stale_before(), request))
