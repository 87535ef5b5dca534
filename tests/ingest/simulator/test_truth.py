from __future__ import annotations

import ast
import asyncio
import inspect
import json
import math
from pathlib import Path

import pytest

from ingest.errors import SourceError
from ingest.shard import Shard
from ingest.simulator import course, faults, truth
from ingest.simulator.course import BegunFault
from ingest.simulator.faults import NAMED, events_of
from ingest.simulator.fleet import DEFAULT_METRICS, HEALTH_METRICS, FleetShape
from ingest.simulator.source import SimulateSource
from ingest.simulator.truth import TruthFile, truth_lines

NOON = 1_772_366_400_000_000_000  # 2026-03-01T12:00:00Z


def test_a_fault_that_lasts_has_a_line_with_its_event() -> None:
    hot = BegunFault("temp_high", "synthetic-002", "GPU-1", 600.0, NAMED["temp_high"].events)
    assert list(truth_lines(hot, NOON, 10.0, HEALTH_METRICS, "streamer-1")) == [
        {
            "fault": "temp_high",
            "rule": "temp_high",
            "entity": {"kind": "gpu", "id": "GPU-1"},
            "subject": "",
            "severity": "warning",
            "starts": "2026-03-01T12:00:00Z",
            "ends": "2026-03-01T12:10:00Z",
            "opens_by": "2026-03-01T12:05:10Z",
            "closes_by": "2026-03-01T12:10:30Z",
            "hostname": "synthetic-002",
        }
    ]


def test_one_that_is_too_short_or_cannot_be_seen_has_no_rule() -> None:
    hot = BegunFault("temp_high", "synthetic-002", "GPU-1", 300.0, NAMED["temp_high"].events)
    (line,) = truth_lines(hot, NOON, 10.0, HEALTH_METRICS, "")
    assert (line["rule"], line["severity"], line["opens_by"], line["closes_by"]) == (None, None, None, None)
    failed = BegunFault("xid", "synthetic-002", "GPU-1", math.inf, events_of("xid", 48))
    assert [line["rule"] for line in truth_lines(failed, NOON, 10.0, DEFAULT_METRICS, "")] == ["xid_fatal"]
    assert [(line["rule"], line["ends"], line["closes_by"]) for line in truth_lines(failed, NOON, 10.0, HEALTH_METRICS, "")] == [
        ("xid_fatal", None, None), ("recovery_action", None, None), ("ecc_dbe", None, None), ("remap_pending", None, None)
    ]  # fmt: skip


def test_hosts_and_sources_are_entities_too() -> None:
    for name, kind, identity in (("silent", "host", "synthetic-002"), ("source_silent", "source", "streamer-1")):
        fault = BegunFault(name, "synthetic-002" if name == "silent" else "", "", 1200.0, NAMED[name].events)
        (line,) = truth_lines(fault, NOON, 10.0, HEALTH_METRICS, "streamer-1")
        assert line["entity"] == {"kind": kind, "id": identity}


async def test_the_file_has_the_faults_of_our_hosts_as_they_begin(tmp_path: Path) -> None:
    places = []
    for place in range(2):
        path = tmp_path / f"{place}.jsonl"
        file = TruthFile(path, "streamer-1")
        shape = FleetShape(6, 1, metrics=HEALTH_METRICS, faults=tuple(f"xid:94@{host}/0+5s" for host in range(1, 7)))
        await SimulateSource(shape, 10.0, Shard(place, 2), truth=file).run(lambda _: None, asyncio.Event(), once=True)
        places.append([json.loads(line) for line in path.read_text().splitlines()])
        file.close()
    assert sorted(line["hostname"] for lines in places for line in lines) == [f"synthetic-00{n}" for n in range(1, 7)]
    assert all(places)
    assert {line["rule"] for lines in places for line in lines} == {"xid_warning"}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the truth cannot be written to .*Is a directory"):
        TruthFile(tmp_path, "streamer-1")


def test_the_code_that_judges_has_no_part_in_the_truth() -> None:
    for module in (faults, course, truth):
        tree = ast.parse(inspect.getsource(module))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not [name for name in imported if name.split(".")[0] == "health"]
