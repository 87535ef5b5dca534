"""Usage: who holds GPUs without using them, what that is in energy and money, and whether the figures are whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.conf import settings
from django.urls import reverse

from api.fleet import shared_prefix
from api.links import absolute
from api.usage import hours, kwh
from dashboard.fleet_rows import FILTERS, choices, given
from dashboard.ranges import TimeRange
from dashboard.views.page import Page
from health.usage.costs import RowCosts, costs_of, models_without_price
from health.usage.meter import SECOND_FACTOR
from health.usage.packing import HOUR_NS, Figure
from health.usage.prices import Prices, PricesError, load_prices
from health.usage.report import HOLDER_GROUPS, TooManyRows, UsageBy, UsageQuestion, UsageReport, usage_report
from health.usage.rows import UsageRow
from inventory.fleet import fleet_now
from readings.times import SECOND, format_time

GROUPS: tuple[UsageBy, ...] = ("namespace", "pod", "owner", "host", "model", "gpu")
PRESETS = ("24h", "7d", "30d")
DEFAULT_PRESET = "7d"
MOST_SHOWN = 50
MOST_TAGS = 50
# Below this share of known time the page says so first.
GOOD_COVERAGE = 0.95
_FUNNEL_UNITS = 1000.0


class UsageLine(NamedTuple):
    """A row of the table. Times in GPU-hours, shares in %, None where unknown."""

    names: tuple[str, ...]
    gpus: int
    held: float
    idle: float
    idle_share: float | None
    active_share: float | None
    effective_share: float | None
    is_bound: bool
    free: float
    energy: float
    idle_energy: float
    costs: RowCosts | None
    coverage: float | None

    @property
    def is_named(self) -> bool:
        """Whether anybody or anything is named."""
        return any(self.names)

    @property
    def title(self) -> str:
        """The names in one."""
        return "/".join(self.names)


class FunnelPart(NamedTuple):
    """A part of the bar: where it begins and how wide it is, of 1,000."""

    name: str
    label: str
    hours: float
    share: float | None
    start: float
    width: float


class UsageTotals(NamedTuple):
    """The figures of the tiles. ``idle_gpus``: how many GPUs would have been idle for all of the time counted."""

    row: UsageRow
    costs: RowCosts | None
    total: float
    held: float
    active: float
    idle: float
    idle_second: float
    free: float
    free_active: float
    unknown: float
    effective: float
    is_bound: bool
    energy: float
    idle_energy: float
    free_energy: float
    estimated_share: float | None
    energy_coverage: float | None
    coverage: float | None
    idle_gpus: float

    @property
    def co2_kg(self) -> float | None:
        """CO2 of all energy."""
        return None if self.costs is None or self.costs.co2_grams is None else self.costs.co2_grams / 1000

    @classmethod
    def of(cls, report: UsageReport, costs: RowCosts | None) -> UsageTotals:
        """Those of a report."""
        row = report.total
        held, free = row.held, row.free
        return cls(
            row,
            costs,
            hours(row.total_ns),
            hours(held[Figure.KNOWN]),
            hours(held[Figure.ACTIVE]),
            hours(held[Figure.IDLE]),
            hours(held[Figure.IDLE_SECOND]),
            hours(free[Figure.KNOWN]),
            hours(free[Figure.ACTIVE]),
            hours(row.unknown_ns),
            hours(held[Figure.EFFECTIVE]),
            held[Figure.UPPER_BOUND] > 0,
            kwh(row.energy_mj),
            kwh(held[Figure.IDLE_MJ]),
            kwh(free[Figure.IDLE_MJ]),
            share(row.estimated_mj, row.energy_mj),
            share(min(row.energy_known_ns, row.total_ns), row.total_ns),
            None if row.coverage is None else 100 * row.coverage,
            held[Figure.IDLE] * row.gpus / row.total_ns if row.total_ns else 0.0,
        )


def share(part: float, whole: float) -> float | None:
    """In %, None of nothing."""
    return 100 * part / whole if whole else None


def line_of(row: UsageRow, costs: RowCosts | None) -> UsageLine:
    """A row of the table."""
    held, known = row.held, row.held[Figure.KNOWN]
    measured = held[Figure.MEASURED]
    return UsageLine(
        row.group,
        row.gpus,
        hours(known),
        hours(held[Figure.IDLE]),
        share(held[Figure.IDLE], known),
        share(held[Figure.ACTIVE], measured),
        share(held[Figure.EFFECTIVE], held[Figure.EFFECTIVE_KNOWN]),
        held[Figure.UPPER_BOUND] > 0,
        hours(row.free[Figure.KNOWN]),
        kwh(row.energy_mj),
        kwh(held[Figure.IDLE_MJ]),
        costs,
        None if row.coverage is None else 100 * row.coverage,
    )


def funnel(row: UsageRow) -> list[FunnelPart]:
    """The whole time in parts: used well, used, paused, held but idle, free, unknown."""
    held, known, total = row.held, row.held[Figure.KNOWN], row.total_ns
    effective = min(held[Figure.EFFECTIVE], held[Figure.ACTIVE])
    parts = (
        ("effective", "effective", effective),
        ("active", "active, beyond that", held[Figure.ACTIVE] - effective),
        ("pause", "short pauses", max(0, known - held[Figure.ACTIVE] - held[Figure.IDLE])),
        ("idle", "held but idle", held[Figure.IDLE]),
        ("free", "free", row.free[Figure.KNOWN]),
        ("unknown", "unknown", row.unknown_ns),
    )
    found, start = [], 0.0
    for name, label, length in parts:
        width = _FUNNEL_UNITS * length / total if total else 0.0
        found.append(FunnelPart(name, label, hours(length), share(length, total), start, width))
        start += width
    return found


class UsagePage(Page):
    """Who holds GPUs, and uses them."""

    title = "Usage"
    menu = "usage"
    template_name = "dashboard/usage.html"
    shown_presets = PRESETS
    default_preset = DEFAULT_PRESET

    def page_context(self) -> dict[str, Any]:
        fleet = fleet_now()
        query = self.request.GET.dict()
        by, tag = grouping(query.get("by", ""))
        shown = self.range
        question = UsageQuestion(
            shown.start_ns,
            shown.end_ns,
            by,
            tag,
            hostnames=given(query, "hostname"),
            models=given(query, "model"),
            namespaces=given(query, "namespace"),
        )
        tags = sorted({name for host in fleet.hosts for name in host.tags} | ({tag} - {""}))[:MOST_TAGS]
        chosen = f"tag:{tag}" if tag else by
        prefix = shared_prefix([host.name for host in fleet.hosts])
        context: dict[str, Any] = {
            "fleet": fleet,
            "prefix": prefix,
            "choices": choices(fleet, query),
            "by": chosen,
            "kind": by,
            "group_names": [*GROUPS, *(f"tag:{name}" for name in tags)],
            "is_of_holders": by in HOLDER_GROUPS,
            "idle_percent": settings.USAGE_IDLE_PERCENT,
            "idle_percent_second": settings.USAGE_IDLE_PERCENT * SECOND_FACTOR,
            "csv_url": self._api_url(chosen, query, shown, format="csv", csv_safe="true"),
            "api_url": absolute(self.request, self._api_url(chosen, query, shown)),
        }
        try:
            report = usage_report(question)
        except TooManyRows as error:
            return {**context, "too_many": error.rows}
        return {**context, **self._figures(report, by)}

    def data(self) -> dict[str, Any]:
        return {"default_range": DEFAULT_PRESET}

    def _figures(self, report: UsageReport, by: UsageBy) -> dict[str, Any]:
        prices, wrong = self._prices()
        costs: Sequence[RowCosts | None] = [None] * len(report.rows)
        total_costs = None
        if prices is not None:
            costs, total_costs = costs_of(report.rows, report.total, prices)
        lines = [line_of(row, of_row) for row, of_row in zip(report.rows, costs, strict=True)]
        if by in HOLDER_GROUPS:
            # What nobody held is said below the table.
            lines = [line for line in lines if line.is_named]
        total = report.total
        return {
            "report": report,
            "totals": UsageTotals.of(report, total_costs),
            "funnel": funnel(total),
            "lines": lines[:MOST_SHOWN],
            "line_count": len(lines),
            "prices": prices,
            "prices_wrong": wrong,
            "has_gpu_price": prices is not None and bool(prices.gpu_hour),
            "without_price": models_without_price(total, prices) if prices and prices.gpu_hour else [],
            "is_low": total.coverage is not None and total.coverage < GOOD_COVERAGE,
            "length": hours(report.end_ns - report.start_ns),
            "exact": {
                "held": total.held[Figure.KNOWN],
                "free": total.free[Figure.KNOWN],
                "unknown": total.unknown_ns,
                "total": report.expected_ns,
            },
            "hour_ns": HOUR_NS,
        }

    def _prices(self) -> tuple[Prices | None, str]:
        try:
            return load_prices(settings.USAGE_PRICES), ""
        except PricesError as error:
            return None, str(error)

    def _api_url(self, by: str, query: dict[str, str], shown: TimeRange, **more: str) -> str:
        times = (format_time(time // SECOND * SECOND) for time in (shown.start_ns, shown.end_ns))
        asked = dict(zip(("by", "start_time", "end_time"), (by, *times), strict=True))
        asked |= {name: query[name] for name in FILTERS if query.get(name)}
        return f"{reverse('usage')}?{urlencode(asked | more, safe=':')}"


def grouping(text: str) -> tuple[UsageBy, str]:
    """What ``by=`` of the page's URL groups by, and the tag's name. What cannot be read is the default."""
    for name in GROUPS:
        if text == name:
            return name, ""
    kind, _, tag = text.partition(":")
    return ("tag", tag[:63]) if kind == "tag" and tag.isprintable() and tag else (GROUPS[0], "")
