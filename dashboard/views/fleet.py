"""The fleet at a glance: tiles, a heat map of all GPUs, and what needs attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from api.fleet import fleet_answer, select_slots
from api.schema.answers import FleetAnswer
from dashboard.views.page import Page
from inventory.fleet import Fleet, fleet_now
from readings.catalogue import CATALOGUE, canonical_name, info
from readings.mig import MEMORY_USED, TEMPERATURE, UTILISATION

# The first answer of the API comes with the page, if it is small: then the map is there with the first paint.
_MOST_INLINE = 1000
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

    _answer: FleetAnswer | None = None

    def page_context(self) -> dict[str, Any]:
        fleet = fleet_now()
        asked = self.request.GET
        chosen = select_slots(
            fleet, models=asked.getlist("model"), namespaces=asked.getlist("namespace"), pods=asked.getlist("pod")
        )
        metric = canonical_name(asked.get("metric", UTILISATION))
        self._answer = answer = fleet_answer(fleet, UTILISATION if metric == "memory" else metric, chosen)
        return {
            "fleet": answer,
            "is_empty": not len(fleet),
            "attention": answer.counts.missing + answer.counts.stale,
            "idle_share": _share(answer.counts.idle, answer.counts.reporting),
            "memory_share": _share(answer.totals.memory_used_mib, answer.totals.memory_total_mib),
            "metrics": _metrics(fleet),
            "models": sorted({*fleet.models} - {""}),
            "namespaces": sorted({*fleet.namespaces} - {""}),
            "sorts": SORTS,
            "groups": GROUPS,
        }

    def data(self) -> dict[str, Any]:
        answer = self._answer
        if answer is None or answer.gpus is None or len(answer.gpus.id) > _MOST_INLINE:
            return {}
        return {"fleet": msgspec.to_builtins(answer)}


def _share(part: float | None, whole: float | None) -> float | None:
    """In %."""
    return None if part is None or not whole else 100.0 * part / whole


def _metrics(fleet: Fleet) -> list[PickOption]:
    """What the map can show of this fleet."""
    names = set(fleet.metric_names())
    shares = [PickOption("memory", "Memory used, %")] if MEMORY_USED in names else []
    first = [name for name in _FIRST if name in names]
    rest = sorted(
        (name for name in names if name not in _FIRST), key=lambda name: (name not in CATALOGUE, _title(name))
    )
    choices = [PickOption(name, _title(name)) for name in (*first, *rest)]
    return [*choices[:1], *shares, *choices[1:]]


def _title(name: str) -> str:
    known = info(name)
    return name if known is None else known.title
