"""Mutes: the events that nobody is notified of, and until when."""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType

from django.db.models import Q
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import BadRequest, Conflict, no_such
from api.events import mute_answer
from api.links import list_url
from api.pagination import list_links, read_paging
from api.params import choice, paging_of, time_ns
from api.schema.event_answers import MuteAnswer, MuteBody, MutePageAnswer
from api.views.base import ApiView, WriteOperation
from health.models import Mute
from health.muting import MuteError, check_length, check_scope, end_mute, save_mute
from readings.times import parse_duration, to_datetime, to_ns

MUTE_IN_PATH = {"id": "the mute's number"}
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
        {
            "POST": WriteOperation(
                "add_mute", "Add a mute", "health.add_mute", MuteAnswer, MuteBody, 201, (400, 409, 503)
            )
        }
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
        try:
            save_mute(mute, user_id=self.changer.user_id)
        except MuteError as error:
            raise Conflict(str(error)) from None
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
    """The mute that a body asks for, unsaved. At most three queries. Raises BadRequest naming what cannot be used."""
    mute = Mute(
        rule=body.rule,
        hostname=body.hostname,
        gpu=body.gpu,
        tag=body.tag,
        tag_value=body.tag_value,
        starts=now,
        note=body.note,
    )
    try:
        check_scope(mute)
    except MuteError as error:
        raise BadRequest(str(error)) from None
    mute.expires = _end_of(body, now)
    return mute


def _end_of(body: MuteBody, now: datetime) -> datetime:
    if bool(body.for_) == bool(body.expires):
        raise BadRequest("give either for, as 2h, or expires, a time")
    name, given = ("for", body.for_) if body.for_ else ("expires", body.expires)
    try:
        end = to_datetime(to_ns(now) + parse_duration(given)) if body.for_ else to_datetime(time_ns(given))
        check_length(now, end)
    except MuteError as error:
        raise BadRequest(f"{name} {given!r} is out of range: {error}") from None
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name} {given!r} {error}") from None
    return end
