"""The real capture in a loop, with the times of sending: what its values say, each once, also over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from health.engine.engine import Engine
from health.engine.events import Transition
from health.rules.loading import load_rules
from ingest.streamer.timestamps import Choice, Stamper
from readings.blocks import blocks
from readings.columns import Columns
from readings.model import PointBlock
from readings.times import SECOND
from tests.ingest.captures import read_capture

NOON = 1_772_366_400 * SECOND
PASS_S = 10
# What the values of the capture say beside the missing GPU: nothing of severity warning or above.
MISSING = ("opened", "gpu_missing", "slot", "mtv5-dgx1-hgpu-012/6", "critical")


class LoopingCapture:
    """What ``stream --loop --timestamps now`` publishes: a pass each ten seconds, in batches of 100 readings."""

    def __init__(self, path: Path) -> None:
        self._columns: Columns = read_capture(path, needs_timestamp=False).columns
        self._now_ns = NOON
        self._stamper = Stamper(Choice("now"), lambda: self._now_ns)

    def passes(self, seconds: float, start_s: float = 0.0) -> Iterator[tuple[int, list[PointBlock]]]:
        """The time and the batches of each pass."""
        for second in range(round(start_s), round(start_s + seconds), PASS_S):
            self._now_ns = NOON + second * SECOND
            yield self._now_ns, list(blocks([self._stamper.stamp(self._columns)], 100))


def run(engine: Engine, passes: Iterator[tuple[int, list[PointBlock]]], live: bool) -> list[Transition]:
    found: list[Transition] = []
    for time_ns, batches in passes:
        for number, block in enumerate(batches):
            engine.take(block, source="streamer-1", live=live, received_ns=time_ns + number * 1_000_000)
        for beat in range(1, PASS_S):
            engine.tick(time_ns + beat * SECOND)
        found += engine.drain()
    return found


def said(found: list[Transition]) -> list[tuple[str, str, str, str, str]]:
    """Everything of severity warning or above."""
    return [
        (str(each.change), each.key.rule, each.key.entity.kind, each.key.entity.id, each.severity)
        for each in found
        if each.severity != "info"
    ]


@pytest.mark.parametrize("live", [True, False])
def test_five_minutes_of_the_capture_are_one_missing_gpu_and_after_a_restart_nothing_more(
    real_capture: Path, live: bool
) -> None:
    rules = load_rules(None)
    capture = LoopingCapture(real_capture)
    engine = Engine(rules)
    assert said(run(engine, capture.passes(300), live)) == [MISSING]
    # All of it starts anew: a minute without readings, and the engine from its state.
    engine = Engine.load(engine.dump(), rules, engine.facts)
    assert said(run(engine, capture.passes(300, start_s=360), live)) == []
    assert [key.entity.id for key in engine.book.events if key.rule == "gpu_missing"] == ["mtv5-dgx1-hgpu-012/6"]


@pytest.mark.parametrize("after", [20, 110, 290])
def test_a_restart_at_any_time_changes_nothing(real_capture: Path, after: int) -> None:
    rules = load_rules(None)
    whole = run(Engine(rules), LoopingCapture(real_capture).passes(480), True)
    capture = LoopingCapture(real_capture)
    engine = Engine(rules)
    first = run(engine, capture.passes(after), True)
    engine = Engine.load(engine.dump(), rules, engine.facts)
    assert first + run(engine, capture.passes(480 - after, start_s=after), True) == whole
    assert said(whole) == [MISSING]
