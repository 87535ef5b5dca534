"""All hosts, the worst first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
from django.urls import reverse

from api.links import absolute
from dashboard.views.page import Page, page_number
from health.queries import NO_EVENTS, Ongoing, SeverityCounts
from inventory.fleet import Fleet, HostNow, SlotState
from inventory.models import AssetState
from readings.mig import MEMORY_USED, POWER, TEMPERATURE, UTILISATION

PAGE_SIZE = 50
STATES = ("reporting", "missing", "stale", "maintenance")


@dataclass(frozen=True, slots=True)
class ListedHost:
    """A host with totals over its slots that report; None where none of them has the metric."""

    name: str
    owner: str
    tags: tuple[tuple[str, str], ...]
    state: str
    expected: int
    reporting: int
    missing: int
    stale: int
    utilisation: float | None
    power: float | None
    memory_used: float | None
    memory_total: float | None
    hottest: float | None
    hottest_slot: int
    last_seen_ns: int
    models: tuple[str, ...]
    events: SeverityCounts


class HostColumn(NamedTuple):
    """A column of the table. ``key`` orders rows; None comes last either way."""

    name: str
    title: str
    key: Callable[[ListedHost], Any]
    descending_first: bool = False
    is_number: bool = True


COLUMNS = (
    HostColumn("name", "Host", lambda row: row.name, is_number=False),
    HostColumn("state", "State", lambda row: (row.missing, row.stale, row.events[:2], row.expected - row.reporting, row.hottest or 0.0), True, is_number=False),
    HostColumn("events", "Events", lambda row: row.events, True, is_number=False),
    HostColumn("gpus", "GPUs", lambda row: row.expected, True),
    HostColumn("utilisation", "Utilisation", lambda row: row.utilisation, True),
    HostColumn("power", "Power", lambda row: row.power, True),
    HostColumn("memory", "Memory used", lambda row: row.memory_used, True),
    HostColumn("hottest", "Hottest", lambda row: row.hottest, True),
    HostColumn("seen", "Data age", lambda row: -row.last_seen_ns, True),
    HostColumn("owner", "Owner and tags", lambda row: row.owner or None, is_number=False),
)  # fmt: skip
WORST = "-state"


class Head(NamedTuple):
    """A head of the table as it is shown: its link orders the table by it."""

    title: str
    url: str
    sorted: str
    is_number: bool


class HostsPage(Page):
    """All hosts, the worst first, filtered and in pages."""

    title = "Hosts"
    menu = "hosts"
    template_name = "dashboard/hosts.html"
    rows: list[ListedHost]

    def page_context(self) -> dict[str, Any]:
        asked = self.request.GET
        everything = host_rows(self.fleet, self.ongoing)
        query, state = asked.get("q", "").strip(), asked.get("state", "")
        found = [row for row in everything if matches(row, query) and in_state(row, state)]
        order = asked.get("sort", WORST)
        found = ordered(found, order)
        pages = max(1, -(-len(found) // PAGE_SIZE))
        page = page_number(asked.get("page", ""), pages)
        self.rows = found[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
        return {
            "rows": self.rows,
            "heads": [self._head(column, order) for column in COLUMNS],
            "query": query,
            "state": state,
            "states": [
                (name, sum(in_state(row, name) for row in everything), self._url(state=name or None, page=None))
                for name in ("", *STATES)
            ],
            "found": len(found),
            "total": len(everything),
            "page": page,
            "pages": pages,
            "previous": self._url(page=page - 1 if page > 2 else None) if page > 1 else "",
            "following": self._url(page=page + 1) if page < pages else "",
            "kept": [
                (name, text) for name, text in asked.items() if name in {"sort", "state", "range", "start", "end"}
            ],
            "curl": absolute(self.request, reverse("hosts")),
        }

    def data(self) -> dict[str, Any]:
        return {"hosts": [row.name for row in self.rows]}

    def _head(self, column: HostColumn, order: str) -> Head:
        name, is_descending = order.removeprefix("-"), order.startswith("-")
        is_sorted = name == column.name
        turned = not is_descending if is_sorted else column.descending_first
        return Head(
            column.title,
            self._url(sort=f"{'-' if turned else ''}{column.name}", page=None),
            ("descending" if is_descending else "ascending") if is_sorted else "",
            column.is_number,
        )

    def _url(self, **changes: object) -> str:
        """This page's URL with some parameters changed; None removes one."""
        asked = self.request.GET.dict() | changes
        kept = {name: text for name, text in asked.items() if text is not None}
        return f"{self.request.path}?{urlencode(kept, safe=':')}" if kept else self.request.path


