"""Filters for values, times and names. What is unknown is said, never shown as 0."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from api.links import item_url
from readings.times import format_time, to_ns

register = template.Library()

NOT_KNOWN = mark_safe('<span class="absent na">n/a</span>')
_SHORT_ID = 8
# Larger units, once a number has more digits than a person reads at a glance.
_LARGER = {
    "W": (1000.0, "kW"),
    "kW": (1000.0, "MW"),
    "MiB": (1024.0, "GiB"),
    "GiB": (1024.0, "TiB"),
    "MHz": (1000.0, "GHz"),
}

# Nobody says 1,024 of these.
_AT_ONCE = {"GiB"}


def is_known(value: object) -> bool:
    """Whether there is a value: neither None nor NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


@register.filter
def number(value: float | None, digits: int = 0) -> str | SafeString:
    """``64,997.7``; n/a where unknown."""
    return f"{value:,.{digits}f}" if value is not None and is_known(value) else NOT_KNOWN


@register.filter
def value(amount: float | None, unit: str) -> str | SafeString:
    """``65.0 kW``: three digits that count and the unit that fits; n/a where unknown."""
    if amount is None or not is_known(amount):
        return NOT_KNOWN
    scaled, unit = scale(amount, unit)
    return format_html('{} <small class="unit">{}</small>', f"{scaled:,.{digits_of(scaled)}f}", unit)


def scale(amount: float, unit: str) -> tuple[float, str]:
    """The amount in the unit in which it has at most four digits before the point; from 1 TiB on in TiB."""
    while unit in _LARGER and abs(amount) >= _LARGER[unit][0] * (1 if unit in _AT_ONCE else 10):
        factor, unit = _LARGER[unit]
        amount /= factor
    return amount, unit


def digits_of(amount: float) -> int:
    """How many digits after the point to show: enough for three that count."""
    if amount == round(amount):
        return 0
    return 0 if abs(amount) >= 1000 else 1 if abs(amount) >= 10 else 2


@register.filter
def short_id(gpu_id: str) -> str:
    """``39bd9cd5`` of ``GPU-39bd9cd5-…``: the part that people say aloud. A MIG instance keeps its number."""
    uuid, colon, instance = gpu_id.partition(":")
    name = uuid.removeprefix("GPU-").removeprefix("MIG-")
    return f"{name.split('-')[0][:_SHORT_ID]}{colon}{instance}" if name != uuid else gpu_id


@register.filter
def host_short(name: str, prefix: str) -> str:
    """The host's name without the prefix that all names share."""
    return name.removeprefix(prefix) or name


@register.simple_tag
def host_url(name: str) -> str:
    """The page of a host."""
    return item_url(f"{reverse('dashboard:fleet')}hosts", name)


@register.simple_tag
def gpu_url(gpu_id: str) -> str:
    """The page of a GPU."""
    return item_url(f"{reverse('dashboard:fleet')}gpus", gpu_id)


@register.filter
def when(moment: datetime | int | None) -> SafeString:
    """A time in UTC; the page's script shows it in local time if that is chosen. Takes a datetime or nanoseconds."""
    if moment is None:
        return NOT_KNOWN
    ns = moment if isinstance(moment, int) else to_ns(moment)
    text = format_time(ns)
    return format_html('<time datetime="{}">{} {}</time>', text, text[:10], text[11:19])


@register.filter
def clock(moment: datetime) -> SafeString:
    """A time for a narrow place: ``12:03`` if it was today, else with the date, in UTC or as chosen; the whole time on hover."""
    at = moment.astimezone(UTC)
    is_today = at.date() == datetime.now(UTC).date()
    text = format_time(to_ns(moment))
    return format_html(
        '<time datetime="{}" data-short title="{} UTC">{}</time>',
        text,
        f"{at:%Y-%m-%d %H:%M:%S}",
        f"{at:%H:%M}" if is_today else f"{at:%Y-%m-%d %H:%M}",
    )


@register.filter
def age(moment: datetime | int | None) -> SafeString | str:
    """How long ago: ``12 s``, ``4 m``, ``3 h``, ``2 d``."""
    if moment is None:
        return NOT_KNOWN
    ns = moment if isinstance(moment, int) else to_ns(moment)
    seconds = max(0, (time.time_ns() - ns) // 1_000_000_000)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@register.filter
def scaled(amount: float | None, unit: str) -> tuple[str | SafeString, str]:
    """The number as text and the unit that fits it, for a template that shows them apart."""
    if amount is None or not is_known(amount):
        return NOT_KNOWN, ""
    shown, unit = scale(amount, unit)
    return f"{shown:,.{digits_of(shown)}f}", unit
