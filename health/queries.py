"""Which events there are: lists with filters, counts by severity, and the ongoing ones, for every page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Value, When
from django.db.models.fields.json import KeyTransform

from health.models import ONGOING, EntityKind, Event, EventState, Severity
from health.muting import board_of
from health.sharing import SharedAnswer
from inventory.models import GPU, Host

# The worst first; the number of each is the mark of a GPU in the heat map, where 0 is none.
MARKS: Mapping[str, int] = {Severity.CRITICAL: 1, Severity.WARNING: 2, Severity.INFO: 3}
MOST_ONGOING_LISTED = 1_000
MOST_OF_ONE = 500
_DAY = timedelta(days=1)


class SeverityCounts(NamedTuple):
    """How many events there are of each severity."""

    critical: int = 0
    warning: int = 0
    info: int = 0

    @property
    def mark(self) -> int:
        """The mark of the worst; 0 without any."""
        return next((place for place, count in enumerate(self, 1) if count), 0)


NO_EVENTS = SeverityCounts()


class EventPlace(NamedTuple):
    """A place in the list of events, newest first."""

    opened: datetime
    id: int


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events are wanted. Values of one field are alternatives; all fields that are given must match.

    ``gpus`` are ids; a GPU's with those of its MIG instances that the inventory knows.
    ``start`` and ``end``: those that were ongoing at some time in this range, both ends included. ``tags`` are (name, value) of
    their GPU or host, as it is tagged now.
    """

    states: Sequence[str] = ()
    severities: Sequence[str] = ()
    rules: Sequence[str] = ()
    hostnames: Sequence[str] = ()
    gpus: Sequence[str] = ()
    tags: Sequence[tuple[str, str]] = ()
    start: datetime | None = None
    end: datetime | None = None
    quiet: bool | None = None


def events_matching(wanted: EventFilter) -> QuerySet[Event]:
    """These events, newest first."""
    events = Event.objects.order_by("-opened", "-pk")
    for field, values in (
        ("severity__in", wanted.severities),
        ("rule__in", wanted.rules),
        ("hostname__in", wanted.hostnames),
    ):
        if values:
            events = events.filter(**{field: values})
    if EventState.CLOSED in wanted.states:
        # Nearly all are closed. Asked for by name, SQLite would sort them all before it takes the newest.
        events = events.exclude(state__in={*EventState.values} - {*wanted.states})
    elif wanted.states:
        events = events.filter(state__in=wanted.states)
    if wanted.gpus:
        instances = GPU.objects.filter(uuid__in=wanted.gpus).values("pk")
        events = events.filter(Q(entity__in=wanted.gpus) | Q(entity__in=instances), entity_kind=EntityKind.GPU)
    if wanted.tags:
        events = events.filter(_tagged(wanted.tags))
    if wanted.end is not None:
        events = events.filter(opened__lte=wanted.end)
    if wanted.start is not None:
        events = events.filter(Q(state__in=ONGOING) | Q(state=EventState.CLOSED, closed__gte=wanted.start))
    if wanted.quiet is not None:
        events = events.filter(quiet=wanted.quiet)
    return events


def spans_matching(wanted: EventFilter, most: int) -> list[tuple[str, str, datetime, datetime | None]]:
    """Rule, severity, opened and closed of these events, in no order; at most ``most`` and one. Two queries.

    ``wanted`` needs a start. What has ended is read apart from the rest, because databases find both by an index then.
    """
    events = events_matching(replace(wanted, start=None)).order_by().values_list("rule", "severity", "opened", "closed")
    found = list(events.filter(state__in=ONGOING)[: most + 1])
    found += events.filter(state=EventState.CLOSED, closed__gte=wanted.start)[: most + 1 - len(found)]
    return found


def _tagged(tags: Sequence[tuple[str, str]]) -> Q:
    found = Q()
    for name, value in tags:
        hosts = Host.objects.alias(tag=KeyTransform(name, "tags")).filter(tag=value).values("name")
        gpus = GPU.objects.alias(tag=KeyTransform(name, "tags")).filter(tag=value).values("pk")
        found |= Q(hostname__in=hosts) | Q(entity_kind=EntityKind.GPU, entity__in=gpus)
    return found


def after_place(events: QuerySet[Event], place: EventPlace) -> QuerySet[Event]:
    """Those that follow this place."""
    return events.filter(Q(opened__lt=place.opened) | Q(opened=place.opened, pk__lt=place.id))


def counts_of(events: QuerySet[Event]) -> SeverityCounts:
    """How many these are, by severity. One query."""
    rows = events.order_by().values_list("severity").annotate(Count("pk"))
    return SeverityCounts(**{severity: count for severity, count in rows if severity in MARKS})


class RuleOpenings(NamedTuple):
    """How often a rule opened an event: how many are ongoing, and how many opened within a day and a week."""

    ongoing: int
    in_day: int
    in_week: int


NO_OPENINGS = RuleOpenings(0, 0, 0)


