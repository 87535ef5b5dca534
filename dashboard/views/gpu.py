"""One GPU, or one MIG instance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.urls import reverse

from api.links import item_url
from api.params import is_storable
from dashboard.event_lists import events_of_gpu
from dashboard.families import title_of
from dashboard.latest import SHOWN_IN, Newest, is_old, latest_table, newest_of
from dashboard.templatetags.dashboard import gpu_url, short_id
from dashboard.views.item import ItemPage, Moved, Unknown
from inventory.fleet import Fleet, SlotState
from inventory.models import GPU, AssetState
from inventory.newest import newest_by_host
from inventory.queries import find_gpu
from readings.catalogue import info, unit_of
from readings.clock_events import CLOCK_EVENT_BITS, CLOCK_EVENTS, clock_events
from readings.mig import MEMORY_FREE, MEMORY_RESERVED, MEMORY_TOTAL, MEMORY_USED, POWER, TEMPERATURE, UTILISATION
from readings.model import DRIVER_LABEL
from readings.times import INT64_MAX, SECOND, format_time, to_ns

_MAX_ID_LENGTH = 200
NEVER_NS = INT64_MAX
SLOWDOWN = "DCGM_FI_DEV_GPU_TEMP_SLOWDOWN_CELSIUS"
POWER_LIMITS = ("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "DCGM_FI_DEV_POWER_MGMT_LIMIT")
MEMORY_TEMPERATURE = "DCGM_FI_DEV_MEMORY_TEMP"
SM_ACTIVE = "DCGM_FI_PROF_SM_ACTIVE"
XID = "DCGM_FI_DEV_XID_ERRORS"

STATE_WORDS = {
    SlotState.REPORTING: "reporting",
    SlotState.STALE: "stale",
    SlotState.MISSING: "missing",
    SlotState.MAINTENANCE: "in maintenance",
}


class Instance(NamedTuple):
    """A MIG instance of a board."""

    id: str
    mig_id: str
    profile: str
    pod: str
    utilisation: float | None
    memory_used: float | None


class GpuPage(ItemPage):
    """One GPU, or one MIG instance: what it is, does and did."""

    title = "GPU"
    menu = "hosts"
    template_name = "dashboard/gpu.html"
    gpu: GPU
    values: dict[str, Newest]
    now_ns: int

    def page_title(self) -> str:
        gpu = getattr(self, "gpu", None)
        return gpu_label(gpu) if gpu else short_id(self.kwargs["uuid"])

    def page_context(self) -> dict[str, Any]:
        self.gpu = gpu = _found(self.kwargs["uuid"])
        hostname = gpu.host.name if gpu.host else ""
        hosts = newest_by_host([hostname] if hostname else None)
        self.values = newest_of(hosts, gpu.pk)
        fleet = self.fleet
        rows = [] if gpu.mig_id else list(GPU.objects.filter(uuid=gpu.uuid).exclude(mig_id="").order_by("mig_id"))
        parts = [newest_of(hosts, row.pk) for row in rows]
        self.values |= board_values(gpu, fleet, {name for part in parts for name in part} - self.values.keys())
        elsewhere = [] if gpu.mig_id else fleet.metric_names()
        state, last_seen_ns = state_of(gpu, fleet), to_ns(gpu.last_seen)
        # Nothing that a silent GPU said last is a value of now.
        self.now_ns = last_seen_ns if state == STATE_WORDS[SlotState.REPORTING] else NEVER_NS
        return {
            "gpu": gpu,
            "label": gpu_label(gpu),
            "hostname": hostname,
            "state": state,
            "last_seen_ns": last_seen_ns,
            "last_hour": self._last_hour(last_seen_ns),
            "tiles": tiles(self.values, self.now_ns),
            "families": latest_table(self.values, self.now_ns, elsewhere, fleet.metric_names_of(gpu.model_name)),
            "residences": list(gpu.residences.select_related("host")),
            "instances": [instance(row, part) for row, part in zip(rows, parts, strict=True)],
            "tags": sorted(gpu.tags.items()),
            "labels": [(name, text) for name, text in sorted(gpu.labels.items()) if name != DRIVER_LABEL],
            "events": events_of_gpu(gpu.pk, self.now),
            "api": self._api(),
        }

    def data(self) -> dict[str, Any]:
        limits = {
            "temperature": self._limit(SLOWDOWN),
            "power": next((limit for name in POWER_LIMITS if (limit := self._limit(name)) is not None), None),
            "memory": memory_total(self.values),
        }
        return {
            "id": self.gpu.pk,
            "uuid": self.gpu.uuid,
            "label": gpu_label(self.gpu),
            "limits": limits,
            "has": [described(name) for name in sorted(self.values)],
            "reasons": [
                {"bit": each.bit, "name": each.name, "meaning": each.meaning, "text": each.text}
                for each in CLOCK_EVENT_BITS
            ],
        }

    def _limit(self, name: str) -> float | None:
        newest = self.values.get(name)
        return None if newest is None else newest.value

    def _last_hour(self, last_seen_ns: int) -> str:
        """The URL of its last hour, if the range has nothing of it; else empty."""
        if last_seen_ns >= self.range.start_ns:
            return ""
        start, end = last_seen_ns - 3600 * SECOND, last_seen_ns + SECOND
        return f"?{urlencode({'start': format_time(start // SECOND * SECOND), 'end': format_time(end // SECOND * SECOND)}, safe=':')}"

    def _api(self) -> dict[str, str]:
        """The calls for what is shown."""
        gpu = item_url(reverse("gpus"), self.gpu.pk)
        times = {"start_time": self.range.start, "end_time": self.range.end}
        shown = [("metric", name) for name in (UTILISATION, POWER, TEMPERATURE, MEMORY_USED)]
        return {
            "series": self.api_url(f"{gpu}/series?{urlencode([*shown, *times.items()], safe=':')}"),
            "readings": self.api_url(f"{gpu}/telemetry?{urlencode(times, safe=':')}"),
            "gpu": self.api_url(gpu),
        }


def instance(row: GPU, values: dict[str, Newest]) -> Instance:
    """A MIG instance with its newest values."""
    used, utilisation = values.get(MEMORY_USED), values.get(UTILISATION)
    return Instance(
        row.pk,
        row.mig_id,
        row.mig_profile,
        f"{row.namespace}/{row.pod}".strip("/"),
        utilisation.value if utilisation else None,
        used.value if used else None,
    )


def board_values(gpu: GPU, fleet: Fleet, names: Iterable[str]) -> dict[str, Newest]:
    """What the MIG instances of a board make of the metrics that it does not give itself."""
    if gpu.pk not in fleet.ids:
        return {}
    row = fleet.ids.index(gpu.pk)
    made = {name: float(fleet.metric(name)[row]) for name in names}
    return {name: Newest(value, to_ns(gpu.last_seen)) for name, value in made.items() if not math.isnan(value)}


def _found(name: str) -> GPU:
    """The GPU of an id. Raises Unknown, or Moved where the id is short for another."""
    if len(name) > _MAX_ID_LENGTH or not is_storable(name):
        raise Unknown("GPU", name)
    found = find_gpu(name)
    if isinstance(found, list):
        raise Unknown("GPU", name, found)
    if found.pk != name:
        raise Moved(gpu_url(found.pk))
    return found


def gpu_label(gpu: GPU) -> str:
    """``host · gpu n · short uuid``."""
    host = gpu.host.name if gpu.host else "no host"
    return f"{host} · gpu {'?' if gpu.index is None else gpu.index} · {short_id(gpu.pk)}"


def state_of(gpu: GPU, fleet: Fleet) -> str:
    """The state in one word or two."""
    if gpu.asset_state == AssetState.RETIRED or (gpu.host and gpu.host.asset_state == AssetState.RETIRED):
        return "retired"
    if gpu.uuid not in fleet.ids:
        return "replaced"
    return STATE_WORDS[SlotState(int(fleet.state[fleet.ids.index(gpu.uuid)]))]


def memory_total(values: dict[str, Newest]) -> float | None:
    """The memory in MiB: as the GPU says, else used, free and reserved together."""
    if MEMORY_TOTAL in values:
        return values[MEMORY_TOTAL].value
    if MEMORY_USED not in values or MEMORY_FREE not in values:
        return None
    return sum(values[name].value for name in (MEMORY_USED, MEMORY_FREE, MEMORY_RESERVED) if name in values)


class Tile(NamedTuple):
    """One figure. ``newest`` is None where the GPU never gave it."""

    name: str
    unit: str
    newest: Newest | None
    is_old: bool
    note: str = ""
    words: str = ""


def tiles(values: dict[str, Newest], now_ns: int) -> list[Tile]:
    """The figures at the top of the page. ``now_ns`` is as in ``is_old``."""

    def tile(name: str, title: str, note: str = "", words: str = "") -> Tile:
        unit, factor = SHOWN_IN.get(unit_of(name), (unit_of(name), 1.0))
        newest = values.get(name)
        old = newest is not None and is_old(newest, now_ns)
        return Tile(title, unit, newest._replace(value=newest.value * factor) if newest else None, old, note, words)

    limit = next((values[name].value for name in POWER_LIMITS if name in values), None)
    slowdown = values.get(SLOWDOWN)
    total = memory_total(values)
    reasons, xid = values.get(CLOCK_EVENTS), values.get(XID)
    held = ", ".join(each.name for each in clock_events(reasons.value)) if reasons else ""
    return [
        tile(UTILISATION, "Utilisation", f"SM active {values[SM_ACTIVE].value:.0%}" if SM_ACTIVE in values else ""),
        tile(MEMORY_USED, "Memory used", f"of {total / 1024:.1f} GiB" if total else ""),
        tile(TEMPERATURE, "Temperature", f"slows down at {slowdown.value:.0f} °C" if slowdown else ""),
        tile(POWER, "Power", f"limit {limit:,.0f} W" if limit else ""),
        tile("DCGM_FI_DEV_SM_CLOCK", "SM clock", f"memory {values['DCGM_FI_DEV_MEM_CLOCK'].value:,.0f} MHz" if "DCGM_FI_DEV_MEM_CLOCK" in values else ""),
        tile(CLOCK_EVENTS, "Clock event reasons", words=held or "none"),
        tile(XID, "Last XID", words="none" if not xid or not xid.value else f"{xid.value:.0f}"),
    ]  # fmt: skip


def described(name: str) -> dict[str, Any]:
    """What the scripts of charts need of a metric."""
    metric = info(name)
    unit, factor = SHOWN_IN.get(unit_of(name), (unit_of(name), 1.0))
    return {
        "name": name,
        "title": title_of(name),
        "unit": unit,
        "factor": factor,
        "kind": metric.kind if metric else "gauge",
        "description": metric.description if metric else "",
    }
