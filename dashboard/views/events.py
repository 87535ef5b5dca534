"""The events of the fleet's health: the open ones, the worst first, then the closed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from api.links import absolute
from dashboard.event_filters import SEVERITIES, STATES, YES_NO, EventChoice
from dashboard.event_rows import EventRow, EventRows, events_url
from dashboard.views.page import Page, page_number
from dashboard.watch_now import watch_now
from health.models import Event
from health.over_time import EventSpan, EventSpans, RuleTotal
from health.queries import EventFilter, SeverityCounts, counts_of, events_matching
from health.rule_table import rules_now
from health.sharing import SharedAnswer
from inventory.fleet import Fleet
from readings.times import to_datetime

PAGE_SIZE = 50
MOST_TOP = 10
MOST_TAGS = 100
DAY = timedelta(days=1)
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class SeverityLink:
    """A severity to choose: how many events the other filters leave of it, and its link. An empty name is all of them."""

    name: str
    count: int
    url: str


@dataclass(frozen=True, slots=True)
class TopRule:
    """What one rule had within a day."""

    rule: str
    title: str
    severity: str
    count: int
    seconds: float
    url: str


class EventsPage(Page):
    """All events: open ones first."""

    title = "Events"
    menu = "events"
    template_name = "dashboard/events.html"

    def page_context(self) -> dict[str, Any]:
        choice = EventChoice.of(self.request.GET.dict())
        start, end = to_datetime(self.range.start_ns), to_datetime(self.range.end_ns)
        now = self.now
        made = EventRows(now)
        rows, counts, page, pages = self._rows(made, choice, start, end)
        fleet = self.fleet
        return {
            "rows": rows,
            "choice": choice,
            "states": STATES,
            "state_label": STATES[choice.state],
            "yes_no": YES_NO,
            "clear": self._url(
                **dict.fromkeys(
                    ("severity", "rule", "hostname", "uuid", "subject", "tag", "acknowledged", "muted", "page")
                )
            ),
            "severities": self._severities(choice, counts),
            "rules": _rule_names(choice.rule),
            "hostnames": _with(sorted(self.ongoing.by_host), choice.hostname),
            "tags": _tags(fleet),
            "page": page,
            "pages": pages,
            "previous": self._url(page=page - 1 if page > 2 else None) if page > 1 else "",
            "following": self._url(page=page + 1) if page < pages else "",
            "kept": [(name, text) for name, text in self.request.GET.items() if name in {"range", "start", "end"}],
            "top": [_top(made, each) for each in top_of_day(now)],
            "judging": watch_now(),
            "with_data": None if rows else rules_with_data(fleet),
            "rule_count": len(rules_now()),
            "curl": absolute(self.request, f"{reverse('events')}?state=ongoing"),
        }

    def _rows(
        self, made: EventRows, choice: EventChoice, start: datetime, end: datetime
    ) -> tuple[list[EventRow], SeverityCounts, int, int]:
        """The rows of the page that the URL asks for, how many there are by severity, the page and the number of pages.

        What is over comes after what is not, so that each has an index for its order.
        """
        ongoing, closed = choice.ongoing(), choice.closed(start, end)
        listed: list[Event] | None = None
        if choice.muted:
            listed = [event for event in ongoing if made.is_muted(event) == (choice.muted == "yes")]
            before = _counts(listed)
        else:
            before = counts_of(ongoing)
        after = counts_of(closed) if choice.state in {"closed", "all"} else SeverityCounts()
        counts = SeverityCounts(*(one + other for one, other in zip(before, after, strict=True)))
        pages = max(1, -(-sum(counts) // PAGE_SIZE))
        page = page_number(self.request.GET.get("page", ""), pages)
        first, last = (page - 1) * PAGE_SIZE, page * PAGE_SIZE
        shown = list((ongoing if listed is None else listed)[first:last])
        rest = PAGE_SIZE - len(shown)
        if rest and sum(after):
            skipped = max(0, first - sum(before))
            shown += closed[skipped : skipped + rest]
        return made.rows(shown), counts, page, pages

    def _severities(self, choice: EventChoice, counts: SeverityCounts) -> list[SeverityLink]:
        found = [SeverityLink("", sum(counts), self._url(severity=None, page=None))]
        for name, count in zip(SEVERITIES, counts, strict=True):
            found.append(SeverityLink(name, count, self._url(severity=name, page=None)))
        return found

    def _url(self, **changes: object) -> str:
        """This page's URL with some parameters changed; None removes one."""
        asked = self.request.GET.dict() | changes
        kept = {name: text for name, text in asked.items() if text is not None}
        return f"{self.request.path}?{urlencode(kept, safe=':')}" if kept else self.request.path


def _counts(events: Sequence[Event]) -> SeverityCounts:
    severities = [event.severity for event in events]
    return SeverityCounts(*(severities.count(name) for name in SEVERITIES))


def _rule_names(chosen: str) -> list[tuple[str, str]]:
    """Every rule's name and title, by title; and the chosen one, so that it shows."""
    found = sorted(((rule.title, rule.name) for rule in rules_now().values()), key=lambda each: each[0].casefold())
    names = [(name, title) for title, name in found]
    return names if not chosen or chosen in rules_now() else [*names, (chosen, chosen)]


def _with(names: list[str], chosen: str) -> list[str]:
    return names if not chosen or chosen in names else [*names, chosen]


def _tags(fleet: Fleet) -> list[str]:
    """The tags of hosts, as ``rack=r1``."""
    return sorted({f"{name}={text}" for host in fleet.hosts for name, text in host.tags.items()})[:MOST_TAGS]


def _top(made: EventRows, total: RuleTotal) -> TopRule:
    url = events_url(state="all", rule=total.rule, range="24h")
    return TopRule(total.rule, made.title(total.rule), total.severity, total.events, total.duration_us / _US, url)


def rules_with_data(fleet: Fleet) -> int:
    """How many rules have the metrics that they need."""
    names = fleet.metric_names()
    return sum(not rule.missing(names) for rule in rules_now().values())


def top_of_day(end: datetime) -> list[RuleTotal]:
    """The rules with most events in the day before ``end``. At most one query, and none within FLEET_SECONDS of the last."""
    return _kept_day.now() if timezone.now() - end < timedelta(seconds=settings.STALE_AFTER) else _day_before(end)


def _day_before(end: datetime) -> list[RuleTotal]:
    start = end - DAY
    found = events_matching(EventFilter(start=start, end=end))
    spans = EventSpans.of(map(EventSpan._make, found.order_by().values_list(*EventSpan._fields)))
    return spans.top(round(start.timestamp()) * _US, round(end.timestamp()) * _US, MOST_TOP)


_kept_day = SharedAnswer(lambda: _day_before(timezone.now()))
