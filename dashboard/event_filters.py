"""Which events a URL of the list asks for. What cannot be read is as if it were not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Case, IntegerField, QuerySet, Value, When

from api.params import is_storable
from health.models import ONGOING, Event, EventState, Severity
from health.queries import MARKS, EventFilter, events_matching

STATES = {
    "ongoing": "Open now",
    "unknown": "Unknown now",
    "closed": "Closed in the range",
    "all": "All of the range",
}
SEVERITIES = tuple(MARKS)
YES_NO = ("yes", "no")
_MOST_TEXT = 320


@dataclass(frozen=True, slots=True)
class EventChoice:
    """The filters, as ``?state=…&severity=…&rule=…&hostname=…&uuid=…&subject=79&tag=rack=r1&acknowledged=no&muted=no``; empty: all."""

    state: str = "ongoing"
    severity: str = ""
    rule: str = ""
    hostname: str = ""
    uuid: str = ""
    subject: str = ""
    tag: str = ""
    acknowledged: str = ""
    muted: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> EventChoice:
        """The filters of a URL."""

        def text(name: str) -> str:
            given = query.get(name, "").strip()
            return given if len(given) <= _MOST_TEXT and is_storable(given) else ""

        def word(name: str, allowed: tuple[str, ...]) -> str:
            return query.get(name, "") if query.get(name) in allowed else ""

        tag = text("tag")
        return cls(
            state=word("state", tuple(STATES)) or "ongoing",
            severity=word("severity", SEVERITIES),
            rule=text("rule"),
            hostname=text("hostname"),
            uuid=text("uuid"),
            subject=text("subject"),
            tag=tag if "=" in tag else "",
            acknowledged=word("acknowledged", YES_NO),
            muted=word("muted", YES_NO),
        )

    @property
    def is_narrow(self) -> bool:
        """Whether anything but the state is asked for."""
        return self != EventChoice(state=self.state)

    def ongoing(self) -> QuerySet[Event]:
        """Those that are open or unknown now: first those that notify people, the worst first, then the newest."""
        if self.state == "closed":
            return Event.objects.none()
        found = self._with(EventState.UNKNOWN) if self.state == "unknown" else self._with(*ONGOING)
        return worst_first(found)

    def closed(self, start: datetime, end: datetime) -> QuerySet[Event]:
        """Those that are over and were ongoing in a range, the newest first."""
        if self.state not in {"closed", "all"} or self.muted == "yes":
            return Event.objects.none()
        return self._with(EventState.CLOSED, start=start, end=end)

    def _with(self, *states: str, start: datetime | None = None, end: datetime | None = None) -> QuerySet[Event]:
        name, _, value = self.tag.partition("=")
        found = events_matching(
            EventFilter(
                states=states,
                severities=_given(self.severity),
                rules=_given(self.rule),
                hostnames=_given(self.hostname),
                gpus=_given(self.uuid),
                tags=((name, value),) if self.tag else (),
                start=start,
                end=end,
            )
        )
        if self.subject:
            found = found.filter(subject=self.subject)
        return found.filter(acknowledged__isnull=self.acknowledged == "no") if self.acknowledged else found


def worst_first(events: QuerySet[Event]) -> QuerySet[Event]:
    """First those that notify people, the worst first, then the newest."""
    return events.order_by("quiet", _RANK, "-opened", "-pk")


def _given(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


_RANK = Case(
    *(When(severity=severity, then=Value(mark)) for severity, mark in MARKS.items()),
    default=Value(len(Severity) + 1),
    output_field=IntegerField(),
)
