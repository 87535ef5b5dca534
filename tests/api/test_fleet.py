"""api.fleet: counts, totals and columns of the fleet's snapshot."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from api.fleet import fleet_answer, percentile, select_slots, shared_prefix, short_ids
from api.schema.answers import EventCountsAnswer, FleetAnswer
from inventory.fleet import fleet_now
from readings.model import Gpu, Point, PointBlock
from readings.times import parse_time
from tests.health.building import NOON, make_event
from tests.inventory.building import FREE, POWER, T0, TEMP, USED, UTIL, block, fleet, gpu, save


def answer() -> FleetAnswer:
    now = fleet_now()
    return fleet_answer(now, UTIL, select_slots(now))


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["mtv5-dgx1-hgpu-001", "mtv5-dgx1-hgpu-031"], "mtv5-dgx1-"),
        (["synthetic-001", "synthetic-002"], ""),
        (["only-one-host"], ""),
        (["a.example.com", "b.example.com"], ""),
        (["rack1.node-1.dc", "rack1.node-2.dc"], "rack1."),
        ([], ""),
    ],
)
def test_the_prefix_leaves_a_name_that_says_what_it_is(names: list[str], prefix: str) -> None:
    assert shared_prefix(names) == prefix


def test_ids_are_short_where_that_is_unique() -> None:
    tail = "-1111-2222-3333-444455556666"
    ids = [f"GPU-aaaaaaaa{tail}", f"GPU-bbbbbbbb{tail}", "GPU-bbbbbbbb-9999-2222-3333-444455556666", "card-7", ""]
    assert short_ids(ids, ids) == ["GPU-aaaaaaaa", ids[1], ids[2], "card-7", ""]


def test_a_percentile_is_a_value_that_was_read() -> None:
    values = np.arange(1.0, 101.0)
    assert [percentile(values, rank) for rank in (5, 50, 95)] == [5.0, 50.0, 95.0]
    assert percentile(np.array([]), 50) is None


@pytest.mark.django_db
def test_counts_add_up() -> None:
    whole = fleet(80)
    save(PointBlock(whole.gpus, whole.metric_names, [point for point in whole.points if point[0] != 11]))
    counts = answer().counts
    assert (counts.hosts, counts.gpus, counts.expected, counts.reporting, counts.missing) == (10, 79, 80, 79, 1)
    assert counts.expected == counts.reporting + counts.stale + counts.missing + counts.maintenance


@pytest.mark.django_db
def test_what_no_gpu_reports_is_null_and_not_0() -> None:
    save(block(gpu(), 0, {TEMP: 40.0}))
    totals = answer().totals
    assert (totals.utilisation_mean, totals.utilisation_p95, totals.power_watts, totals.memory_used_mib) == (None,) * 4
    assert answer().gpus is not None
    assert answer().gpus.utilisation == [None]  # type: ignore[union-attr]


@pytest.mark.django_db
def test_a_value_of_any_size_stays_what_it_is() -> None:
    values = [-1.7e308, 2.0**60, 1e15 - 0.25, 0.12345, 5e-324]
    save(*(block(gpu(f"GPU-{n}", gpu_id=n), 0, {"of_nobody": value}) for n, value in enumerate(values)))
    now = fleet_now()
    answer = fleet_answer(now, "of_nobody", np.ones(len(now), np.bool_))
    assert answer.gpus is not None
    assert answer.gpus.value == [-1.7e308, 2.0**60, 1e15 - 0.25, 0.123, 0]


@pytest.mark.django_db
def test_a_filter_chooses_slots_and_all_figures_are_of_those() -> None:
    save(
        block(gpu("GPU-a", namespace="red", pod="p"), 0, {UTIL: 10.0, POWER: 100.0}),
        block(gpu("GPU-b", gpu_id=1, model_name="A100"), 0, {UTIL: 30.0, POWER: 200.0}),
        block(gpu("GPU-c", hostname="host-2"), 0, {UTIL: 50.0, POWER: 400.0}),
    )
    now = fleet_now()

    def watts(**filters: list[str]) -> float | None:
        return fleet_answer(now, UTIL, select_slots(now, **filters)).totals.power_watts

    assert watts() == 700.0
    assert watts(hostnames=["host-2"]) == 400.0
    assert watts(models=["A100"]) == 200.0
    assert watts(namespaces=["red"]) == 100.0
    assert watts(pods=["p"], models=["A100"]) is None


@pytest.mark.django_db
def test_each_gpu_slot_and_host_has_the_mark_of_its_worst_event() -> None:
    whole = fleet(80)
    save(PointBlock(whole.gpus, whole.metric_names, [point for point in whole.points if point[0] != 11]))
    assert answer().events == EventCountsAnswer(0, 0, 0)
    assert answer().gpus is not None
    for fields in (
        {"rule": "temp_high", "entity": "GPU-0002", "hostname": "host-000"},
        {"rule": "ecc_dbe", "entity": "GPU-0002", "hostname": "host-000", "severity": "critical"},
        {"rule": "temp_high", "entity": "GPU-0003:1", "hostname": "host-000"},
        {"rule": "idle_held", "entity": "GPU-0004", "hostname": "host-000", "severity": "info", "quiet": True},
        {"rule": "energy_stuck", "entity": "GPU-0005", "hostname": "host-000", "quiet": True},
        {"rule": "temp_high", "entity": "GPU-0006", "hostname": "host-000", "state": "closed", "closed": NOON},
        {
            "rule": "gpu_missing",
            "entity_kind": "slot",
            "entity": "host-001/3",
            "hostname": "host-001",
            "severity": "critical",
        },
        {"rule": "gpu_missing", "entity_kind": "slot", "entity": "host-001/99", "hostname": "host-001"},
        {"rule": "temp_high", "entity": "GPU-gone", "hostname": "host-gone"},
        {"rule": "host_stale", "entity_kind": "host", "entity": "host-002", "hostname": "host-002"},
        {"rule": "fleet_idle", "entity_kind": "fleet", "entity": "", "hostname": "", "severity": "info"},
    ):
        make_event(**fields)
    found = answer()
    assert found.gpus is not None
    marked = {
        (found.hosts[host].name, slot): mark
        for host, slot, mark in zip(found.gpus.host, found.gpus.slot, found.gpus.mark, strict=True)
        if mark
    }
    assert marked == {("host-000", 2): 1, ("host-000", 3): 2, ("host-000", 4): 3, ("host-001", 3): 1}
    assert {host.name: host.mark for host in found.hosts if host.mark} == {"host-002": 2}
    assert found.events == EventCountsAnswer(critical=2, warning=5, info=2)
    now = fleet_now()
    assert fleet_answer(now, UTIL, select_slots(now, hostnames=["host-000"])).events == EventCountsAnswer(1, 2, 1)
    assert fleet_answer(now, UTIL, select_slots(now, hostnames=["host-002", "host-001"])).events == (
        EventCountsAnswer(1, 1, 0)
    )
    assert fleet_answer(now, UTIL, select_slots(now, hostnames=["host-003"])).events == EventCountsAnswer(0, 0, 0)


def capture_block(path: Path) -> PointBlock:
    """The last value of each metric of each GPU of a capture, in one point for each GPU."""
    gpus: dict[str, Gpu] = {}
    values: dict[str, dict[str, float]] = defaultdict(dict)
    newest: dict[str, int] = defaultdict(int)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            uuid = row["uuid"]
            gpus[uuid] = Gpu(
                uuid=uuid,
                hostname=row["Hostname"],
                gpu_id=int(row["gpu_id"]),
                device=row["device"],
                model_name=row["modelName"],
            )
            values[uuid][row["metric_name"].strip()] = float(row["value"])
            newest[uuid] = max(newest[uuid], parse_time(row["timestamp"]))
    names = sorted({name for of_gpu in values.values() for name in of_gpu})
    points = [(place, newest[uuid], [values[uuid].get(name) for name in names]) for place, uuid in enumerate(gpus)]
    return PointBlock(list(gpus.values()), names, points)


@pytest.mark.django_db
def test_a_fleet_of_the_shape_of_the_capture() -> None:
    """31 hosts with 8 GPUs but for one slot; the first 128 GPUs idle, 21 of them with memory in use."""
    names = [UTIL, POWER, TEMP, USED, FREE]
    whole = [Gpu(uuid=f"GPU-{n}", hostname=f"node-{n // 8:02d}", gpu_id=n % 8, model_name="H100") for n in range(248)]
    gpus = [each for each in whole if (each.hostname, each.gpu_id) != ("node-20", 6)]
    points: list[Point] = []
    for place in range(len(gpus)):
        used = 2000.0 if place < 21 else 4.0 if place < 128 else 70_000.0
        busy = place >= 128
        heat = 80.0 if place == 200 else 40.0
        points.append((place, T0, [50.0 if busy else 0.0, 500.25 if busy else 80.5, heat, used, 81_007.0 - used]))
    save(PointBlock(gpus, names, points))
    found = answer()
    counts, columns = found.counts, found.gpus
    assert columns is not None
    assert (counts.hosts, counts.gpus, counts.expected, counts.reporting, counts.missing) == (31, 247, 248, 247, 1)
    assert (counts.idle, counts.idle_held, counts.idle_hosts) == (128, 21, 16)
    missing = columns.state.index(2)
    assert (found.hosts[columns.host[missing]].name, columns.slot[missing]) == ("node-20", 6)
    assert (found.totals.power_watts, found.totals.idle_power_watts) == (119 * 500.25 + 128 * 80.5, 128 * 80.5)
    hottest = max(range(248), key=lambda row: columns.temperature[row] or 0)
    assert (found.hosts[columns.host[hottest]].name, columns.slot[hottest]) == (gpus[200].hostname, gpus[200].gpu_id)


@pytest.mark.django_db
def test_the_real_capture(real_capture: Path) -> None:
    save(capture_block(real_capture))
    found = answer()
    counts, gpus = found.counts, found.gpus
    assert gpus is not None
    assert (counts.hosts, counts.gpus, counts.expected, counts.reporting) == (31, 247, 248, 247)
    assert (counts.missing, counts.stale, counts.idle, counts.idle_held) == (1, 0, 128, 21)
    assert (counts.idle_hosts, counts.at_full) == (14, 27)
    missing = gpus.state.index(2)
    assert (found.hosts[gpus.host[missing]].name, gpus.slot[missing], gpus.id[missing]) == ("mtv5-dgx1-hgpu-012", 6, "")
    assert found.totals.power_watts == 64997.681
    assert found.totals.idle_power_watts == 10241.564
    assert found.totals.utilisation_mean == 43.781
    assert (found.totals.memory_used_mib, found.totals.memory_total_mib) == (6550002.0, 247 * 81007.0)
    hottest = max(range(len(gpus.temperature)), key=lambda place: gpus.temperature[place] or 0)
    assert (found.hosts[gpus.host[hottest]].name, gpus.slot[hottest]) == ("mtv5-dgx1-hgpu-023", 5)
    assert (gpus.temperature[hottest], gpus.id[hottest]) == (80, "GPU-39bd9cd5")
    assert found.prefix == "mtv5-dgx1-"
