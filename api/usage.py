"""Usage as the API and the pages show it: hours, kWh, costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from msgspec import UNSET

from api.schema.usage_answers import (
    UsageAnswer,
    UsageCostsAnswer,
    UsageFiguresAnswer,
    UsageGroupAnswer,
    UsageReconciliationAnswer,
    UsageRowAnswer,
)
from health.usage.costs import RowCosts, costs_of, models_without_price
from health.usage.meter import SECOND_FACTOR
from health.usage.packing import HOUR_NS, Figure
from health.usage.prices import Prices, load_prices
from health.usage.report import UsageQuestion, UsageReport
from health.usage.rows import UsageRow
from readings.times import format_time

# The names of a group's parts, by what is asked for.
GROUP_NAMES = {"pod": ("namespace", "pod")}
_MJ_PER_KWH = 3_600_000_000
_DIGITS = 6


def group_parts(by: str) -> tuple[str, ...]:
    """The names of the parts of a row's group."""
    return GROUP_NAMES.get(by, (by,))


def usage_answer(question: UsageQuestion, report: UsageReport, top: int | None = None) -> UsageAnswer:
    """The answer; with ``top`` only that many groups. Raises PricesError."""
    prices = load_prices(settings.USAGE_PRICES)
    costs: Sequence[RowCosts | None] = [None] * len(report.rows)
    total_costs = None
    if prices is not None:
        costs, total_costs = costs_of(report.rows, report.total, prices)
    names = group_parts(question.by)
    rows, groups = [], set()
    for row, row_costs in zip(report.rows, costs, strict=True):
        groups.add(row.group)
        if top is not None and len(groups) > top:
            break
        rows.append(
            UsageRowAnswer(
                **figures_of(row, row_costs),
                group=UsageGroupAnswer(**dict(zip(names, row.group, strict=True))),
                day=UNSET if row.day_ns is None else format_time(row.day_ns),
            )
        )
    total = report.total
    reconciles = UsageReconciliationAnswer(
        total.held[Figure.KNOWN], total.free[Figure.KNOWN], total.unknown_ns, report.expected_ns, report.is_exact
    )
    return UsageAnswer(
        start_time=format_time(report.start_ns),
        end_time=format_time(report.end_ns),
        newest=format_time(report.newest_ns) if report.newest_ns else None,
        by=f"tag:{question.tag}" if question.by == "tag" else question.by,
        per="day" if question.per_day else "range",
        idle_percent=float(settings.USAGE_IDLE_PERCENT),
        idle_percent_second=float(settings.USAGE_IDLE_PERCENT * SECOND_FACTOR),
        data=rows,
        count=len(rows),
        total=UsageFiguresAnswer(**figures_of(total, total_costs)),
        reconciles=None if question.has_holder_filter else reconciles,
        currency=UNSET if prices is None else prices.currency,
        models_without_price=UNSET if prices is None else _without_price(total, prices),
    )


def _without_price(total: UsageRow, prices: Prices) -> list[str]:
    return models_without_price(total, prices) if prices.gpu_hour else []


def figures_of(row: UsageRow, costs: RowCosts | None) -> dict[str, Any]:
    """The fields of UsageFiguresAnswer."""
    held, free = row.held, row.free
    energy_known = min(row.energy_known_ns, row.total_ns)
    found: dict[str, Any] = {
        "gpus": row.gpus,
        "total_hours": hours(row.total_ns),
        "held_hours": hours(held[Figure.KNOWN]),
        "active_hours": hours(held[Figure.ACTIVE]),
        "idle_held_hours": hours(held[Figure.IDLE]),
        "unmeasured_hours": hours(held[Figure.KNOWN] - held[Figure.MEASURED]),
        "free_hours": hours(free[Figure.KNOWN]),
        "free_active_hours": hours(free[Figure.ACTIVE]),
        "unknown_hours": hours(row.unknown_ns),
        "coverage": None if row.coverage is None else round(row.coverage, _DIGITS),
        "active_hours_second": hours(held[Figure.ACTIVE_SECOND]),
        "idle_held_hours_second": hours(held[Figure.IDLE_SECOND]),
        "effective_hours": hours(held[Figure.EFFECTIVE]),
        "effective_coverage": _share(held[Figure.EFFECTIVE_KNOWN], held[Figure.KNOWN]),
        "effective_upper_bound": _share(held[Figure.UPPER_BOUND], held[Figure.EFFECTIVE_KNOWN]),
        "energy_kwh": kwh(row.energy_mj),
        "energy_estimated_kwh": kwh(row.estimated_mj),
        "energy_coverage": _share(energy_known, row.total_ns),
        "idle_held_kwh": kwh(held[Figure.IDLE_MJ]),
        "idle_free_kwh": kwh(free[Figure.IDLE_MJ]),
        "power_utilisation": None if row.power_utilisation is None else round(row.power_utilisation, _DIGITS),
    }
    if costs is not None:
        found["costs"] = UsageCostsAnswer(*(None if each is None else float(each) for each in costs[:3]))
        if costs.co2_grams is not None:
            found["co2_grams"] = round(costs.co2_grams, 3)
    return found


def hours(time_ns: int) -> float:
    """GPU-hours."""
    return round(time_ns / HOUR_NS, _DIGITS)


def kwh(energy_mj: int) -> float:
    """Energy in kWh."""
    return round(energy_mj / _MJ_PER_KWH, _DIGITS)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, _DIGITS) if whole else None
