"""Small read-only tables and texts for admin pages. Unknown is shown as a dash, never as 0."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from inventory.models import GPU
from readings.catalogue import unit_of
from readings.mig import MEMORY_FREE, MEMORY_RESERVED, MEMORY_TOTAL, MEMORY_USED

UNKNOWN = "–"


def shown(value: float | None, unit: str, digits: int = 0) -> str:
    """``1,234.5 W``; the dash for None."""
    return UNKNOWN if value is None else f"{value:,.{digits}f} {unit}".rstrip()


def shown_exactly(value: float) -> str:
    """All digits, with thousands separators and without ``.0``."""
    return f"{value:,}".removesuffix(".0")


def shown_metric(gpu: GPU, metric_name: str, digits: int = 0) -> str:
    """The newest value of a metric with its unit."""
    return shown(gpu.value(metric_name), unit_of(metric_name), digits)


def shown_memory(gpu: GPU) -> str:
    """``5,120 / 81,007 MiB``: used and total. A missing total is the sum of used, free and reserved."""
    used, total = gpu.value(MEMORY_USED), gpu.value(MEMORY_TOTAL)
    free = gpu.value(MEMORY_FREE)
    if total is None and used is not None and free is not None:
        total = used + free + (gpu.value(MEMORY_RESERVED) or 0.0)
    if used is None and total is None:
        return UNKNOWN
    return f"{shown(used, '')} / {shown(total, '')} {unit_of(MEMORY_USED)}"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> SafeString | str:
    """An HTML table with every text escaped; the dash when there are no rows."""
    cells = [(format_html_join("", "<td>{}</td>", ((cell,) for cell in row)),) for row in rows]
    if not cells:
        return UNKNOWN
    return format_html(
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>",
        format_html_join("", '<th scope="col">{}</th>', ((heading,) for heading in headings)),
        format_html_join("", "<tr>{}</tr>", cells),
    )