def host_rows(fleet: Fleet, ongoing: Ongoing) -> list[ListedHost]:
    """A row of each host, in the order of their names."""
    if not fleet.hosts:
        return []
    count = len(fleet.hosts)

    def number_in(state: SlotState) -> list[int]:
        return [int(each) for each in np.bincount(fleet.host[fleet.rows_in(state)], minlength=count)]

    reporting, stale, missing = (number_in(each) for each in (SlotState.REPORTING, SlotState.STALE, SlotState.MISSING))
    utilisation = _means(fleet, UTILISATION)
    power, used = (_sums(fleet, fleet.metric(name)) for name in (POWER, MEMORY_USED))
    total = _sums(fleet, np.where(np.isnan(fleet.metric(MEMORY_USED)), np.nan, fleet.memory_total()))
    temperature = np.nan_to_num(fleet.metric(TEMPERATURE), nan=-np.inf)
    rows = []
    for place, host in enumerate(fleet.hosts):
        hottest = host.rows.start + int(temperature[host.rows].argmax()) if host.expected else -1
        known = hottest >= 0 and np.isfinite(temperature[hottest])
        rows.append(
            ListedHost(
                name=host.name,
                owner=host.owner,
                tags=tuple(sorted(host.tags.items())),
                state=_state(host, reporting[place], stale[place], missing[place]),
                expected=host.expected,
                reporting=reporting[place],
                missing=missing[place],
                stale=stale[place],
                utilisation=utilisation[place],
                power=power[place],
                memory_used=used[place],
                memory_total=total[place],
                hottest=float(temperature[hottest]) if known else None,
                hottest_slot=int(fleet.slot[hottest]) if known else -1,
                last_seen_ns=host.last_seen_ns,
                models=tuple(sorted({fleet.models[row] for row in range(host.rows.start, host.rows.stop)} - {""})),
                events=ongoing.by_host.get(host.name, NO_EVENTS),
            )
        )
    return rows


def _state(host: HostNow, reporting: int, stale: int, missing: int) -> str:
    if host.asset_state == AssetState.MAINTENANCE:
        return "in maintenance"
    return "missing" if missing else "stale" if stale else "reporting" if reporting else "in maintenance"


def _sums(fleet: Fleet, values: Any) -> list[float | None]:
    """The sum of each host's slots; None where none has a value."""
    known = ~np.isnan(values)
    counts = np.bincount(fleet.host[known], minlength=len(fleet.hosts))
    sums = np.bincount(fleet.host[known], values[known], len(fleet.hosts))
    return [float(total) if number else None for total, number in zip(sums, counts, strict=True)]


def _means(fleet: Fleet, name: str) -> list[float | None]:
    values = fleet.metric(name)
    counts = np.bincount(fleet.host[~np.isnan(values)], minlength=len(fleet.hosts))
    return [
        None if total is None else total / int(number)
        for total, number in zip(_sums(fleet, values), counts, strict=True)
    ]


def matches(row: ListedHost, query: str) -> bool:
    """Whether every word occurs in the host's name, owner, tags or models."""
    text = " ".join(
        (row.name, row.owner, *row.models, *(f"{name}:{value} {name}={value}" for name, value in row.tags))
    ).casefold()
    return all(word in text for word in query.casefold().split())


def in_state(row: ListedHost, state: str) -> bool:
    """Whether the host has GPUs that are missing or stale, or is in that state. An unknown state is no condition."""
    match state:
        case "reporting":
            return row.state == "reporting"
        case "missing":
            return row.missing > 0
        case "stale":
            return row.stale > 0
        case "maintenance":
            return row.state == "in maintenance"
    return True


def ordered(rows: Sequence[ListedHost], order: str) -> list[ListedHost]:
    """The rows by a column's name, with ``-`` in front from the largest down. What is unknown comes last."""
    column = next((each for each in COLUMNS if each.name == order.removeprefix("-")), COLUMNS[1])
    known = [row for row in rows if column.key(row) is not None]
    unknown = [row for row in rows if column.key(row) is None]
    known.sort(key=lambda row: row.name)
    known.sort(key=column.key, reverse=order.startswith("-") or column.name != order.removeprefix("-"))
    return [*known, *unknown]
