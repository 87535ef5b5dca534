"""inventory.sync.memory: what a collector writes, and what it leaves alone."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from inventory.models import GPU, Host, NewestRow, Placement, Residence
from inventory.newest import newest_by_host
from inventory.removal import remove_gpus, remove_hosts
from inventory.sync import memory as memory_module
from inventory.sync.memory import InventoryMemory
from inventory.sync.sightings import Origin, Sightings
from readings.times import to_datetime
from tests.inventory.building import POWER, SECOND, T0, USED, UTIL, block, fleet, gpu, latest, seen, values

pytestmark = pytest.mark.django_db

TABLES = ("inventory_gpu", "inventory_host", "inventory_residence", "inventory_placement")


@pytest.fixture
def memory() -> InventoryMemory:
    return InventoryMemory("c1")


def at(seconds: float) -> datetime:
    return to_datetime(T0) + timedelta(seconds=seconds)


def statements(memory: InventoryMemory, sightings: Sightings) -> list[str]:
    """The statements of a save."""
    with CaptureQueriesContext(connection) as queries:
        memory.save(sightings)
    return [each["sql"] for each in queries]


def test_a_flush_that_brings_only_readings_writes_only_the_newest_rows(memory: InventoryMemory) -> None:
    memory.save(seen(fleet(50, pod="train")))
    for seconds in (10, 20):
        sql = statements(memory, seen(fleet(50, seconds, pod="train")))
        assert not [each for each in sql if any(table in each for table in TABLES)]
    assert GPU.objects.get(pk="GPU-0049").last_seen == at(0)
    newest = newest_by_host()["host-006"]
    assert set(newest.last_seen_ns.tolist()) == set(newest.times_ns.ravel().tolist()) == {T0 + 20 * SECOND}


def test_a_host_of_which_nothing_was_seen_is_not_written(memory: InventoryMemory) -> None:
    memory.save(seen(fleet(16)))
    before = dict(NewestRow.objects.values_list("host", "version"))
    memory.save(seen(fleet(8, 5)))
    after = dict(NewestRow.objects.values_list("host", "version"))
    assert after["host-000"] > before["host-000"]
    assert after["host-001"] == before["host-001"]


def test_a_pod_that_ends_unsaved_has_run_until_it_was_last_seen(memory: InventoryMemory) -> None:
    for seconds in (0, 5, 10, 15):
        memory.save(seen(block(gpu(pod="train"), seconds, {UTIL: 1.0})))
    assert Placement.objects.get().last_seen == at(0)
    memory.save(seen(block(gpu(), 20, {UTIL: 1.0})))
    assert Placement.objects.get().ended == at(15)


@pytest.mark.parametrize("writer", ["c1", "another"])
def test_a_collector_that_takes_over_knows_what_was_seen_by_the_one_before(
    memory: InventoryMemory, writer: str
) -> None:
    for seconds in (0, 5, 10, 15):
        memory.save(seen(block(gpu(pod="train"), seconds, {UTIL: float(seconds)})))
    successor = InventoryMemory(writer)
    successor.save(seen(block(gpu(hostname="host-2", pod="old"), 8, {UTIL: 8.0, POWER: 8.0})))
    row = GPU.objects.select_related("host").get()
    assert (str(row.host), row.pod) == ("host-1", "train")
    successor.save(seen(block(gpu(pod="next"), 30, {UTIL: 30.0})))
    ended = Placement.objects.get(pod="train")
    assert (ended.started, ended.last_seen, ended.ended) == (at(0), at(15), at(15))
    assert values() == {UTIL: 30.0, POWER: 8.0}


def test_the_newest_of_all_writers_is_read_whoever_wrote_last(memory: InventoryMemory) -> None:
    other = InventoryMemory("c2")
    for writer in (memory, other):
        writer.save(seen(block(gpu(), 0, {UTIL: 0.0})))
    memory.save(seen(block(gpu(), 20, {UTIL: 20.0})))
    other.save(seen(block(gpu(), 10, {UTIL: 10.0, POWER: 10.0})))
    assert latest() == {UTIL: (20.0, T0 + 20 * SECOND), POWER: (10.0, T0 + 10 * SECOND)}
    [host] = newest_by_host().values()
    assert host.last_seen_ns.tolist() == [T0 + 20 * SECOND]


def test_older_readings_than_any_before_move_first_seen_back(memory: InventoryMemory) -> None:
    for seconds in (10, 20, 3, 30):
        memory.save(seen(block(gpu(), seconds, {UTIL: 1.0})))
    assert GPU.objects.get().first_seen == Host.objects.get().first_seen == Residence.objects.get().since == at(3)


def test_a_move_takes_the_readings_along_and_leaves_none_behind(memory: InventoryMemory) -> None:
    memory.save(seen(block(gpu(), 0, {UTIL: 1.0, POWER: 2.0}), block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 3.0})))
    memory.save(seen(block(gpu(hostname="host-2"), 10, {UTIL: 4.0})))
    found = newest_by_host()
    assert {name: host.gpu_ids for name, host in found.items()} == {"host-1": ("GPU-b",), "host-2": ("GPU-a",)}
    assert values() == {UTIL: 4.0, POWER: 2.0}
    memory.save(seen(block(gpu("GPU-b", hostname="host-2", gpu_id=1), 20, {UTIL: 5.0})))
    assert list(NewestRow.objects.values_list("host", flat=True)) == ["host-2"]
    assert values("GPU-b") == {UTIL: 5.0}


def test_a_board_without_readings_of_its_own_moves(memory: InventoryMemory) -> None:
    memory.save(seen(block(gpu("GPU-b", hostname="host-2"), 0, {USED: 2.0})))
    for seconds, hostname in ((0, "host-1"), (10, "host-2"), (20, "host-1")):
        memory.save(seen(block(gpu(hostname=hostname, mig_id="1", mig_profile="1g"), seconds, {USED: 1.0})))
        assert {"GPU-a", "GPU-a:1"} <= set(newest_by_host()[hostname].gpu_ids)


def test_a_gpu_that_another_collector_saw_move_is_listed_once(memory: InventoryMemory) -> None:
    memory.save(seen(block(gpu(), 0, {UTIL: 1.0})))
    InventoryMemory("c2").save(seen(block(gpu(hostname="host-2"), 10, {UTIL: 4.0})))
    assert {name: host.gpu_ids for name, host in newest_by_host().items()} == {"host-2": ("GPU-a",)}


@pytest.mark.parametrize("remove", ["gpu", "host", "rows"])
def test_a_removed_gpu_that_reports_again_comes_back_as_new(memory: InventoryMemory, remove: str) -> None:
    other = InventoryMemory("dead")
    for writer in (memory, other):
        writer.save(seen(block(gpu(), 0, {UTIL: 1.0, POWER: 2.0}), block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 3.0})))
    if remove == "gpu":
        remove_gpus(GPU.objects.filter(pk="GPU-a"))
    elif remove == "host":
        remove_hosts(Host.objects.all())
    else:  # by a program that does not know of newest rows
        GPU.objects.filter(pk="GPU-a").delete()
        memory.refresh()
        assert "GPU-a" not in newest_by_host()["host-1"].gpu_ids
        NewestRow.objects.filter(writer="dead").delete()
    memory.save(seen(block(gpu(), 50, {UTIL: 9.0}), block(gpu("GPU-b", gpu_id=1), 50, {UTIL: 4.0})))
    assert GPU.objects.get(pk="GPU-a").first_seen == at(50)
    assert values() == {UTIL: 9.0}
    assert GPU.objects.get(pk="GPU-b").first_seen == (at(50) if remove == "host" else at(0))


def test_a_host_removed_while_others_report_comes_back_as_new(memory: InventoryMemory) -> None:
    memory.save(seen(block(gpu(), 0, {UTIL: 1.0}), block(gpu("GPU-b", hostname="host-2"), 0, {UTIL: 3.0})))
    memory.save(seen(block(gpu("GPU-b", hostname="host-2"), 5, {UTIL: 3.0})))
    remove_hosts(Host.objects.filter(name="host-1"))
    memory.save(seen(block(gpu(), 10, {UTIL: 9.0})))
    assert GPU.objects.get(pk="GPU-a").first_seen == at(10)


def test_a_host_whose_last_gpu_another_program_deleted_is_left_out(memory: InventoryMemory) -> None:
    """As collectors and web services of the version before do: they know nothing of newest rows."""
    memory.save(seen(block(gpu(), 0, {UTIL: 1.0}), block(gpu("GPU-b", hostname="host-2"), 0, {UTIL: 3.0})))
    GPU.objects.filter(pk="GPU-a").delete()
    memory.refresh()
    assert list(NewestRow.objects.values_list("host", flat=True)) == ["host-2"]
    memory.save(seen(block(gpu(), 10, {UTIL: 9.0})))
    assert GPU.objects.get(pk="GPU-a").first_seen == at(10)


def test_what_another_process_with_the_same_id_wrote_is_looked_up_again(memory: InventoryMemory) -> None:
    memory.save(seen(block(gpu(pod="train"), 0, {UTIL: 1.0})))
    InventoryMemory("c1").save(seen(block(gpu(pod="serve"), 10, {UTIL: 2.0})))
    memory.save(seen(block(gpu(pod="train"), 20, {UTIL: 3.0})))
    assert GPU.objects.get().pod == "train"
    assert Placement.objects.get(pod="serve").ended == at(10)


def test_when_rows_were_last_seen_is_written_now_and_then(
    memory: InventoryMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in (0, 10):
        memory.save(seen(block(gpu(pod="train"), seconds, {UTIL: 1.0})))
    monkeypatch.setattr(memory_module, "REFRESH_SECONDS", 0.0)
    memory.save(seen(block(gpu(pod="train"), 20, {UTIL: 1.0})))
    assert GPU.objects.get().last_seen == Host.objects.get().last_seen == Placement.objects.get().last_seen == at(20)
    assert Placement.objects.get().ended is None


def test_a_gpu_that_was_away_for_long_is_looked_up_again(memory: InventoryMemory) -> None:
    """Else what forgets old rows could take it for one that is still away."""
    for seconds in (0, 10, 2000):
        memory.save(seen(block(gpu(pod="train"), seconds, {UTIL: 1.0})))
    assert GPU.objects.get().last_seen == Placement.objects.get().last_seen == at(2000)


def test_a_share_ends_although_its_gpu_stays_the_same(memory: InventoryMemory) -> None:
    memory.save(seen(block(gpu(), 0, {USED: 2.0}), block(gpu(pod="a", share=True), 0, {USED: 1.0})))
    for seconds in range(60, 420, 60):
        memory.save(seen(block(gpu(), seconds, {USED: 2.0})))
    assert Placement.objects.get().ended == at(0)


def test_a_share_long_before_its_gpus_readings_is_saved_twice_without_harm(memory: InventoryMemory) -> None:
    flush = seen(block(gpu(pod="a", share=True), 0, {USED: 1.0}), block(gpu(), 800, {USED: 2.0}))
    for writer in (memory, InventoryMemory("c2")):
        writer.save(flush)
    assert Placement.objects.get().ended == at(0)


def test_boards_of_instances_are_remembered_too(memory: InventoryMemory) -> None:
    def instances(seconds: float) -> Sightings:
        each = (gpu(mig_id=str(n), mig_profile="1g", pod=f"p{n}") for n in (1, 2))
        return seen(*(block(one, seconds, {POWER: 300.0 + seconds, USED: 1.0}) for one in each))

    memory.save(instances(0))
    assert not [sql for sql in statements(memory, instances(5)) if any(table in sql for table in TABLES)]
    assert latest() == {POWER: (305.0, T0 + 5 * SECOND)}
    assert latest("GPU-a:2") == {POWER: (305.0, T0 + 5 * SECOND), USED: (1.0, T0 + 5 * SECOND)}


def test_it_says_where_the_newest_reading_came_from(memory: InventoryMemory) -> None:
    sightings = Sightings()
    sightings.add(block(gpu(), 10, {UTIL: 1.0}), Origin("scraper", live=True))
    sightings.add(block(gpu(), 5, {UTIL: 1.0}), Origin("replay"))
    sightings.add(block(gpu("GPU-b", gpu_id=1), 5, {UTIL: 1.0}), Origin("replay"))
    memory.save(sightings)
    [host] = newest_by_host().values()
    assert (host.sources, host.live.tolist()) == (("scraper", "replay"), [True, False])


def test_what_was_not_saved_is_saved_again_whole(memory: InventoryMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    energy = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    memory.save(seen(block(gpu(pod="train"), 0, {energy: 9.0})))
    later = seen(block(gpu(pod="serve"), 10, {energy: 1.0}))

    def fail(*_: object) -> None:
        raise DatabaseError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(InventoryMemory, "_write_tables", fail)
        with pytest.raises(DatabaseError):
            memory.save(later)
    assert GPU.objects.get().pod == "train"
    assert memory.save(later) == 1
    assert memory.save(later) == 0
    assert values() == {energy: 1.0}
    assert list(Placement.objects.order_by("started").values_list("pod", flat=True)) == ["train", "serve"]
