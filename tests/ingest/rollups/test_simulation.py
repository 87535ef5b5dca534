"""Whatever is killed, delivered again, late, or done by two at once: in the end each window is what raw says."""

from __future__ import annotations

from collections import Counter

import pytest

from inventory.models import RollupState, RollupTouch
from tests.ingest.rollups.simulation import World

pytestmark = pytest.mark.django_db


def play(collectors: int, *, seeds: int, steps: int, trouble: float, apart: bool = False) -> Counter[str]:
    """What happened in some worlds."""
    counts: Counter[str] = Counter()
    for seed in range(seeds):
        world = World(seed, collectors, trouble, apart=apart)
        try:
            world.play(steps)
            world.settle()
        finally:
            world.end()
        counts += world.counts
        RollupState.objects.all().delete()
        RollupTouch.objects.all().delete()
    return counts


@pytest.mark.parametrize("collectors", [1, 2])
def test_in_the_end_each_window_is_what_raw_says(collectors: int) -> None:
    counts = play(collectors, seeds=8, steps=200, trouble=0.02)
    assert counts["kills"] > 30
    assert counts["lost leases"] > 3
    assert counts["windows"] > 300
    assert counts["raw"] > 100


def test_so_are_those_from_memory() -> None:
    counts = play(1, seeds=6, steps=400, trouble=0.001)
    assert counts["kills"] > 0
    assert counts["memory"] > 30
    assert counts["mixed"] > 10


def test_another_process_may_have_written_what_came_before() -> None:
    """Each of two collectors reads a part of the log."""
    counts = play(2, seeds=6, steps=400, trouble=0.001, apart=True)
    assert counts["windows"] > 300
