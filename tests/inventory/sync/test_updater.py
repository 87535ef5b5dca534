"""inventory.sync.updater: what the database holds after flushes, in any order and more than once."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core import serializers
from django.db import connection
from django.test.utils import CaptureQueriesContext

from inventory.models import GPU, Host, NewestRow, Placement, Residence
from inventory.sync.memory import save_sightings
from inventory.sync.sightings import Sightings
from readings.model import DRIVER_LABEL, PointBlock
from readings.times import to_datetime
from tests.inventory.building import POWER, SECOND, T0, TEMP, USED, UTIL, block, fleet, gpu, latest, save, seen, values

pytestmark = pytest.mark.django_db


def at(seconds: float) -> datetime:
    return to_datetime(T0) + timedelta(seconds=seconds)


def everything() -> list[Any]:
    """All rows of the inventory, as text that can be compared."""
    rows = [row for model in (Host, GPU, Residence, Placement) for row in model.objects.order_by("pk")]
    return list(serializers.serialize("python", rows))


def placements() -> list[tuple[str, float, float, bool]]:
    """Pod, start, last reading and whether it is open, by start."""
    return [
        (row.pod, (row.started - at(0)).total_seconds(), (row.last_seen - at(0)).total_seconds(), row.ended is None)
        for row in Placement.objects.order_by("started", "pod")
    ]


def test_a_new_gpu_is_there_with_all_that_was_said_of_it() -> None:
    save(block(gpu(namespace="ml", pod="train-0", container="main"), 1.5, {UTIL: 88.0, POWER: 412.25}))
    row = GPU.objects.select_related("host").get()
    assert (row.id, row.uuid, row.mig_id) == ("GPU-a", "GPU-a", "")
    assert row.host is not None
    assert (row.host.name, row.index, row.device) == ("host-1", 0, "nvidia0")
    assert (row.model_name, row.driver_version) == ("NVIDIA H100 80GB HBM3", "535.129.03")
    assert (row.namespace, row.pod, row.container) == ("ml", "train-0", "main")
    assert row.first_seen == row.last_seen == row.host.first_seen == row.host.last_seen == at(1.5)
    assert latest() == {UTIL: (88.0, T0 + 3 * SECOND // 2), POWER: (412.25, T0 + 3 * SECOND // 2)}
    assert row.labels == {DRIVER_LABEL: "535.129.03"}
    assert placements() == [("train-0", 1.5, 1.5, True)]


def test_nothing_seen_asks_nothing() -> None:
    with CaptureQueriesContext(connection) as queries:
        save_sightings(Sightings())
    assert len(queries) == 0


def test_newer_readings_replace_older_ones_and_never_the_other_way() -> None:
    save(block(gpu(), 5, {UTIL: 50.0, POWER: 100.0}))
    save(block(gpu(), 9, {UTIL: 90.0}))
    save(block(gpu(), 7, {UTIL: 70.0, POWER: 700.0, TEMP: 40.0}))
    row = GPU.objects.get()
    assert values() == {UTIL: 90.0, POWER: 700.0, TEMP: 40.0}
    assert (row.first_seen, row.last_seen) == (at(5), at(9))


def test_at_the_same_time_a_new_value_replaces_the_old_as_in_the_stores() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    save(block(gpu(), 0, {UTIL: 2.0}))
    assert values()[UTIL] == 2.0


def test_first_seen_goes_back_when_older_readings_come_late() -> None:
    save(block(gpu(), 10, {UTIL: 1.0}))
    save(block(gpu(), 3, {UTIL: 1.0}))
    assert GPU.objects.get().first_seen == Host.objects.get().first_seen == Residence.objects.get().since == at(3)


def test_unknown_never_replaces_known_and_an_older_reading_may_fill_a_blank() -> None:
    save(block(gpu(), 5, {UTIL: 1.0}))
    save(block(gpu(hostname="", gpu_id=None, device="", model_name="", labels={}), 6, {UTIL: 2.0}))
    row = GPU.objects.select_related("host").get()
    assert row.host is not None
    assert (row.host.name, row.index, row.device, row.driver_version) == ("host-1", 0, "nvidia0", "535.129.03")
    save(block(gpu("GPU-b", device="", labels={}), 5, {UTIL: 1.0}), block(gpu("GPU-b"), 1, {UTIL: 2.0}))
    late = GPU.objects.get(pk="GPU-b")
    assert (late.device, late.driver_version, values("GPU-b")[UTIL]) == ("nvidia0", "535.129.03", 1.0)


def test_a_gpu_without_a_host_name_is_kept() -> None:
    save(block(gpu(hostname="", gpu_id=None), 0, {UTIL: 1.0}))
    assert GPU.objects.get().host is None
    assert Host.objects.count() == Residence.objects.count() == 0
    save(block(gpu(), 1, {UTIL: 1.0}))
    assert Residence.objects.get().until is None


def test_a_driver_update_shows() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    save(block(gpu(labels={DRIVER_LABEL: "550.54.15"}), 60, {UTIL: 1.0}))
    save(block(gpu(), 30, {UTIL: 1.0}))
    assert GPU.objects.get().driver_version == "550.54.15"


def test_a_driver_text_longer_than_its_column_is_cut() -> None:
    save(block(gpu(labels={DRIVER_LABEL: "5" * 300}), 0, {UTIL: 1.0}))
    assert GPU.objects.get().driver_version == "5" * 64


# --- moves ---


def moves() -> list[tuple[str, int | None, datetime, datetime | None]]:
    rows = Residence.objects.select_related("host").order_by("since")
    return [(row.host.name if row.host else "", row.index, row.since, row.until) for row in rows]


def test_a_gpu_that_moves_stays_one_gpu_with_its_history() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    save(block(gpu(), 10, {UTIL: 1.0}))
    save(block(gpu(hostname="host-2", gpu_id=3), 100, {UTIL: 1.0}))
    row = GPU.objects.select_related("host").get()
    assert row.host is not None
    assert (row.host.name, row.index) == ("host-2", 3)
    assert moves() == [("host-1", 0, at(0), at(10)), ("host-2", 3, at(100), None)]
    before = everything()
    save(block(gpu(), 10, {UTIL: 1.0}))  # a late word of the old place moves nothing back
    assert everything() == before


def test_a_gpu_that_moves_back_has_its_old_residence_again() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    save(block(gpu(gpu_id=1), 10, {UTIL: 1.0}))
    save(block(gpu(), 20, {UTIL: 1.0}))
    assert moves() == [("host-1", 0, at(0), None), ("host-1", 1, at(10), at(10))]


def test_a_move_within_one_flush_is_kept() -> None:
    save(
        block(gpu(), 0, {UTIL: 1.0}),
        block(gpu(), 4, {UTIL: 1.0}),
        block(gpu(hostname="host-2"), 8, {UTIL: 1.0}),
    )
    assert moves() == [("host-1", 0, at(0), at(4)), ("host-2", 0, at(8), None)]


def test_a_new_gpu_in_an_old_slot_leaves_both_known() -> None:
    save(block(gpu("GPU-old"), 0, {UTIL: 1.0}))
    save(block(gpu("GPU-new"), 60, {UTIL: 1.0}))
    assert set(GPU.objects.values_list("id", "index", "host__name")) == {
        ("GPU-old", 0, "host-1"),
        ("GPU-new", 0, "host-1"),
    }


# --- placements ---


def test_a_pod_that_stays_is_one_placement_however_rarely_it_is_read() -> None:
    for seconds in (0, 10, 4000, 90_000):
        save(block(gpu(pod="train"), seconds, {UTIL: 1.0}))
    assert placements() == [("train", 0, 90_000, True)]


def test_the_next_pod_ends_the_one_before() -> None:
    save(block(gpu(pod="train"), 0, {UTIL: 1.0}))
    save(block(gpu(pod="train"), 10, {UTIL: 1.0}))
    save(block(gpu(pod="serve"), 20, {UTIL: 1.0}))
    assert placements() == [("train", 0, 10, False), ("serve", 20, 20, True)]
    assert Placement.objects.get(pod="train").ended == at(10)
    assert GPU.objects.get().pod == "serve"


def test_a_gpu_on_which_nothing_runs_any_more_has_no_open_placement() -> None:
    save(block(gpu(pod="train"), 0, {UTIL: 1.0}))
    save(block(gpu(), 10, {UTIL: 1.0}))
    assert placements() == [("train", 0, 0, False)]
    assert GPU.objects.get().pod == ""


def test_a_pod_label_that_flaps_makes_one_placement() -> None:
    for seconds in range(0, 100, 10):
        save(block(gpu(pod="train" if seconds % 20 == 0 else ""), seconds, {UTIL: 1.0}))
    save(block(gpu(pod="train"), 100, {UTIL: 1.0}))
    assert placements() == [("train", 0, 100, True)]


def test_pods_that_change_within_one_flush_all_have_their_times() -> None:
    pods = ("a", "a", "", "b", "b", "a")
    save(*(block(gpu(pod=pod), 1000 * n, {UTIL: 1.0}) for n, pod in enumerate(pods)))
    assert placements() == [("a", 0, 1000, False), ("b", 3000, 4000, False), ("a", 5000, 5000, True)]


def test_a_pod_told_late_is_put_into_the_past() -> None:
    save(block(gpu(pod="now"), 10_000, {UTIL: 1.0}))
    save(block(gpu(pod="then"), 100, {UTIL: 1.0}))
    assert placements() == [("then", 100, 100, False), ("now", 10_000, 10_000, True)]
    assert GPU.objects.get().pod == "now"


def test_of_two_words_at_one_time_the_one_that_names_a_pod_counts() -> None:
    named, bare = block(gpu(pod="train"), 0, {UTIL: 1.0}), block(gpu(), 0, {POWER: 1.0})
    for first, second in ((named, bare), (bare, named)):
        GPU.objects.all().delete()
        save(first)
        save(second)
        assert GPU.objects.get().pod == "train"
        assert placements() == [("train", 0, 0, True)]
    GPU.objects.all().delete()
    save(named, bare)
    assert placements() == [("train", 0, 0, True)]


def test_a_hundred_pod_restarts_leave_one_gpu() -> None:
    for number in range(100):
        save(block(gpu(pod=f"train-{number}"), number, {UTIL: 1.0}))
    assert GPU.objects.count() == 1
    assert Placement.objects.count() == 100
    assert Placement.objects.get(ended=None).pod == "train-99"


# --- shares ---


def share(pod: str, seconds: float, value: float) -> PointBlock:
    return block(gpu(pod=pod, namespace="ml", share=True), seconds, {USED: value})


def test_shares_make_placements_and_leave_the_gpu_alone() -> None:
    save(block(gpu(), 0, {USED: 60_000.0}), share("a", 0, 40_000.0), share("b", 0, 20_000.0))
    row = GPU.objects.get()
    assert (row.pod, values()[USED]) == ("", 60_000.0)
    assert placements() == [("a", 0, 0, True), ("b", 0, 0, True)]
    assert set(Placement.objects.values_list("share", flat=True)) == {True}
    before = serializers.serialize("json", [row])
    save(share("a", 30, 1.0))
    assert serializers.serialize("json", [GPU.objects.get()]) == before


def test_a_share_ends_when_its_gpu_is_read_long_after_it() -> None:
    save(block(gpu(), 0, {USED: 60_000.0}), share("a", 0, 1.0), share("b", 0, 1.0))
    save(block(gpu(), 200, {USED: 60_000.0}), share("a", 200, 1.0))
    assert placements() == [("a", 0, 200, True), ("b", 0, 0, True)]
    save(block(gpu(), 400, {USED: 60_000.0}), share("a", 400, 1.0))
    assert placements() == [("a", 0, 400, True), ("b", 0, 0, False)]


def test_a_share_that_comes_before_its_gpu_is_not_lost() -> None:
    save(share("a", 0, 1.0))
    row = GPU.objects.select_related("host").get()
    assert row.host is not None
    assert (row.host.name, row.model_name, latest(), row.pod) == ("host-1", "NVIDIA H100 80GB HBM3", {}, "")
    save(block(gpu(), 0, {USED: 5.0}))
    assert values()[USED] == 5.0
    assert placements() == [("a", 0, 0, True)]


# --- MIG ---


def instance(number: int, seconds: float, **values: float) -> PointBlock:
    told = {USED: 4864.0, POWER: 300.0, TEMP: 40.0} | values
    return block(gpu(mig_id=str(number), mig_profile="1g.10gb", pod=f"pod-{number}"), seconds, told)


def test_instances_have_rows_of_their_own_and_one_of_the_board() -> None:
    save(*(instance(n, 0) for n in range(7)))
    assert GPU.objects.count() == 8
    assert GPU.objects.get(pk="GPU-a:3").mig_profile == "1g.10gb"
    board = GPU.objects.select_related("host").get(mig_id="")
    assert board.host is not None
    assert (board.id, board.host.name, board.model_name, board.mig_profile) == (
        "GPU-a",
        "host-1",
        "NVIDIA H100 80GB HBM3",
        "",
    )
    assert values() == {POWER: 300.0, TEMP: 40.0}
    assert board.pod == ""
    assert Placement.objects.filter(gpu="GPU-a").count() == 0
    assert Placement.objects.filter(ended=None).count() == 7


def test_the_boards_own_reading_goes_before_its_instances() -> None:
    save(instance(1, 0, **{POWER: 299.0}), block(gpu(pod="own"), 0, {POWER: 301.0}), instance(2, 0))
    board = GPU.objects.get(pk="GPU-a")
    assert values()[POWER] == 301.0
    save(instance(1, 5, **{POWER: 310.0}))
    board.refresh_from_db()
    assert (values()[POWER], board.last_seen, board.pod) == (310.0, at(5), "own")


# --- again, in any order, in few queries ---


def story() -> Iterator[PointBlock]:
    """An eventful fleet: moves, pods, shares, instances, values that come late."""
    choose = random.Random(3)
    for step in range(60):
        number = choose.randrange(4)
        fields: dict[str, Any] = {"hostname": f"host-{choose.randrange(3)}", "gpu_id": choose.randrange(2)}
        kind = choose.randrange(6)
        if kind < 3:
            fields["pod"] = choose.choice(("", "p", "q"))
        elif kind == 3:
            fields |= {"share": True, "pod": choose.choice(("r", "s"))}
        elif kind == 4:
            fields |= {"mig_id": str(choose.randrange(2)), "pod": "m"}
        yield block(
            gpu(f"GPU-{number}", **fields), step * 40 - choose.randrange(200) + step / 1000, {UTIL: step, POWER: step}
        )


@pytest.mark.parametrize("flush", [1, 7, 60])
def test_the_same_sightings_again_change_nothing(flush: int) -> None:
    blocks = list(story())
    for start in range(0, len(blocks), flush):
        sightings = seen(*blocks[start : start + flush])
        save_sightings(sightings)
        before = everything()
        save_sightings(sightings)
        assert everything() == before


def test_saving_leaves_the_sightings_as_they_are() -> None:
    sightings = seen(*story())
    save_sightings(sightings)
    before = everything()
    for model in (Placement, Residence, GPU, Host):
        model.objects.all().delete()
    save_sightings(sightings)
    assert len(before) > 4
    assert len(everything()) == len(before)


def test_the_latest_values_do_not_depend_on_the_order_of_flushes() -> None:
    blocks = [each for each in story() if not each.gpus[0].share]
    outcomes = []
    for seed in range(4):
        random.Random(seed).shuffle(blocks)
        for model in (Placement, Residence, GPU, Host, NewestRow):
            model.objects.all().delete()
        for each in blocks:
            save(each)
        rows = GPU.objects.order_by("id").values("id", "last_seen", "host__name", "index")
        outcomes.append([(row, latest(row["id"])) for row in rows])
    assert all(outcome == outcomes[0] for outcome in outcomes)


@pytest.mark.parametrize(("pod", "most"), [("", 16), ("train", 18)])
def test_a_flush_costs_the_same_number_of_queries_with_one_gpu_and_with_fifty(pod: str, most: int) -> None:
    counts = []
    for count in (1, 50):
        save(fleet(count, pod=pod))
        with CaptureQueriesContext(connection) as queries:
            save(fleet(count, 10, pod=pod))
        counts.append(len(queries))
    most += connection.vendor == "postgresql"  # there it takes a lock
    assert counts == [most, most]


def test_the_real_capture_comes_out_whole(request: pytest.FixtureRequest) -> None:
    """247 GPUs in 31 hosts, ten metrics that were read at four different seconds."""
    times = {"2025-07-18T20:42:34Z": 0, "2025-07-18T20:42:35Z": 1, "2025-07-18T20:42:36Z": 2, "2025-07-18T20:42:37Z": 3}
    sightings = Sightings()
    with open(request.getfixturevalue("real_capture"), newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            described = gpu(
                line["uuid"],
                hostname=line["Hostname"],
                gpu_id=int(line["gpu_id"]),
                device=line["device"],
                model_name=line["modelName"],
            )
            sightings.add(block(described, times[line["timestamp"]], {line["metric_name"]: float(line["value"])}))
    save_sightings(sightings)
    assert (GPU.objects.count(), Host.objects.count(), Residence.objects.count()) == (247, 31, 247)
    assert all(len(latest(row.pk)) == 10 for row in GPU.objects.all())
    row = GPU.objects.select_related("host").get(pk="GPU-5fd4f087-86f3-7a43-b711-4771313afc50")
    assert row.host is not None
    assert (row.host.name, row.index, row.model_name) == ("mtv5-dgx1-hgpu-031", 0, "NVIDIA H100 80GB HBM3")
    assert (row.first_seen, row.last_seen) == (at(0), at(3))


def test_a_counter_that_stands_lower_than_before_began_again() -> None:
    energy, link = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL:nvlink:3"

    def resets(second: int, **values: float) -> int:
        return save_sightings(seen(block(gpu(), second, values)))

    assert resets(0, **{energy: 9.1e11, link: 5.0, UTIL: 90.0}) == 0
    assert resets(10, **{energy: 9.2e11, link: 5.0, UTIL: 10.0}) == 0  # a gauge may fall
    assert resets(20, **{energy: 4.0e5, link: 0.0, UTIL: 10.0}) == 2
    assert resets(20, **{energy: 4.0e5, link: 0.0}) == 0  # told again
    assert resets(5, **{energy: 9.15e11, link: 5.0}) == 0  # late: it was so then
