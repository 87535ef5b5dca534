"""The synthetic fleet's faults and their ground truth: what its file says should open opens by then, and nothing else of note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from health.engine.engine import Engine
from health.engine.events import Change, Transition
from health.rules.loading import load_rules
from health.rules.model import SEVERITIES
from ingest.simulator.faults import NAMED
from ingest.simulator.fleet import ALL_METRICS, HEALTH_METRICS, FleetShape, SimFleet
from ingest.simulator.truth import TruthFile
from readings.blocks import BlockBuilder
from readings.checks import problem_of
from readings.times import SECOND, format_time, parse_time

NOON = 1_772_366_400 * SECOND
STEP_S = 30
# All of these hold for the whole fleet, or leave much behind.
_APART = {"source_silent", "overheat", "silent"}


def simulate(path: Path, shape: FleetShape, seconds: float) -> tuple[list[Transition], list[dict[str, Any]]]:
    """What the engine says of this fleet, and the lines of the truth."""
    fleet = SimFleet(shape)
    truth = TruthFile(path, "streamer-1")
    engine = Engine(load_rules(None))
    found: list[Transition] = []
    for step in range(round(seconds / STEP_S)):
        time_ns = NOON + step * STEP_S * SECOND
        fleet.step(STEP_S)
        while fleet.course.begun:
            truth.write(fleet.course.begun.popleft(), time_ns, STEP_S, shape.metrics)
        builder = BlockBuilder()
        for host in fleet.hosts:
            for gpu, name, value in fleet.readings(host):
                if problem_of(name, value) is None:
                    builder.add(gpu, name, time_ns, value)
        for block in builder.blocks(20_000):
            engine.take(block, source="streamer-1", live=True, received_ns=time_ns + SECOND)
        for beat in (10, 20):
            engine.tick(time_ns + beat * SECOND)
        found += engine.drain()
    truth.close()
    return found, [json.loads(line) for line in path.read_text().splitlines()]


def deviations(found: list[Transition], lines: list[dict[str, Any]]) -> list[str]:
    """Lines without their event, in time and closed in time; and events of note without a line."""
    opened = [each for each in found if each.change is Change.OPENED]
    wrong = []
    for line in lines:
        if not line["rule"]:
            continue
        entity = line["entity"]["kind"], line["entity"]["id"]
        event = next(
            (
                each
                for each in opened
                if (each.key.rule, tuple(each.key.entity)) == (line["rule"], entity)
                and line["subject"] in {"", each.key.subject}
            ),
            None,
        )
        if event is None and parse_time(line["opens_by"]) > found[-1].at_ns:
            continue
        if event is None or not parse_time(line["starts"]) <= event.at_ns <= parse_time(line["opens_by"]):
            wrong.append(f"{line}: {event}")
            continue
        opened.remove(event)
        of_event = [each for each in found if (each.key, each.opened_ns) == (event.key, event.opened_ns)]
        if line["severity"] != max((each.severity for each in of_event), key=SEVERITIES.index):
            wrong.append(f"{line}: {[each.severity for each in of_event]}")
        closed = [each.at_ns for each in of_event if each.change is Change.CLOSED]
        by = line["closes_by"] and parse_time(line["closes_by"])
        if by and by < found[-1].at_ns and not (closed and parse_time(line["ends"]) <= closed[0] <= by):
            wrong.append(f"{line}: closed {[format_time(each) for each in closed]}")
    return wrong + [
        f"no line for {each.key}, {each.severity}, {format_time(each.at_ns)}"
        for each in opened
        if each.severity != "info"
    ]


def test_every_fault_of_a_gpu_makes_the_events_that_its_truth_says(tmp_path: Path) -> None:
    names = [name for name, fault in NAMED.items() if fault.place == "gpu" and name not in _APART]
    faults = tuple(f"{name}@{1 + number % 8}/{number // 8}+90m" for number, name in enumerate(names))
    found, lines = simulate(tmp_path / "truth.jsonl", FleetShape(8, 8, 3, ALL_METRICS, faults), 5 * 3600)
    assert {line["fault"] for line in lines} == set(names)
    assert len({line["rule"] for line in lines}) > 30
    assert deviations(found, lines) == []


def test_silence_is_as_its_truth_says(tmp_path: Path) -> None:
    faults = ("silent@2+1h", "source_silent@*+2h", "xid:79@1/2+10m", "missing@1/2+12m+1h", "silent@3+10m+4m")
    found, lines = simulate(tmp_path / "truth.jsonl", FleetShape(3, 4, 1, HEALTH_METRICS, faults), 2.5 * 3600)
    assert [line["rule"] for line in lines] == [
        "xid_fatal", "recovery_action", None, None, "host_stale", "source_silent",
    ]  # fmt: skip
    assert deviations(found, lines) == []


def test_a_schedule_by_lot_is_as_its_truth_says(tmp_path: Path) -> None:
    shape = FleetShape(8, 8, 2, HEALTH_METRICS, fault_rate=20)
    found, lines = simulate(tmp_path / "truth.jsonl", shape, 3 * 3600)
    assert len(lines) > 30
    assert deviations(found, lines) == []
