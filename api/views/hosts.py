"""The hosts of the fleet."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import no_such
from api.links import item_url, list_url
from api.pagination import encode_name, list_links, parse_name, read_paging
from api.params import cursor_of, format_datetime, is_storable, paging_of
from api.schema.answers import EventCountsAnswer, HostAnswer, HostDetailAnswer, HostPageAnswer
from api.views.base import ApiView
from api.views.gpus import gpu_list
from health.queries import NO_EVENTS, ongoing_now
from inventory.fleet import SlotState, fleet_now
from inventory.models import Host
from inventory.newest import newest_by_host
from inventory.queries import ages_of, gpu_rows, gpus_for_list
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
        answers = _HostAnswers(list_url("hosts", request))
        return Response(
            HostPageAnswer(
                data=[HostAnswer(**answers.fields(summary)) for summary in summaries],
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
        newest = newest_by_host()
        summaries = host_summaries([name], newest=newest) if usable else []
        if not summaries:
            raise no_such("host", name)
        gpus = gpu_rows(gpus_for_list(hostnames=[name]))
        fields = _HostAnswers(list_url("hosts", request)).fields(summaries[0])
        return Response(
            HostDetailAnswer(**fields, gpus=gpu_list(gpus, ages_of(newest.values()), list_url("gpus", request)))
        )


class _HostAnswers:
    """Makes the fields of hosts' answers, with what is the same for all of one request."""

    def __init__(self, hosts_url: str) -> None:
        self._url = hosts_url
        self._fleet, self._ongoing = fleet_now(), ongoing_now()
        self._places = {host.name: at for at, host in enumerate(self._fleet.hosts)}
        is_missing = self._fleet.state == SlotState.MISSING
        self._missing = np.bincount(self._fleet.host[is_missing], minlength=len(self._fleet.hosts)).tolist()

    def fields(self, summary: HostSummary) -> dict[str, Any]:
        """The fields of HostAnswer."""
        at = self._places.get(summary.name)  # a retired host has none
        return {
            "name": summary.name,
            "gpu_count": summary.gpu_count,
            "reporting": summary.reporting,
            "stale": summary.stale,
            "mean_utilisation": summary.mean_utilisation,
            "power_watts": summary.power_watts,
            "memory_used_mib": summary.memory_used_mib,
            "last_seen": format_datetime(summary.last_seen),
            "expected": 0 if at is None else self._fleet.hosts[at].expected,
            "missing": 0 if at is None else self._missing[at],
            "state": summary.asset_state,
            "owner": summary.owner,
            "tags": summary.tags,
            "events": EventCountsAnswer(*self._ongoing.by_host.get(summary.name, NO_EVENTS)),
            "url": item_url(self._url, summary.name),
        }
