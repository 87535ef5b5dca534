"""The events of the fleet's health: list, one with its steps, over time, and what people do to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import BadRequest, Conflict, no_such
from api.events import EventAnswers, counts_answer
from api.pagination import encode_event, list_links, parse_event, read_paging
from api.params import TIME_SCHEMA, Parameter, choice, cursor_of, duration_ns, number, paging_of, several, time_ns
from api.schema.answers import EventCountsAnswer
from api.schema.event_answers import (
    ActionBody,
    EventDetailAnswer,
    EventPageAnswer,
    EventSummaryAnswer,
    NoteBody,
    TopRuleAnswer,
)
from api.views.base import ApiView, WriteOperation
from api.views.query import buckets_of
from health.actions import EventIsClosed, acknowledge, add_note, resolve
from health.models import Event, EventState, Severity
from health.over_time import EventSpan, EventSpans
from health.queries import EventFilter, EventPlace, after_place, counts_of, events_matching, spans_matching
from health.rule_table import rules_now
from inventory.tags import NAME_RULE, parse_tags
from readings.times import DURATION_PATTERN, SECOND, format_duration, format_time, to_datetime

CHANGE_EVENT = "health.change_event"
EVENT_IN_PATH = {"id": "the event's number"}
ONGOING_WORD = "ongoing"
DAY_NS = 86_400 * SECOND
CHOSEN_BARS = 300
MOST_SPANS = 200_000
_US = 1_000
_STATE_WORDS = (*EventState.values, ONGOING_WORD)


def _states(text: str) -> tuple[str, ...]:
    """Words of states, with commas between them. Raises ValueError."""
    words = text.split(",")
    if not set(words) <= set(_STATE_WORDS):
        raise ValueError(f"is not known: use {', '.join(_STATE_WORDS)}, or several with commas between them")
    return tuple(state for word in words for state in (("open", "unknown") if word == ONGOING_WORD else (word,)))


def _tag(text: str) -> tuple[str, str]:
    """``name=value``. Raises ValueError."""
    name, _, value = text.partition("=")
    try:
        ((found, value),) = parse_tags(f"{name}: {value}").items()
        if found != name:
            raise ValueError
    except ValueError:
        raise ValueError(f"is not a tag: use name=value; {NAME_RULE}") from None
    return name, value


_WORD = "(" + "|".join(_STATE_WORDS) + ")"
STATE = several(
    "state",
    "open; unknown: nothing is heard of what it is about; closed; ongoing: open or unknown. Several with commas between them",
    _states,
    type="string",
    pattern=f"^{_WORD}(,{_WORD})*$",
    maxLength=60,
)
SEVERITY = several(
    "severity",
    "only events of this severity",
    choice("severity", "", *Severity.values).parse,
    type="string",
    enum=list(Severity.values),
)
RULE = several("rule", "only what this rule found, by its name")
HOSTNAME = several("hostname", "only events of this host and its GPUs")
UUID = several("uuid", "only events of this GPU, by its id, with those of its MIG instances")
TAG = several(
    "tag",
    "only events of hosts and GPUs with this tag, as rack=r12",
    _tag,
    type="string",
    pattern=r"^[A-Za-z][A-Za-z0-9._/-]{0,62}=[!-~]{1,100}$",
)
QUIET = choice("quiet", "true: only what rules that only store have found; false: only the rest", "true", "false")
START_TIME = Parameter(
    name="start_time",
    help="only events that were ongoing at or after this time (RFC 3339, or -24h for a day ago)",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
END_TIME = Parameter(
    name="end_time",
    help="only events that opened at or before this time (RFC 3339, or -5m for five minutes ago)",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
FILTERS = (SEVERITY, RULE, HOSTNAME, UUID, TAG, QUIET)
CURSOR = cursor_of("events", parse_event)
PAGING = paging_of("100")
DEFAULT_PAGE = 100


def filter_of(values: Mapping[str, Any]) -> EventFilter:
    """The filter that the parameters ask for."""
    quiet = values["quiet"]
    start, end = values["start_time"], values["end_time"]
    return EventFilter(
        states=[state for states in values.get("state", ()) for state in states],
        severities=values["severity"],
        rules=values["rule"],
        hostnames=values["hostname"],
        gpus=values["uuid"],
        tags=values["tag"],
        start=None if start is None else to_datetime(start),
        end=None if end is None else to_datetime(end),
        quiet=None if quiet is None else quiet == "true",
    )


def find_event(key: int) -> Event:
    """The event of this number. Raises NotFound."""
    event = Event.objects.filter(pk=key).first()
    if event is None:
        raise no_such("event", str(key))
    return event


class EventListView(ApiView):
    """What the rules found, the newest first, and how many events of each severity match.

    Events are about GPUs, slots where none was ever seen, hosts, sources and the whole fleet. One event is ongoing for a rule, what it
    is about and a subject; when it happens again, its `count` rises.
    """

    name = "Events"
    tag = "health"
    operation_id = "events"
    answer = EventPageAnswer
    parameters = (*PAGING, CURSOR, STATE, *FILTERS, START_TIME, END_TIME)

    def get(self, request: Request) -> Response:
        """What the rules found, the newest first, and how many events of each severity match."""
        cursor, paging = self.values["cursor"], read_paging(self.values, DEFAULT_PAGE)
        found = events_matching(filter_of(self.values))
        counts = counts_of(found)
        start, size = paging.offset, paging.size
        # One row more than the page has shows whether another page follows.
        rows = list((after_place(found, cursor) if cursor else found)[start : start + size + 1])
        more, rows = len(rows) > size, rows[:size]
        following = encode_event(EventPlace(rows[-1].opened, rows[-1].pk)) if more else ""
        return Response(
            EventPageAnswer(
                data=EventAnswers(request).answers(rows),
                count=sum(counts),
                by_severity=counts_answer(counts),
                **list_links(request, paging, more=more, following=following)._asdict(),
            )
        )


class EventView(ApiView):
    """An event with what happened to it, and who did what."""

    name = "Event"
    tag = "health"
    operation_id = "event"
    answer = EventDetailAnswer
    path_help = EVENT_IN_PATH
    error_statuses = (400, 404, 503)

    def get(self, request: Request, id: int) -> Response:
        """An event with what happened to it, and who did what."""
        return Response(EventAnswers(request).detail(find_event(id)))


class EventActionView(ApiView):
    """What the views of actions on an event share."""

    tag = "health"
    answer = EventDetailAnswer
    path_help = EVENT_IN_PATH
    http_method_names = ("post", "options")

    def changed(self, request: Request, event: Event) -> Response:
        """The answer once it is done."""
        return Response(EventAnswers(request).detail(event))


def _action(operation_id: str, name: str, body: type[ActionBody | NoteBody], *more: int) -> dict[str, WriteOperation]:
    statuses = (400, 404, *more, 503)
    return {"POST": WriteOperation(operation_id, name, CHANGE_EVENT, EventDetailAnswer, body, 200, statuses)}


class AcknowledgeView(EventActionView):
    """Acknowledges an event: somebody looks after it."""

    name = "Acknowledge an event"
    operation_id = "acknowledge_event"
    writes = _action("acknowledge_event", "Acknowledge an event", ActionBody, 409)

    def post(self, request: Request, id: int) -> Response:
        """Notes that somebody looks after an event. Who did so first stays; 409 when it is closed."""
        event = find_event(id)
        try:
            event = acknowledge(event, self.changer.name, self.body.note, user_id=self.changer.user_id)
        except EventIsClosed:
            raise is_closed(event) from None
        return self.changed(request, event)


class ResolveView(EventActionView):
    """Resolves an event: somebody knows that it is over."""

    name = "Resolve an event"
    operation_id = "resolve_event"
    writes = _action("resolve_event", "Resolve an event", ActionBody, 409)

    def post(self, request: Request, id: int) -> Response:
        """Closes an event, so that its rule begins anew. 409 when it is closed already."""
        event = find_event(id)
        try:
            event = resolve(event, self.changer.name, self.body.note, user_id=self.changer.user_id)
        except EventIsClosed:
            raise is_closed(event) from None
        return self.changed(request, event)


class NoteView(EventActionView):
    """Keeps a note with an event."""

    name = "Note on an event"
    operation_id = "note_event"
    writes = _action("note_event", "Note on an event", NoteBody)

    def post(self, request: Request, id: int) -> Response:
        """Keeps a note with an event, also with one that is closed."""
        event = add_note(find_event(id), self.changer.name, self.body.note, user_id=self.changer.user_id)
        return self.changed(request, event)


def is_closed(event: Event) -> Conflict:
    """The error for what cannot be done to an event that is over."""
    return Conflict(f"event {event.pk} is closed: it takes notes only")


SUMMARY_START = Parameter(
    name="start_time",
    help="from this time on (RFC 3339, or -7d for a week ago); default: a day before end_time",
    parse=time_ns,
    schema=TIME_SCHEMA,
)
SUMMARY_END = Parameter(
    name="end_time", help="until before this time (RFC 3339, or -5m); default: now", parse=time_ns, schema=TIME_SCHEMA
)
EVERY = Parameter(
    name="every",
    help="length of a window, as 1m, 15m or 1h; default: the shortest round one that makes at most 300 windows",
    parse=duration_ns(SECOND, 366 * DAY_NS),
    schema={"type": "string", "pattern": f"^{DURATION_PATTERN}$", "example": "15m"},
)
TOP = number("top", "this many rules: those with most events", 1, 100, default=10)


class EventSummaryView(ApiView):
    """Events over time: how many of each severity were ongoing in each window, and the rules with most events.

    Windows are aligned to the clock. Without `every` they are the shortest round ones of which there are at most 300.
    """

    name = "Events over time"
    tag = "health"
    operation_id = "event_summary"
    answer = EventSummaryAnswer
    parameters = (SUMMARY_START, SUMMARY_END, EVERY, TOP, *FILTERS)

    def get(self, request: Request) -> Response:
        """How many events were ongoing when, and the rules with most of them."""
        buckets = buckets_of(self.values, CHOSEN_BARS, DAY_NS)
        # What happens in the last instant of the range is before its end.
        wanted = filter_of(self.values | {"start_time": buckets.origin_ns, "end_time": buckets.end_ns - 1})
        rows = spans_matching(wanted, MOST_SPANS)
        if len(rows) > MOST_SPANS:
            raise BadRequest(
                f"more than {MOST_SPANS:,} events are in this range: ask for a shorter one, or for some of them"
            )
        spans = EventSpans.of(map(EventSpan._make, rows))
        counts = spans.over_time(buckets.origin_ns // _US, buckets.every_ns // _US, buckets.count)
        rules = rules_now()
        return Response(
            EventSummaryAnswer(
                every=format_duration(buckets.every_ns),
                start_time=format_time(buckets.start_ns),
                end_time=format_time(buckets.end_ns),
                over_time=[
                    (format_time(start), EventCountsAnswer(*each))
                    for start, each in zip(buckets.times(), counts, strict=True)
                ],
                top=[
                    TopRuleAnswer(
                        rule=total.rule,
                        title=rules[total.rule].title if total.rule in rules else total.rule,
                        severity=total.severity,  # type: ignore[arg-type]  # of MARKS
                        count=total.events,
                        duration_seconds=total.duration_us / 1e6,
                    )
                    for total in spans.top(buckets.start_ns // _US, buckets.end_ns // _US, self.values["top"])
                ],
            )
        )
