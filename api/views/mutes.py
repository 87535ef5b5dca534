"""Mutes: of which events nobody is notified, and until when."""

from __future__ import annotations

import time
from datetime import datetime
from types import MappingProxyType

from django.db.models import Q
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import BadRequest, no_such
from api.events import mute_answer
from api.links import list_url
from api.pagination import list_links, read_paging
from api.params import choice, paging_of
from api.schema.event_answers import MuteAnswer, MuteBody, MutePageAnswer
from api.views.base import ApiView, WriteOperation
from health.models import Mute
from health.muting import end_mute, save_mute
from health.rule_table import rules_now
from inventory.models import GPU, Host
from inventory.tags import NAME_RULE, parse_tags
from readings.times import SECOND, parse_duration, parse_time, to_datetime

MUTE_IN_PATH = {"id": "the mute's number"}
SHORTEST_NS, LONGEST_NS = 60 * SECOND, 366 * 86_400 * SECOND
STATE = choice(
    "state",
    "active: those that count now, or will; ended: those that expired or were ended; all",
    "active",
    "ended",
    "all",
    default="active",
)
DEFAULT_PAGE = 100


class MuteListView(ApiView):
    """The mutes that count now, the one that lasts longest first. Nobody is notified of events that all given fields of a mute fit."""

    name = "Mutes"
    tag = "health"
    operation_id = "mutes"
    answer = MutePageAnswer
    parameters = (STATE, *paging_of("100"))
    writes = MappingProxyType(
        {"POST": WriteOperation("add_mute", "Add a mute", "health.add_mute", MuteAnswer, MuteBody, 201, (400, 503))}
    )

    def get(self, request: Request) -> Response:
        """The mutes that count now, or those that have ended."""
        now, paging = timezone.now(), read_paging(self.values, DEFAULT_PAGE)
        lasts = Q(expires__gt=now)
        wanted = {"active": lasts, "ended": ~lasts, "all": Q()}[self.values["state"]]
        found = Mute.objects.filter(wanted).order_by("-expires", "-pk")
        rows = list(found[paging.offset : paging.offset + paging.size + 1])
        more, rows = len(rows) > paging.size, rows[: paging.size]
        base = list_url("mutes", request)
        return Response(
            MutePageAnswer(
                data=[mute_answer(mute, base, now) for mute in rows],
                count=found.count(),
                **list_links(request, paging, more=more)._asdict(),
            )
        )

    def post(self, request: Request) -> Response:
        """Adds a mute, which counts from now on. What is muted opens and closes as before; nobody is notified of it."""
        now = timezone.now()
        mute = new_mute(self.body, now)
        mute.created_by = self.changer.name
        save_mute(mute, user_id=self.changer.user_id)
        answer = mute_answer(mute, list_url("mutes", request), now)
        return Response(answer, status=201, headers={"Location": answer.url})


class MuteView(ApiView):
    """A mute."""

    name = "Mute"
    tag = "health"
    operation_id = "mute"
    answer = MuteAnswer
    path_help = MUTE_IN_PATH
    error_statuses = (400, 404, 503)
    writes = MappingProxyType({"DELETE": WriteOperation("end_mute", "End a mute", "health.change_mute", MuteAnswer)})

    def get(self, request: Request, id: int) -> Response:
        """A mute, also one that has ended."""
        return Response(mute_answer(_find(id), list_url("mutes", request), timezone.now()))

    def delete(self, request: Request, id: int) -> Response:
        """Ends a mute now. Its row stays, so that it can be looked up; one that has ended already stays as it is."""
        mute = end_mute(_find(id), self.changer.name, user_id=self.changer.user_id)
        return Response(mute_answer(mute, list_url("mutes", request), timezone.now()))


def _find(key: int) -> Mute:
    mute = Mute.objects.filter(pk=key).first()
    if mute is None:
        raise no_such("mute", str(key))
    return mute


def new_mute(body: MuteBody, now: datetime) -> Mute:
    """The mute that a body asks for, unsaved. At most two queries. Raises BadRequest naming what cannot be used."""
    if not (body.rule or body.hostname or body.gpu or body.tag):
        raise BadRequest("the mute fits everything: give it a rule, a hostname, a gpu or a tag")
    if body.rule and body.rule not in rules_now():
        raise BadRequest(f"rule {body.rule!r} is not known: see /api/v1/rules")
    if bool(body.tag) != bool(body.tag_value):
        raise BadRequest("tag and tag_value belong together: give both or none")
    if body.tag:
        try:
            parse_tags(f"{body.tag}: {body.tag_value}")
        except ValueError:
            raise BadRequest(f"tag {body.tag!r} with tag_value {body.tag_value!r} is no tag: {NAME_RULE}") from None
    if body.hostname and not Host.objects.filter(name=body.hostname).exists():
        raise BadRequest(f"hostname {body.hostname!r} is not known: see /api/v1/hosts")
    if body.gpu and not _is_gpu_or_slot(body.gpu):
        raise BadRequest(f"gpu {body.gpu!r} is not known: give a GPU's id, see /api/v1/gpus, or host/slot")
    return Mute(
        rule=body.rule,
        hostname=body.hostname,
        gpu=body.gpu,
        tag=body.tag,
        tag_value=body.tag_value,
        starts=now,
        expires=_end_of(body),
        note=body.note,
    )


def _is_gpu_or_slot(text: str) -> bool:
    host, _, slot = text.rpartition("/")
    if slot.isdecimal() and Host.objects.filter(name=host).exists():
        return True
    return GPU.objects.filter(pk=text).exists()


def _end_of(body: MuteBody) -> datetime:
    if bool(body.for_) == bool(body.expires):
        raise BadRequest("give either for, as 2h, or expires, a time")
    now = time.time_ns()
    name, given = ("for", body.for_) if body.for_ else ("expires", body.expires)
    try:
        end = now + parse_duration(given) if body.for_ else parse_time(given)
    except ValueError as error:
        raise BadRequest(f"{name} {given!r} {error}") from None
    if not SHORTEST_NS <= end - now <= LONGEST_NS:
        raise BadRequest(f"{name} {given!r} is out of range: a mute lasts from one minute to 366 days")
    return to_datetime(end)
