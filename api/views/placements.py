"""Which pods ran on which GPUs, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from api.pagination import list_links, read_paging
from api.params import END_BEFORE, Parameter, format_datetime, paging_of, read_range, several, time_ns
from api.params import END_TIME as LAST_TIME
from api.schema.answers import PlacementAnswer, PlacementPageAnswer
from api.views.base import ApiView
from inventory.models import Placement
from readings.times import to_datetime

START_TIME = Parameter(
    name="start_time",
    help="only pods that ran at or after this time (RFC 3339, or -1h for an hour ago); default: no lower bound",
    parse=time_ns,
    schema=LAST_TIME.schema,
)
END_TIME = Parameter(
    name="end_time",
    help="only pods that had started by this time (RFC 3339, or -5m for five minutes ago)",
    parse=time_ns,
    schema=LAST_TIME.schema,
)
UUID = several("uuid", "only this GPU with its MIG instances, or one instance, as uuid:instance")
HOSTNAME = several("hostname", "only GPUs that are on this host now")
NAMESPACE = several("namespace", "only pods of this namespace")
POD = several("pod", "only this pod")
_TICK = timedelta(microseconds=1)
_FIELDS = (
    "gpu_id", "gpu__uuid", "gpu__host__name", "gpu__index", "namespace", "pod", "container", "share",
    "started", "last_seen", "ended",
)  # fmt: skip


class PlacementsView(ApiView):
    """Which pods ran on which GPUs, and when, those that started last first.

    A pod's time is that of the readings that showed it. Without ended it still runs.
    """

    name = "Placements"
    tag = "fleet"
    operation_id = "placements"
    answer = PlacementPageAnswer
    parameters = (UUID, HOSTNAME, NAMESPACE, POD, START_TIME, END_TIME, *paging_of("the maximum"))
    error_statuses = (400, 503)

    def get(self, request: Request) -> Response:
        """Which pods ran on which GPUs, and when."""
        paging = read_paging(self.values, settings.MAX_PAGE_SIZE)
        found = placements(self.values)
        start, size = paging.offset, paging.size
        rows = list(found.values_list(*_FIELDS)[start : start + size + 1])
        more, rows = len(rows) > size, rows[:size]
        count = len(rows) if start == 0 and not more else found.count()
        links = list_links(request, paging, more=more)
        return Response(PlacementPageAnswer([_answer(row) for row in rows], count, **links._asdict()))


def placements(values: dict[str, Any]) -> QuerySet[Placement]:
    """The placements that meet the parameters. Raises BadRequest for a range that nothing can be in."""
    start_ns, end_ns = read_range({**values, END_BEFORE.name: None})
    found = Placement.objects.order_by("-started", "gpu_id", "namespace", "pod", "container")
    if start_ns is not None:
        found = found.filter(Q(ended=None) | Q(last_seen__gte=to_datetime(start_ns)))
    if end_ns is not None:
        found = found.filter(started__lt=to_datetime(end_ns - 1) + _TICK)
    if values["uuid"]:
        found = found.filter(Q(gpu__uuid__in=values["uuid"]) | Q(gpu_id__in=values["uuid"]))
    filters = {"gpu__host__name__in": "hostname", "namespace__in": "namespace", "pod__in": "pod"}
    return found.filter(**{field: values[name] for field, name in filters.items() if values[name]})


def _answer(row: tuple[Any, ...]) -> PlacementAnswer:
    gpu, uuid, hostname, slot, namespace, pod, container, share, started, last_seen, ended = row
    return PlacementAnswer(
        gpu=gpu,
        uuid=uuid,
        hostname=hostname or "",
        gpu_id=slot,
        namespace=namespace,
        pod=pod,
        container=container,
        share=share,
        started=format_datetime(started),
        last_seen=format_datetime(last_seen),
        ended=None if ended is None else format_datetime(ended),
    )
