"""The engine against a ground truth that knows nothing of it, on small fleets."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

import pytest

from bench import fault_cases, faults
from bench.fault_cases import make_world
from bench.health import run


@pytest.mark.parametrize(("seed", "restart_every"), [(1, 0), (20261128, 997)])
def test_what_should_open_opens_once_and_in_time_and_nothing_else_does(seed: int, restart_every: int) -> None:
    world = make_world(gpus=64, hours=9, seed=seed)
    verdict = run(world, restart_every)
    assert verdict.deviations == []
    assert len(verdict.matched) == len(verdict.expected) == sum(event.times for event in verdict.seen)
    assert len({expect.rule for expect, _, _ in verdict.matched}) >= 12
    assert verdict.near_misses.total() >= 10


@pytest.mark.parametrize("module", [faults, fault_cases])
def test_the_truth_imports_nothing_of_health(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    names = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert not [name for name in names if name.split(".")[0] == "health"]
