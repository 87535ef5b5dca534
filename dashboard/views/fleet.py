"""The fleet at a glance: tiles, a heat map of all GPUs, and what needs attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from api.fleet import fleet_answer, fleet_counts, fleet_totals, select_slots
from dashboard.templatetags.dashboard import scale
from dashboard.views.page import Page
from inventory.fleet import Fleet, fleet_now
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
        fleet = fleet_now()
        asked = self.request.GET
        chosen = select_slots(
            fleet, models=asked.getlist("model"), namespaces=asked.getlist("namespace"), pods=asked.getlist("pod")
        )
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
            "attention": counts.missing + counts.stale,
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
