"""The fleet by host and source, as the readings show it."""

from __future__ import annotations

import numpy as np

from health.engine.facts import Facts
from health.engine.places import FleetPlaces, around
from health.engine.registry import Registry
from tests.health.engine.building import MINUTE, START, gpu


def test_boards_are_by_host_without_the_retired_the_replaced_and_mig_instances() -> None:
    registry = Registry(100)
    for each in (gpu(0, "a"), gpu(1, "a"), gpu(0, "b"), gpu(0, "a", mig_id="3"), gpu(5, "c")):
        registry.row(each, "live" if each.hostname != "c" else "capture", each.hostname != "c")
    rows = np.arange(len(registry), dtype=np.int32)
    registry.sample(rows, START + rows.astype(np.int64) * MINUTE)
    registry.hear(rows, START + rows.astype(np.int64) * MINUTE)
    places = FleetPlaces(registry)
    layout = places.layout(Facts(retired_gpus=frozenset({"GPU-a-1"})))
    assert layout.hosts == ("a", "b", "c")
    assert [registry.gpus[row].id for row in layout.rows] == ["GPU-a-0", "GPU-b-0", "GPU-c-5"]
    assert layout.live.tolist() == [True, True, False]
    times = places.times(layout, START + 60 * MINUTE)
    assert times.board_ns.tolist()[0] == START + 3 * MINUTE  # the instance's sample is one of its board
    assert times.now_ns.tolist() == [START + 60 * MINUTE] * 2 + [START + 4 * MINUTE]
    places.replaced.add("GPU-b-0")
    assert places.layout(Facts()).hosts == ("a", "c")


def test_what_may_explain_an_event_of_an_instance() -> None:
    registry = Registry(100)
    row = registry.row(gpu(0, "a", mig_id="3"), "s", True)
    assert [entity.id for entity in around(registry, row)] == ["GPU-a-0:3", "GPU-a-0", "a", "s", ""]
