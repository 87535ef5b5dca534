"""The hosts of the fleet."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import no_such
from api.fleet import host_named
from api.links import item_url, list_url
from api.pagination import encode_name, list_links, parse_name, read_paging
from api.params import cursor_of, format_datetime, is_storable, paging_of
from api.schema.answers import EventCountsAnswer, HostAnswer, HostDetailAnswer, HostPageAnswer
from api.views.base import ApiView
from api.views.gpus import gpu_list
from health.queries import NO_EVENTS, Ongoing, ongoing_now
from inventory.fleet import Fleet, SlotState, fleet_now
from inventory.models import Host
from inventory.queries import ages_now, gpu_rows, gpus_for_list
from inventory.summaries import HostSummary, host_summaries

CURSOR = cursor_of("hosts", parse_name)
PAGING = paging_of("the maximum")
HOST_IN_PATH = {"name": "the host's name"}
_MAX_NAME_LENGTH = 255


class HostListView(ApiView):
    """The hosts by name, each with totals over its GPUs that report."""

    name = "Hosts"
    tag = "fleet"
    operation_id = "hosts"
    answer = HostPageAnswer
    parameters = (*PAGING, CURSOR)

    def get(self, request: Request) -> Response:
        """The hosts by name, each with totals over its GPUs that report."""
        cursor, paging = self.values["cursor"], read_paging(self.values, settings.MAX_PAGE_SIZE)
        names = list(Host.objects.order_by("name").values_list("name", flat=True))
        remaining = names if cursor is None else [name for name in names if name > cursor]
        end = paging.offset + paging.size
        on_page = remaining[paging.offset : end]
        more = end < len(remaining)
        summaries = host_summaries(None if len(on_page) == len(names) else on_page) if on_page else []
        base = list_url("hosts", request)
        fleet, ongoing = fleet_now(), ongoing_now()
        return Response(
            HostPageAnswer(
                data=[HostAnswer(**_host_fields(summary, fleet, ongoing, base)) for summary in summaries],
                count=len(names),
                **list_links(request, paging, more=more, following=encode_name(on_page[-1]) if more else "")._asdict(),
            )
        )


class HostView(ApiView):
    """A host with totals over its GPUs, and each of them."""

    name = "Host"
    tag = "fleet"
    operation_id = "host"
    answer = HostDetailAnswer
    path_help = HOST_IN_PATH
    error_statuses = (400, 404, 503)

    def get(self, request: Request, name: str) -> Response:
        """A host with totals over its GPUs, and each of them."""
        usable = len(name) <= _MAX_NAME_LENGTH and is_storable(name)
        ages = ages_now()
        summaries = host_summaries([name], ages=ages) if usable else []
        if not summaries:
            raise no_such("host", name)
        gpus = gpu_rows(gpus_for_list(hostnames=[name]))
        fields = _host_fields(summaries[0], fleet_now(), ongoing_now(), list_url("hosts", request))
        return Response(HostDetailAnswer(**fields, gpus=gpu_list(gpus, ages, list_url("gpus", request))))


def _host_fields(summary: HostSummary, fleet: Fleet, ongoing: Ongoing, hosts_url: str) -> dict[str, Any]:
    fields = asdict(summary)
    host = host_named(fleet, summary.name)
    missing = 0 if host is None else int(np.count_nonzero(fleet.state[host.rows] == SlotState.MISSING))
    return fields | {
        "expected": 0 if host is None else host.expected,
        "missing": missing,
        "state": fields.pop("asset_state"),
        "last_seen": format_datetime(summary.last_seen),
        "events": EventCountsAnswer(*ongoing.by_host.get(summary.name, NO_EVENTS)),
        "url": item_url(hosts_url, summary.name),
    }
