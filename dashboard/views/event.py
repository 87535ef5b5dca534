"""One event: what it is, what to do, what happened, and what people may do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils.datastructures import MultiValueDict

from api.params import is_storable
from api.rule_words import condition_words
from dashboard.event_rows import AROUND, EventRow, EventRows, event_url, events_url
from dashboard.views.gpu import described
from dashboard.views.item import ItemPage, Unknown, unknown_page
from health.actions import MOST_NOTE, EventIsClosed, acknowledge, add_note, resolve
from health.models import EntityKind, Event, EventState, EventTransition, Mute
from health.muting import mute_for, save_mute
from health.rules.model import Rule
from readings.catalogue import canonical_name, whole_of
from readings.mig import UTILISATION

CHANGE_EVENT, ADD_MUTE = "health.change_event", "health.add_mute"
MUTE_LENGTHS = {
    "1h": ("1 hour", timedelta(hours=1)),
    "8h": ("8 hours", timedelta(hours=8)),
    "24h": ("1 day", timedelta(days=1)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
}
MUTE_SCOPES = {"here": "this rule here", "host": "everything on this host", "rule": "this rule everywhere"}
MOST_STEPS = 200
MOST_EARLIER = 5
MOST_CHARTS = 3
_LARGEST_ID = 2**63 - 1
_LONGEST_VIEW = timedelta(days=1)


class SeeOther(HttpResponseRedirect):
    """What a form answers when it is done: go and look, so that a reload does it not again."""

    status_code = 303


class ActionRefused(Exception):
    """What a person asked for cannot be done. The text is a sentence."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class EventStep:
    """A step of an event in words."""

    step: EventTransition
    words: str


class EventFigure(NamedTuple):
    """A figure of an event: its name as the rule has it, and the value as text."""

    name: str
    text: str


