"""Fills a state folder with a synthetic fleet in which everything is to be seen, and adds to it when it is told to.

    STATE_DIR=… python -m tests.dashboard.browser.filling [--hosts 4] [--gpus-per-host 8] [--minutes 60] [--metrics health] [--events 0]

A line on its input is a JSON object, ``{"slot": "host/number", "values": {metric: value}}``: these values are put into the
newest readings, which are written as of now. ``event`` opens one, ``close`` closes those of a rule, ``user`` makes a user. It answers ``ok``. The end of its input ends it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import django
from msgspec.structs import replace

from ingest.simulator.fleet import HEALTH_METRICS, METRIC_SETS, FleetShape, SimFleet
from ingest.simulator.gpu import SimGpu
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND

STEP_S = 15
QUIET_S = 10 * 60  # what has gone, went so long ago
HOST = "synthetic-001"
STALE_HOST = "synthetic-004"
ODD_HOST = "rack 7/β#1"  # a host name may be anything
UTIL, TEMP, POWER, USED = (f"DCGM_FI_DEV_{name}" for name in ("GPU_UTIL", "GPU_TEMP", "POWER_USAGE", "FB_USED"))
# Slots by what they are made to show.
BUSY, MISSING, HELD, HOT, THROTTLED = f"{HOST}/0", f"{HOST}/3", "synthetic-002/2", "synthetic-003/5", "synthetic-003/1"
HELD_MIB, HOT_C = 30_000.0, 91.0
PASSWORD = "a password for tests"
HOSTILE = "<img src=x onerror=alert(1)>"  # a name or note may be anything


@dataclass
class Story:
    """A fleet and its time. ``values`` are put into the readings of a slot from now on."""

    fleet: SimFleet
    now_s: int
    metrics: tuple[str, ...] = HEALTH_METRICS
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    throttled_ns: float = 0.0

    def block(self, at_s: int, *, quiet: bool) -> PointBlock:
        """The fleet's readings at a time; without those that have stopped where ``quiet``."""
        gpus: list[Gpu] = []
        points: list[Point] = []
        self.throttled_ns += STEP_S * SECOND / 2
        for host in self.fleet.hosts:
            for slot, sim in enumerate(host.gpus):
                name = f"{host.name}/{slot}"
                if quiet and (host.name == STALE_HOST or name == MISSING):
                    continue
                values: dict[str, float | None] = {metric: sim.value(metric) for metric in self.metrics}
                values |= self._made_up(name) | self.values.get(name, {})
                points.append((len(gpus), at_s * SECOND, list(values.values())))
                gpus.append(self.identity_of(name, sim))
        return PointBlock(gpus, list(self.metrics), points)

    def _made_up(self, name: str) -> dict[str, float]:
        made: dict[str, dict[str, float]] = {
            HELD: {UTIL: 0.0, POWER: 71.0, USED: HELD_MIB, "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0.0},
            HOT: {
                UTIL: 88.0,
                TEMP: HOT_C,
                "DCGM_FI_DEV_THERMAL_VIOLATION": self.throttled_ns,
                "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": 72.0,
            },
            THROTTLED: {
                UTIL: 97.0,
                "DCGM_FI_DEV_POWER_VIOLATION": self.throttled_ns,
                "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": 4.0,
            },
        }
        return {metric: value for metric, value in made.get(name, {}).items() if metric in self.metrics}

    def identity_of(self, name: str, sim: SimGpu) -> Gpu:
        """The GPU in a slot, with what runs on it."""
        gpu = sim.identity
        return replace(gpu, namespace="notebooks", pod="notebook-anna-0", container="main") if name == HELD else gpu

    def history(self, minutes: int) -> Iterator[PointBlock]:
        """The readings up to now."""
        steps = minutes * 60 // STEP_S
        for step in range(steps):
            at_s = self.now_s - (steps - 1 - step) * STEP_S
            yield self.block(at_s, quiet=at_s > self.now_s - QUIET_S)
            self.fleet.step(STEP_S)


def story(hosts: int, gpus_per_host: int, metrics: tuple[str, ...]) -> Story:
    """The fleet, and the host with an odd name beside it."""
    fleet = SimFleet(FleetShape(hosts=hosts, gpus_per_host=gpus_per_host, metrics=HEALTH_METRICS))
    odd = SimFleet(FleetShape(hosts=1, gpus_per_host=2, seed=7)).hosts[0]
    odd.name = ODD_HOST
    for number, sim in enumerate(odd.gpus):
        uuid = f"GPU-0dd0000{number}-0000-4000-8000-00000000000{number}"
        sim.identity = replace(sim.identity, hostname=ODD_HOST, uuid=uuid)
    fleet.hosts.append(odd)
    return Story(fleet, int(time.time()), metrics)


class Writer:
    """Does with blocks what a collector does. To be made after Django's set-up."""

    def __init__(self) -> None:
        from inventory.sync.memory import InventoryMemory
        from tests.health.usage.filling import Watched

        self._memory = InventoryMemory("collector-1")
        self._watched = Watched()

    def write(self, blocks: list[PointBlock]) -> None:
        """Store them, and update the inventory."""
        from stores.open import get_store
        from tests.inventory.building import seen

        get_store().write(blocks)
        self._memory.save(seen(*blocks))
        for block in blocks:
            self._watched.take(block)

    def keep_usage(self) -> None:
        """Keep what ``watch`` counts."""
        self._watched.commit()


def make_events(told: Story, more: int) -> None:
    """What the rules would have found in this fleet; ``more`` further events, and watch that judges for ever."""
    from django.utils import timezone

    from health.models import WatchState
    from tests.health.building import make_event

    now = timezone.now()

    def at(minutes: float) -> Any:
        return now - timedelta(minutes=minutes)

    def of(name: str, rule: str, severity: str, summary: str, minutes: float, **fields: Any) -> None:
        host, _, slot = name.rpartition("/")
        sim = next(each for each in told.fleet.hosts if each.name == host).gpus[int(slot)]
        identity = told.identity_of(name, sim)
        place = {"hostname": host, "slot": int(slot), "model_name": identity.model_name, "pod": identity.pod or ""}
        make_event(rule, entity=identity.uuid, severity=severity, summary=summary, opened=at(minutes), **place | fields)

    of(
        HOT,
        "temp_high",
        "warning",
        "91 °C, limit 85 °C",
        25,
        details={"value": 91.0, "limit": 85.0},
        action="contact_support",
    )
    of(MISSING, "gpu_missing", "critical", "Not seen for 600 s, while its host reports", 10, action="reboot_node")
    of(
        THROTTLED,
        "hw_power_brake",
        "critical",
        "The server's power brake is on",
        40,
        count=7,
        pod=HOSTILE,
        namespace="ml",
    )
    of(BUSY, "xid_app", "info", "XID 32: Corrupted commands", 30, subject="32", action="restart_app")
    of(HELD, "idle_held", "info", "0 % used, 30000 MiB held", 50, acknowledged=at(20), acknowledged_by=HOSTILE)
    of(
        HOT,
        "thermal_throttle",
        "warning",
        "Heat holds its clocks down",
        20,
        state="closed",
        closed=at(5),
        resolved_by="ada",
    )
    host: dict[str, Any] = {"entity_kind": "host", "slot": None, "model_name": ""}
    make_event("host_stale", entity=STALE_HOST, hostname=STALE_HOST, severity="critical", state="unknown", summary="No reading for 600 s", opened=at(10), action="contact_support", **host)  # fmt: skip
    make_event(
        "clock_skew", entity=ODD_HOST, hostname=ODD_HOST, severity="warning", summary=HOSTILE, opened=at(15), **host
    )
    for number in range(more):
        sim = told.fleet.hosts[number % len(told.fleet.hosts)]
        severity = ("critical", "warning", "info")[number % 3]
        is_over = number % 20 != 0
        make_event(
            ("temp_high", "clock_low", "pcie_replay", "ecc_sbe_rate")[number % 4],
            entity=sim.gpus[number % len(sim.gpus)].identity.uuid,
            subject=str(number),
            hostname=sim.name,
            slot=number % len(sim.gpus),
            severity=severity,
            opened=at(number % 5000),
            state="closed" if is_over else "open",
            closed=at(number % 5000 - 30) if is_over else None,
        )
    WatchState.objects.create(
        pk=1, holder="watch-1", lease_until=now + timedelta(days=365), updated=now, offset=41, judged=1_234_567
    )


def parts(blocks: Iterable[PointBlock]) -> Iterator[list[PointBlock]]:
    """Some hundred thousand readings at a time."""
    pending: list[PointBlock] = []
    for block in blocks:
        pending.append(block)
        if sum(each.count() for each in pending) > 1_000_000:
            yield pending
            pending = []
    yield pending


def obey(told: Story, order: dict[str, Any]) -> None:
    """Open an event on a GPU, close the events of a rule, or make a user of the staff."""
    from django.contrib.auth.models import User
    from django.utils import timezone

    from health.models import Event
    from tests.health.building import make_event

    now = timezone.now()
    if event := order.get("event"):
        host, _, slot = event["slot"].rpartition("/")
        sim = next(each for each in told.fleet.hosts if each.name == host).gpus[int(slot)]
        place = {"entity": sim.identity.uuid, "hostname": host, "slot": int(slot), "severity": event["severity"]}
        make_event(event["rule"], opened=now, summary=f"{event['rule']} happened", **place)
    if rule := order.get("close"):
        Event.objects.filter(rule=rule).update(state="closed", closed=now)
    if name := order.get("user"):
        User.objects.create_superuser(name, password=PASSWORD)


def say_ok() -> None:
    """Tell whoever waits that it is done."""
    sys.stdout.write("ok\n")
    sys.stdout.flush()


def main() -> None:
    """Migrate and fill; then do as told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--gpus-per-host", type=int, default=8)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--events", type=int, default=0, help="events beside those of the story [%(default)s]")
    parser.add_argument("--metrics", choices=METRIC_SETS, default="health")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "telemetry_site.settings")
    django.setup()
    from django.core.management import call_command
    from django.db import transaction

    call_command("migrate", verbosity=0)
    told = story(options.hosts, options.gpus_per_host, METRIC_SETS[options.metrics])
    writer = Writer()
    for blocks in parts(told.history(options.minutes)):
        writer.write(blocks)
    with transaction.atomic():  # one write, however many
        make_events(told, options.events)
    writer.keep_usage()
    say_ok()
    for line in sys.stdin:
        order = json.loads(line)
        obey(told, order)
        if "values" in order:
            told.values.setdefault(order["slot"], {}).update(order["values"])
        told.fleet.step(1.0)
        writer.write([told.block(int(time.time()), quiet=True)])
        writer.keep_usage()
        say_ok()


if __name__ == "__main__":
    main()
