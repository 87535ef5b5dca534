"""One host and its slots."""

from __future__ import annotations

import math
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
from django.urls import NoReverseMatch, reverse
from numpy.typing import NDArray

from api.links import item_url
from api.params import is_storable
from api.views.bands import SMALL_FLEET
from dashboard.event_lists import events_of_host
from dashboard.views.gpu import POWER_LIMITS, SLOWDOWN, STATE_WORDS
from dashboard.views.item import ItemPage, Unknown
from inventory.fleet import Fleet, SlotState
from inventory.models import GPU, Host, Residence
from readings.clock_events import CLOCK_EVENT_BITS, CLOCK_EVENTS, clock_events
from readings.mig import MEMORY_USED, POWER, TEMPERATURE, UTILISATION

_MAX_NAME_LENGTH = 255
_MOST_MOVES = 50
FIGURES = (UTILISATION, TEMPERATURE, POWER, MEMORY_USED)


class SlotRow(NamedTuple):
    """One slot: its GPU, if one was ever seen in it, with its newest values. NaN is unknown."""

    slot: int
    id: str
    state: str
    model: str
    pod: str
    utilisation: float
    temperature: float
    power: float
    memory_used: float
    memory_total: float
    held: str
    last_seen_ns: int


class HostTile(NamedTuple):
    """One figure, with its unit and a note."""

    name: str
    amount: float | None
    unit: str
    note: str = ""


class HostPage(ItemPage):
    """One host: its slots now, their history, and what ran on them."""

    title = "Host"
    menu = "hosts"
    template_name = "dashboard/host.html"
    slots: list[SlotRow]
    host: Host

    def page_title(self) -> str:
        return str(self.kwargs["name"])

    def page_context(self) -> dict[str, Any]:
        name = self.kwargs["name"]
        if len(name) > _MAX_NAME_LENGTH or not is_storable(name):
            raise Unknown("host", name)
        host = Host.objects.filter(name=name).first()
        if host is None:
            raise Unknown("host", name)
        self.host, fleet = host, self.fleet
        now = next((each for each in fleet.hosts if each.name == name), None)
        self.slots = slot_rows(fleet, now.rows) if now else []
        drivers = GPU.objects.filter(host=host, mig_id="").exclude(driver_version="")
        moves = Residence.objects.filter(host=host).select_related("gpu").order_by("-since")
        return {
            "host": host,
            "state": host_state(host, self.slots),
            "last_seen_ns": now.last_seen_ns if now else None,
            "slots": self.slots,
            "tiles": host_tiles(self.slots),
            "models": sorted({slot.model for slot in self.slots if slot.model}),
            "drivers": sorted(set(drivers.values_list("driver_version", flat=True))),
            "expected": now.expected if now else host.expected_gpus,
            "moves": [move for move in moves[:_MOST_MOVES] if move.until or move.since > host.first_seen],
            "tags": sorted(host.tags.items()),
            "events": events_of_host(host.name, self.now),
            "api": self._api(),
        }

    def data(self) -> dict[str, Any]:
        fleet = self.fleet
        row = next((each.rows for each in fleet.hosts if each.name == self.host.name), slice(0, 0))
        return {
            "host": self.host.name,
            "slots": [{"id": slot.id, "slot": slot.slot} for slot in self.slots if slot.id],
            "limits": {
                "temperature": _least(fleet.metric(SLOWDOWN)[row]),
                "power": _least(np.concatenate([fleet.metric(name)[row] for name in POWER_LIMITS])),
            },
            "reasons": [
                {"bit": each.bit, "name": each.name, "meaning": each.meaning, "text": each.text}
                for each in CLOCK_EVENT_BITS
            ],
            "bands": _has("fleet-bands"),
            "large": len(fleet) > SMALL_FLEET,
        }

    def _api(self) -> dict[str, str]:
        """The calls for what is shown."""
        shown = {
            "metric": UTILISATION,
            "by": "gpu",
            "hostname": self.host.name,
            "start_time": self.range.start,
            "end_time": self.range.end,
        }
        return {
            "series": self.api_url(f"{reverse('query')}?{urlencode(shown, safe=':')}"),
            "host": self.api_url(item_url(reverse("hosts"), self.host.name)),
        }


def _has(name: str) -> bool:
    try:
        reverse(name)
    except NoReverseMatch:
        return False
    return True


def _least(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.min()) if len(known) else None


def slot_rows(fleet: Fleet, rows: slice) -> list[SlotRow]:
    """The slots in these rows of the fleet."""
    columns = [fleet.metric(name)[rows].tolist() for name in FIGURES]
    totals, masks = fleet.memory_total()[rows].tolist(), fleet.metric(CLOCK_EVENTS)[rows].tolist()
    found = []
    for place, row in enumerate(range(rows.start, rows.stop)):
        util, temperature, power, used = (column[place] for column in columns)
        mask = masks[place]
        found.append(
            SlotRow(
                slot=int(fleet.slot[row]),
                id=fleet.ids[row],
                state=STATE_WORDS[SlotState(int(fleet.state[row]))],
                model=fleet.models[row],
                pod=f"{fleet.namespaces[row]}/{fleet.pods[row]}".strip("/"),
                utilisation=util,
                temperature=temperature,
                power=power,
                memory_used=used,
                memory_total=totals[place],
                held="" if math.isnan(mask) else ", ".join(each.name for each in clock_events(mask)),
                last_seen_ns=int(fleet.last_seen_ns[row]),
            )
        )
    return found


def host_state(host: Host, slots: list[SlotRow]) -> str:
    """The state of a host in one word or two: that of its worst slot, unless people took it out of service."""
    if host.asset_state != "active":
        return str(host.get_asset_state_display())
    states = {slot.state for slot in slots}
    return next((state for state in ("missing", "stale", "reporting") if state in states), "in maintenance")


def host_tiles(slots: list[SlotRow]) -> list[HostTile]:
    """The figures at the top of the page, over the slots that report."""

    def known(values: list[float]) -> list[float]:
        return [value for value in values if not math.isnan(value)]

    reporting = sum(slot.state == "reporting" for slot in slots)
    absent = [f"{count} {state}" for state in ("missing", "stale") if (count := sum(s.state == state for s in slots))]
    util = known([slot.utilisation for slot in slots])
    power = known([slot.power for slot in slots])
    used, total = known([slot.memory_used for slot in slots]), known([slot.memory_total for slot in slots])
    hottest = max(
        (slot for slot in slots if not math.isnan(slot.temperature)), key=lambda s: s.temperature, default=None
    )
    return [
        HostTile("GPUs reporting", reporting, f"of {len(slots)}", " · ".join(absent) or "all of them"),
        HostTile("Utilisation", sum(util) / len(util) if util else None, "%", f"{util.count(0.0)} idle" if util else ""),
        HostTile("Power", math.fsum(power) if power else None, "W", f"{len(power)} GPUs" if power else ""),
        HostTile("Memory used", math.fsum(used) if used else None, "MiB", f"of {math.fsum(total) / 1024:,.0f} GiB" if total else ""),
        HostTile("Hottest", hottest.temperature if hottest else None, "°C", f"gpu {hottest.slot}" if hottest else ""),
    ]  # fmt: skip