def openings_by_rule(now: datetime) -> dict[str, RuleOpenings]:
    """How often each rule opened an event, back from now. Rules without any are left out. Three queries, each on an index."""
    groups = (Q(state__in=ONGOING), Q(opened__gt=now - _DAY), Q(opened__gt=now - 7 * _DAY))
    found: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        # Counted here: to group, SQLite would read the whole table in the order of its rules.
        for rule, count in Counter(Event.objects.filter(group).order_by().values_list("rule", flat=True)).items():
            found.setdefault(rule, [0, 0, 0])[place] = count
    return {rule: RuleOpenings(*counts) for rule, counts in found.items()}


class OngoingEvent(NamedTuple):
    """What the fleet's pages need of each ongoing event."""

    entity_kind: str
    entity: str
    hostname: str
    severity: str


@dataclass(frozen=True)
class Ongoing:
    """The events that are not over, for marks and counts, by what they are about.

    Without those above info of rules that only store: on trial, such a rule marks nothing.
    """

    events: tuple[OngoingEvent, ...]

    @cached_property
    def by_gpu(self) -> Mapping[str, SeverityCounts]:
        """By GPU; those of MIG instances count for their board too. Slots without a GPU are ``host/slot``."""
        pairs = []
        for event in self.events:
            if event.entity_kind in {EntityKind.GPU, EntityKind.SLOT}:
                pairs.append((event.entity, event.severity))
                board = board_of(event.entity) if event.entity_kind == EntityKind.GPU else event.entity
                if board != event.entity:
                    pairs.append((board, event.severity))
        return _counted(pairs)

    @cached_property
    def by_host(self) -> Mapping[str, SeverityCounts]:
        """By host: its own and those of its GPUs and slots."""
        return _counted([(event.hostname, event.severity) for event in self.events if event.hostname])

    @cached_property
    def of_hosts(self) -> Mapping[str, SeverityCounts]:
        """By host: its own alone."""
        return _counted(
            [(event.entity, event.severity) for event in self.events if event.entity_kind == EntityKind.HOST]
        )

    @cached_property
    def elsewhere(self) -> SeverityCounts:
        """Of sources, and of the fleet as a whole."""
        placed = {EntityKind.GPU, EntityKind.SLOT, EntityKind.HOST}
        return _counted([("", event.severity) for event in self.events if event.entity_kind not in placed]).get(
            "", NO_EVENTS
        )

    @cached_property
    def total(self) -> SeverityCounts:
        """All of them."""
        return _counted([("", event.severity) for event in self.events]).get("", NO_EVENTS)


def _counted(pairs: Sequence[tuple[str, str]]) -> dict[str, SeverityCounts]:
    counts: dict[str, list[int]] = {}
    for name, severity in pairs:
        counts.setdefault(name, [0, 0, 0])[MARKS[severity] - 1] += 1
    return {name: SeverityCounts(*each) for name, each in counts.items()}


def _ongoing() -> QuerySet[Event]:
    return Event.objects.filter(Q(quiet=False) | Q(severity=Severity.INFO), state__in=ONGOING)


def _read_ongoing() -> Ongoing:
    rows = _ongoing().order_by().values_list(*OngoingEvent._fields)
    return Ongoing(tuple(map(OngoingEvent._make, rows)))


def _read_worst() -> list[Event]:
    rank = Case(
        *(When(severity=severity, then=Value(mark)) for severity, mark in MARKS.items()),
        default=Value(len(MARKS) + 1),
        output_field=IntegerField(),
    )
    return list(_ongoing().order_by(rank, "-opened", "-pk")[:MOST_ONGOING_LISTED])


_kept_ongoing = SharedAnswer(_read_ongoing)
_kept_worst = SharedAnswer(_read_worst)


def ongoing_now() -> Ongoing:
    """What is ongoing, as of at most FLEET_SECONDS ago. One query, however many there are. Raises DatabaseError."""
    return _kept_ongoing.now()


def ongoing_events() -> list[Event]:
    """The ongoing events, the worst first and then the newest, as of at most FLEET_SECONDS ago; at most MOST_ONGOING_LISTED.

    As in ``Ongoing``, without what rules on trial found. One query. Raises DatabaseError.
    """
    return _kept_worst.now()


def events_of(
    *, gpu_id: str = "", hostname: str = "", start: datetime, end: datetime, most: int = MOST_OF_ONE
) -> list[Event]:
    """The events of a GPU with its MIG instances (of an instance: with its board), or of a host with its GPUs, ongoing in this
    range: newest first.

    One query. Raises DatabaseError.
    """
    wanted = EventFilter(
        gpus=(gpu_id,) if gpu_id else (),
        hostnames=(hostname,) if hostname else (),
        start=start,
        end=end,
    )
    events = events_matching(wanted)
    if board_of(gpu_id) != gpu_id:
        board = events_matching(replace(wanted, gpus=())).filter(entity_kind=EntityKind.GPU, entity=board_of(gpu_id))
        events = events | board
    return list(events[:most])
