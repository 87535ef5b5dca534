"""Filters for the tables of the reports: what a script sorts by, differences, durations."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dashboard.templatetags.dashboard import NOT_KNOWN, digits_of, is_known, scale

register = template.Library()

_THOUSANDS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
_BYTES = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_SPANS = ((86_400, "d"), (3600, "h"), (60, "m"))


@register.filter
def raw(amount: float | None) -> str:
    """The number that a table is sorted by; empty where unknown."""
    return f"{amount:.10g}" if amount is not None and is_known(amount) else ""


@register.filter
def signed(amount: float | None, unit: str) -> str | SafeString:
    """A difference: ``+4.5 °C``, ``−2.0 °C``; n/a where unknown."""
    if amount is None or not is_known(amount):
        return NOT_KNOWN
    scaled, unit = scale(amount, unit)
    digits = min(1, digits_of(scaled))
    sign = "" if round(scaled, digits) == 0 else "+" if scaled > 0 else "−"
    return format_html('{}{} <small class="unit">{}</small>', sign, f"{abs(scaled):,.{digits}f}", unit)


@register.filter
def duration(seconds: float | None) -> str | SafeString:
    """``45 s``, ``12 m``, ``3 h 20 m``, ``2 d 4 h``; n/a where unknown."""
    if seconds is None or not is_known(seconds):
        return NOT_KNOWN
    whole = round(seconds)
    for place, (size, unit) in enumerate(_SPANS):
        if whole >= size:
            rest = whole % size
            smaller = _SPANS[place + 1] if place + 1 < len(_SPANS) else None
            if smaller and rest >= smaller[0]:
                return f"{whole // size} {unit} {rest // smaller[0]} {smaller[1]}"
            return f"{whole // size} {unit}"
    return f"{whole} s"


@register.filter
def short(count: int | None) -> str | SafeString:
    """A count that may be large: ``9,876``, ``12.3 M``; n/a where unknown."""
    if count is None:
        return NOT_KNOWN
    if count < 10_000:
        return f"{count:,}"
    letter, size = next(each for each in _THOUSANDS if count >= each[1])
    return format_html(
        '{} <small class="unit">{}</small>',
        f"{count / size:.3g}" if count < 1000 * size else f"{count / size:,.0f}",
        letter,
    )


@register.filter
def bytes(count: int | None) -> str | SafeString:
    """A size: ``512 B``, ``12.3 MiB``; n/a where unknown."""
    if count is None:
        return NOT_KNOWN
    for unit, size in _BYTES:
        if count >= size:
            return format_html('{} <small class="unit">{}</small>', f"{count / size:,.1f}", unit)
    return format_html('{} <small class="unit">B</small>', count)


@register.filter
def pair(first: Iterable[Any], second: Iterable[Any]) -> list[tuple[Any, Any]]:
    """The items of two lists side by side."""
    return list(zip(first, second, strict=True))


@register.simple_tag
def percent(part: float, whole: float) -> str | SafeString:
    """The share of ``part`` in ``whole``: ``12.5 %``; n/a of nothing."""
    return share(100 * part / whole if whole else None)


@register.simple_tag
def share(amount: float | None) -> str | SafeString:
    """A share in %: ``12.5 %``; n/a where unknown."""
    if amount is None or not is_known(amount):
        return NOT_KNOWN
    return format_html('{} <small class="unit">%</small>', f"{amount:.1f}")


@register.simple_tag
def money(amount: Decimal | None) -> str | SafeString:
    """``1,234.50``; n/a where no price is set."""
    return NOT_KNOWN if amount is None else f"{amount:,.2f}"
