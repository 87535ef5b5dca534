"""A small fleet for the engine, and rules with round numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from health.engine.engine import Engine
from health.engine.events import Transition
from health.engine.facts import Facts
from health.rules.conditions import compile_condition
from health.rules.model import Level, Rule, Rules, Xid
from readings.model import Gpu, PointBlock
from readings.times import SECOND

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
START = 1_772_366_400 * SECOND  # 2026-03-01T12:00:00Z
UTIL, TEMP, XID = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS"
REPLAYS, ENERGY = "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


def level(
    severity: str, when: str, until: str = "", settings: Mapping[str, float] | None = None, **numbers: int
) -> Level:
    return Level(
        severity,
        compile_condition(when, settings or {}),
        compile_condition(until, settings or {}) if until else None,
        **numbers,
    )


def rule(name: str, judge: Any = "condition", *levels: Level, entity: str = "gpu", **settings: float) -> Rule:
    severity = levels[-1].severity if levels else "critical"
    return Rule(
        name, name, name, judge, entity, severity, "none", levels=levels, settings=settings, says=name + " {value}"
    )


def code_rules() -> list[Rule]:
    """The rules whose judges are code, with the numbers of the page."""
    day = 86_400.0
    return [
        replace(
            rule("gpu_missing", "absence", samples=3, after_s=120, seen_within_s=21_600, clear_samples=2),
            inhibited_by=("source_silent", "host_stale", "xid_fatal:79"),
        ),
        rule("host_stale", "absence", entity="host", warning_s=300, critical_s=900, clear_samples=2),
        rule("source_silent", "absence", entity="source", share=0.9, for_s=120, clear_share=0.1),
        rule("clock_skew", "absence", entity="host", ahead_s=60, samples=3, clear_samples=3),
        rule("sample_loss", "absence", share=0.8, window_s=3600, clear_share=0.95),
        rule("metric_vanished", "absence", share=0.9, history_s=day, absent_s=900, clear_samples=3),
        rule("gpu_replaced", "identity"),
        rule("gpu_reset", "point"),
        rule("config_drift", "fleet", for_s=3600),
        rule("temp_ramp", "history", degrees_per_minute=2, window_s=300, util_within=10),
        rule("fleet_idle", "fleet", entity="fleet", share=0.2, clear_share=0.15, idle=5, for_s=900),
        rule("xid_fatal", "xid", quiet_s=3600, clear_samples=3),
        rule("xid_warning", "xid", quiet_s=day),
        rule("xid_unknown", "xid", quiet_s=day),
        rule("xid_app", "xid"),
        rule("xid_nvlink5", "xid", quiet_s=day, asked_within_s=300),
        rule("xid_repeat_gpu", "history", count=5, window_s=day, burst_s=180),
        rule("xid31_same_gpu", "history", count=2, window_s=day, quiet_s=day),
        rule("xid31_many_gpus", "history", entity="host", count=2, window_s=day, quiet_s=day),
        rule("xid_after_reset", "history", resets=2),
        rule("lemon_node", "history", entity="host", count=5, window_s=7 * day),
    ]


XIDS = (
    Xid(13, "GR_EXCEPTION", "a fault of the application", "info", "restart_app", "app"),
    Xid(31, "MMU_FAULT", "a fault of the memory's addresses", "info", "restart_app", "app"),
    Xid(39, "CE0", "a fault of a copy engine", "info", "restart_app", "app", repeats_warn=True),
    Xid(45, "PREEMPTIVE", "what runs was removed", "info", "none", "app"),
    Xid(48, "DBE", "a double-bit error", "critical", "reset_gpu", "fatal"),
    Xid(79, "OFF_THE_BUS", "the GPU fell off the bus", "critical", "reboot_node", "fatal"),
    Xid(145, "NVLINK_RLW", "an NVLink error", "warning", "run_diag", "nvlink5"),
    Xid(154, "ACTION", "the driver asks for an action", "info", "none", "app"),
    Xid(162, "ENGAGED", "engaged again", "info", "none", "app"),
    Xid(163, "DISENGAGED", "disengaged", "warning", "none", "warning"),
)


def make_rules(*more: Rule) -> Rules:
    return Rules([*code_rules(), *more], XIDS)


def gpu(number: int, host: str = "node-1", **fields: Any) -> Gpu:
    given: dict[str, Any] = {"gpu_id": number, "model_name": "H100"} | fields
    return Gpu(uuid=given.pop("uuid", f"GPU-{host}-{number}"), hostname=host, **given)


class FleetFeed:
    """Feeds an engine with what GPUs report, step by step. ``at`` is the time of the next step, in seconds since START."""

    def __init__(self, engine: Engine, step: float = 10.0, *, live: bool = True, source: str = "s") -> None:
        self.engine = engine
        self.at = 0.0
        self.step = step
        self.live = live
        self.source = source
        self.seen: list[Transition] = []

    def send(
        self, points: Iterable[tuple[Gpu, Mapping[str, float | None]]], *, at: float | None = None, source: str = ""
    ) -> None:
        """One message: a point for each GPU, of the time ``at`` (now)."""
        points = list(points)
        names = list(dict.fromkeys(name for _, values in points for name in values))
        time_ns = START + round((self.at if at is None else at) * SECOND)
        block = PointBlock(
            [each for each, _ in points],
            names,
            [(index, time_ns, [values.get(name) for name in names]) for index, (_, values) in enumerate(points)],
        )
        self.engine.take(
            block,
            source=source or self.source,
            live=self.live,
            received_ns=START + round(self.at * SECOND),
        )
        self.seen += self.engine.drain()

    def run(
        self, seconds: float, points: Iterable[tuple[Gpu, Mapping[str, float | None]]], *, source: str = ""
    ) -> None:
        """Send the same, step by step, for so long."""
        points = list(points)
        until = self.at + seconds
        while self.at < until:
            self.send(points, source=source)
            self.at += self.step

    def silence(self, seconds: float) -> None:
        """No message for so long, but the clock goes on."""
        until = self.at + seconds
        while self.at < until:
            self.engine.tick(START + round(self.at * SECOND))
            self.at += self.step
        self.seen += self.engine.drain()

    def said(self, *changes: str) -> list[tuple[str, str, str]]:
        """What was said: the change, the rule and the entity, of these changes or of all but repeats."""
        return [
            (str(each.change), each.key.rule, each.key.entity.id)
            for each in self.seen
            if (each.change in changes if changes else each.change != "repeated")
        ]


def start(*more: Rule, facts: Facts | None = None, step: float = 10.0, live: bool = True) -> FleetFeed:
    """A feed of a new engine with the code rules and these."""
    return FleetFeed(Engine(make_rules(*more), facts), step, live=live)
