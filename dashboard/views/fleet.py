"""The fleet at a glance: tiles, a heat map of all GPUs, and what needs attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from api.fleet import fleet_answer, fleet_counts, fleet_totals, ongoing_counts, select_slots, shared_prefix
from dashboard.attention import filters_of, gpus_in_need, needs_attention
from dashboard.templatetags.dashboard import scale
from dashboard.views.page import Page
from dashboard.watch_now import watch_now
from inventory.fleet import Fleet
from readings.catalogue import CATALOGUE, canonical_name, info
from readings.mig import MEMORY_USED, TEMPERATURE, UTILISATION

# The API's first answer comes with the page, if it is small: then the map is there with the first paint.
_MOST_INLINE = 1000
# Not a metric of the API: the page makes it of two.
_MEMORY_SHARE = "memory"
# The metrics that people look at most; the others follow by name.
_FIRST = (
    UTILISATION,
    TEMPERATURE,
    "DCGM_FI_DEV_MEMORY_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    MEMORY_USED,
    "DCGM_FI_PROF_SM_ACTIVE",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_DRAM_ACTIVE",
    "DCGM_FI_DEV_SM_CLOCK",
)
SORTS = {"worst": "Worst first", "name": "By name", "high": "Highest first", "low": "Lowest first"}
GROUPS = {"": "No groups", "model": "By model", "namespace": "By namespace", "owner": "By owner"}


class PickOption(NamedTuple):
    """An option of a list: what the URL says, and what people read."""

    value: str
    label: str


class FleetPage(Page):
    """The fleet at a glance."""

    title = "Fleet"
    menu = "fleet"
    template_name = "dashboard/fleet.html"

    _data: dict[str, Any]

    def page_context(self) -> dict[str, Any]:
        fleet = self.fleet
        asked = self.request.GET
        chosen = select_slots(fleet, **filters_of(dict(asked.lists())))
        metric = canonical_name(asked.get("metric", UTILISATION))
        counts, totals = fleet_counts(fleet, chosen), fleet_totals(fleet, chosen)
        is_inline = len(fleet) <= _MOST_INLINE
        self._data = {}
        if is_inline:
            answer = fleet_answer(fleet, UTILISATION if metric == _MEMORY_SHARE else metric, chosen)
            self._data["fleet"] = msgspec.to_builtins(answer)
        return {
            "fleet": {"counts": counts, "totals": totals},
            "is_empty": not len(fleet),
            "is_inline": is_inline,
            "need_attention": gpus_in_need(fleet, chosen, self.ongoing),
            "open_events": ongoing_counts(fleet, chosen, self.ongoing),
            **attention_context(self, chosen),
            "idle_share": _share(counts.idle, counts.reporting),
            "memory_note": _memory_note(totals.memory_used_mib, totals.memory_total_mib),
            "memory_share": _share(totals.memory_used_mib, totals.memory_total_mib),
            "metrics": _metrics(fleet),
            "models": sorted({*fleet.models} - {""}),
            "namespaces": sorted({*fleet.namespaces} - {""}),
            "sorts": SORTS,
            "groups": GROUPS,
        }

    def data(self) -> dict[str, Any]:
        return self._data


class AttentionPart(Page):
    """The part of the page that says what needs attention, for its script to refresh."""

    title = "Needs attention"
    menu = "fleet"
    template_name = "dashboard/attention_part.html"

    def page_context(self) -> dict[str, Any]:
        chosen = select_slots(self.fleet, **filters_of(dict(self.request.GET.lists())))
        return attention_context(self, chosen)


def attention_context(page: Page, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """What attention.html needs, of the slots chosen."""
    return {
        "attention": needs_attention(page.fleet, chosen, page.now),
        "judging": watch_now(),
        "prefix": shared_prefix([host.name for host in page.fleet.hosts]),
    }


def _share(part: float | None, whole: float | None) -> float | None:
    """In %."""
    return None if part is None or not whole else 100.0 * part / whole


def _memory_note(used: float | None, total: float | None) -> str:
    """``6.2 of 19.1 TiB``: both in the unit that fits the larger."""
    if used is None or not total:
        return "not reported"
    scaled, unit = scale(total, "MiB")
    return f"{used / total * scaled:,.1f} of {scaled:,.1f} {unit}"


def _metrics(fleet: Fleet) -> list[PickOption]:
    """What the map can show of this fleet."""
    names = set(fleet.metric_names())
    shares = [PickOption(_MEMORY_SHARE, "Memory used, %")] if MEMORY_USED in names else []
    first = [name for name in _FIRST if name in names]
    rest = sorted(
        (name for name in names if name not in _FIRST), key=lambda name: (name not in CATALOGUE, _title(name))
    )
    choices = [PickOption(name, _title(name)) for name in (*first, *rest)]
    return [*choices[:1], *shares, *choices[1:]]


def _title(name: str) -> str:
    known = info(name)
    return name if known is None else known.title