class EventPage(ItemPage):
    """One event, and the forms for those who may change it."""

    title = "Event"
    menu = "events"
    template_name = "dashboard/event.html"
    http_method_names = ["get", "head", "post", "options"]  # noqa: RUF012 - declared so by Django
    row: EventRow
    rule: Rule | None
    refused: ActionRefused | None = None

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Do what the form asks for, and show the event again."""
        try:
            event = _found(self.kwargs["pk"])
            _act(event, request)
        except Unknown as error:
            return unknown_page(request, error)
        except ActionRefused as refused:
            self.refused = refused
        except EventIsClosed:
            self.refused = ActionRefused("The event is closed: it takes notes only.", 409)
        except DatabaseError:
            self.refused = ActionRefused("The database does not take it now. Try again.", 503)
        if self.refused is None:
            return SeeOther(event_url(self.kwargs["pk"]))
        response = self.get(request, *args, **kwargs)
        response.status_code = self.refused.status
        return response

    def page_title(self) -> str:
        row = getattr(self, "row", None)
        return f"{row.title} · event {row.event.pk}" if row else f"Event {self.kwargs['pk']}"

    def page_context(self) -> dict[str, Any]:
        event = _found(self.kwargs["pk"])
        made = EventRows(self.now)
        self.row, self.rule = made.row(event), made.rule(event)
        steps = list(event.transitions.order_by("-at", "-pk")[: MOST_STEPS + 1])
        xid = made.xid(event)
        same = Event.objects.filter(
            rule=event.rule, entity_kind=event.entity_kind, entity=event.entity, opened__lt=event.opened
        )
        user = self.request.user
        is_staff = bool(getattr(user, "is_staff", False))
        return {
            "row": self.row,
            "event": event,
            "rule": self.rule,
            "condition": condition_words(self.rule) if self.rule else "",
            "xid": xid,
            "figures": figures_of(event.details),
            "steps": [EventStep(step, str(step.get_kind_display())) for step in steps[:MOST_STEPS]],
            "more_steps": len(steps) > MOST_STEPS,
            "earlier": made.rows(same.order_by("-opened", "-pk")[:MOST_EARLIER]),
            "same_url": events_url(state="all", rule=event.rule, **_entity_filter(event)),
            "host_url": events_url(state="all", hostname=event.hostname) if event.hostname else "",
            "may_change": is_staff and user.has_perm(CHANGE_EVENT),
            "may_mute": is_staff and user.has_perm(ADD_MUTE),
            "lengths": [(value, label) for value, (label, _) in MUTE_LENGTHS.items()],
            "scopes": [each for each in MUTE_SCOPES.items() if each[0] != "host" or event.hostname],
            "most_note": MOST_NOTE,
            "refused": self.refused,
            "given_note": self.request.POST.get("note", "") if self.refused else "",
            "curl": self.api_url(f"{reverse('events')}/{event.pk}"),
        }

    def data(self) -> dict[str, Any]:
        event, row = self.row.event, self.row
        start, end = window_of(event, self.now)
        return {
            "event": {
                "gpu": row.gpu_id,
                "host": event.hostname,
                "start": _ms(start),
                "end": _ms(end),
                "mark": {
                    "time": _ms(event.opened),
                    "until": None if event.closed is None else _ms(event.closed),
                    "kind": event.severity,
                    "text": f"{row.title}: {event.summary}",
                },
                "metrics": [described(name) for name in metrics_of(self.rule, self.fleet.metric_names())],
                # A mask of bits is no limit that a line could be drawn at.
                "limit": None if "mask" in event.details else _number(event.details.get("limit")),
            }
        }


def _found(pk: int) -> Event:
    """The event of this number. Raises Unknown."""
    event = Event.objects.filter(pk=pk).first() if pk <= _LARGEST_ID else None
    if event is None:
        raise Unknown("event", str(pk))
    return event


def _act(event: Event, request: HttpRequest) -> None:
    """What the form asks for. Raises ActionRefused, EventIsClosed, DatabaseError."""
    form = request.POST
    wanted, note = form.get("do", ""), form.get("note", "").strip()
    permission = ADD_MUTE if wanted == "mute" else CHANGE_EVENT
    user = request.user
    if not (getattr(user, "is_staff", False) and user.has_perm(permission)):
        raise ActionRefused(f"This takes a user of the staff with the permission {permission}.", 403)
    if len(note) > MOST_NOTE:
        raise ActionRefused(f"The note has {len(note):,} characters; at most {MOST_NOTE:,} are kept.", 400)
    if not is_storable(note.replace("\r", "").replace("\n", "").replace("\t", "")):
        raise ActionRefused("The note has control characters, which cannot be kept.", 400)
    name = user.get_username()
    match wanted:
        case "acknowledge":
            acknowledge(event, name, note, user_id=user.pk)
        case "resolve":
            resolve(event, name, note, user_id=user.pk)
        case "note":
            if not note:
                raise ActionRefused("The note is empty.", 400)
            add_note(event, name, note, user_id=user.pk)
        case "mute":
            _mute(event, form, name, user.pk, note)
        case _:
            raise ActionRefused("What to do must be acknowledge, resolve, note or mute.", 400)


def _mute(event: Event, form: MultiValueDict[str, str], user: str, user_id: int | None, note: str) -> None:
    length, scope = form.get("length", ""), form.get("scope", "here")
    if length not in MUTE_LENGTHS:
        raise ActionRefused(f"The length of a mute must be one of {', '.join(MUTE_LENGTHS)}.", 400)
    if scope not in MUTE_SCOPES or (scope == "host" and not event.hostname):
        raise ActionRefused(
            "What is muted must be this rule here, everything on its host, or the rule everywhere.", 400
        )
    mute = mute_for(event, MUTE_LENGTHS[length][1], user, note[: Mute._meta.get_field("note").max_length])
    if scope == "host":
        mute.rule, mute.gpu, mute.hostname = "", "", event.hostname
    elif scope == "rule":
        mute.gpu = mute.hostname = ""
    save_mute(mute, user_id=user_id)


def _entity_filter(event: Event) -> dict[str, str]:
    if event.entity_kind == EntityKind.GPU:
        return {"uuid": event.entity}
    return {"hostname": event.hostname}


def window_of(event: Event, now: datetime) -> tuple[datetime, datetime]:
    """What the charts of an event show: half an hour more on either side, and of a long one its opening."""
    last = event.closed or (now if event.state == EventState.OPEN else event.last_seen)
    end = min(max(last, event.opened) + AROUND, max(now, event.last_seen))
    start = event.opened - AROUND
    if end - start > _LONGEST_VIEW:
        end = event.opened + AROUND
    return start, max(end, start + AROUND)


def metrics_of(rule: Rule | None, sent: Iterable[str]) -> list[str]:
    """The metrics behind an event that the fleet sends; its utilisation for rules that look at no values."""
    wanted: list[str] = []
    if rule is not None:
        for level in reversed(rule.levels):
            wanted += level.when.metrics
        for names in rule.needs:
            wanted += names
    there = {whole_of(canonical_name(name)) for name in sent}
    found = [name for name in dict.fromkeys(wanted) if name in there]
    return found[:MOST_CHARTS] or [UTILISATION]


def figures_of(details: Any) -> list[EventFigure]:
    """The figures of an event as text, in the order in which the rule gave them."""
    if not isinstance(details, dict):
        return []
    return [EventFigure(str(name), _text(value)) for name, value in details.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.6g}" if abs(value) < 1e15 else f"{value:g}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
