"""The fleet now, in one answer, and the search for what is in it."""

from __future__ import annotations

import gzip
from hashlib import blake2b

import msgspec
from django.http import HttpResponse, HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from api.fleet import availability_answer, fleet_answer, select_slots
from api.params import Parameter, number, several
from api.schema.answers import AvailabilityAnswer, FleetAnswer, SearchAnswer
from api.search import find
from api.views.base import ApiView
from inventory.fleet import fleet_now
from readings.catalogue import canonical_name
from readings.mig import UTILISATION

METRIC = Parameter(
    name="metric",
    help=f"the metric of the column value; default: {UTILISATION}",
    parse=canonical_name,
    default=UTILISATION,
)
HOSTNAME = several("hostname", "only this host")
MODEL = several("model", "only GPUs of this model, by its full name")
NAMESPACE = several("namespace", "only GPUs that this namespace uses now")
POD = several("pod", "only GPUs that this pod uses now")
# A higher level takes more time than the network saves.
_GZIP_LEVEL = 2
_SMALL = 1024


class FleetView(ApiView):
    """The fleet now: counts, totals, hosts, and every GPU's newest values in columns. With `If-None-Match`, an unchanged fleet is a 304."""

    name = "Fleet"
    tag = "fleet"
    operation_id = "fleet"
    answer = FleetAnswer
    parameters = (METRIC, HOSTNAME, MODEL, NAMESPACE, POD)

    def get(self, request: Request) -> HttpResponseBase:
        """The fleet now, in one answer."""
        values = self.values
        fleet = fleet_now()
        chosen = select_slots(
            fleet,
            hostnames=values["hostname"],
            models=values["model"],
            namespaces=values["namespace"],
            pods=values["pod"],
        )
        answer = fleet_answer(fleet, values["metric"], chosen)
        if request.accepted_renderer.format != "json":
            # A page of thousands of columns helps nobody: /api/v1/gpus lists them.
            answer.gpus = None
            return Response(answer)
        return _compact(request, msgspec.json.encode(answer))


def _compact(request: Request, body: bytes) -> HttpResponse:
    """The body with its ETag, compressed if the client takes that; a 304 if it has it already."""
    tag = f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
    given = (each.strip() for each in request.headers.get("If-None-Match", "").split(","))
    if tag in given:
        response = HttpResponse(status=304)
    else:
        response = HttpResponse(content_type="application/json")
        if len(body) > _SMALL and "gzip" in request.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
            response["Content-Encoding"] = "gzip"
        response.content = body
    response["ETag"] = tag
    response["Vary"] = "Accept, Accept-Encoding, Cookie, Authorization"
    response["Cache-Control"] = "private, no-cache"
    return response


class AvailabilityView(ApiView):
    """Which metrics the GPUs of each host report now. Slots without a GPU that reports count as having none."""

    name = "Availability"
    tag = "fleet"
    operation_id = "fleet_availability"
    answer = AvailabilityAnswer
    parameters = (HOSTNAME, MODEL, NAMESPACE, POD)

    def get(self, request: Request) -> HttpResponseBase:
        """Which metrics the GPUs of each host report now."""
        fleet, values = fleet_now(), self.values
        chosen = select_slots(
            fleet,
            hostnames=values["hostname"],
            models=values["model"],
            namespaces=values["namespace"],
            pods=values["pod"],
        )
        answer = availability_answer(fleet, chosen)
        if request.accepted_renderer.format != "json":
            return Response(answer)
        return _compact(request, msgspec.json.encode(answer))


class SearchView(ApiView):
    """Hosts, GPUs, pods, namespaces and rules whose names begin with, or contain, what is looked for; an XID by its code."""

    name = "Search"
    tag = "fleet"
    operation_id = "search"
    answer = SearchAnswer
    parameters = (
        Parameter(
            name="q", help="the beginning of a name or of a GPU's uuid, or a part of it", parse=str, required=True
        ),
        number("limit", "rows in the answer", 1, 50, default=12),
    )

    def get(self, request: Request) -> Response:
        """Hosts, GPUs, pods, namespaces, rules and XIDs by name."""
        found = find(self.values["q"], self.values["limit"])
        return Response(SearchAnswer(data=found, count=len(found)))
