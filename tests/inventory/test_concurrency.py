"""Several collectors that save at once: nothing newer is ever lost, and none waits for ever. On a real SQLite file, or
on a real PostgreSQL (TEST_DATABASE=postgresql, where locks are on rows)."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.db import connections

from inventory.models import GPU, CollectorStatus, Host, Placement, Residence
from inventory.status import add_counts
from inventory.sync.memory import save_sightings
from tests.inventory.building import POWER, SECOND, T0, UTIL, block, gpu, latest, seen, values

COLLECTORS = 4
ROUNDS = 12


def at_once(*works: Callable[[], None]) -> None:
    """Run all in threads of their own, with connections of their own; raise what the first of them raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        try:
            start.wait(timeout=30)
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
        assert not thread.is_alive()
    for error in errors:
        raise error


@pytest.mark.django_db(transaction=True)
def test_collectors_that_save_the_same_gpus_at_once_never_lose_a_newer_value() -> None:
    steps = range(ROUNDS * COLLECTORS)

    def collector(number: int) -> Callable[[], None]:
        # Each has its part of the times, in an order of its own, and another metric in each of them.
        mine = [step for step in steps if step % COLLECTORS == number]
        random.Random(number).shuffle(mine)

        def work() -> None:
            for step in mine:
                of = [gpu(f"GPU-{n}", gpu_id=n, pod=f"pod-{step // 16}") for n in range(8)]
                save_sightings(seen(*(block(each, step * 60, {UTIL: step, f"M{step}": step}) for each in of)))

        return work

    at_once(*(collector(number) for number in range(COLLECTORS)))

    last = len(steps) - 1
    rows = list(GPU.objects.all())
    assert len(rows) == 8
    for row in rows:
        assert latest(row.pk)[UTIL] == (float(last), T0 + last * 60 * SECOND)
        assert {f"M{step}" for step in steps} <= latest(row.pk).keys()
        assert row.pod == f"pod-{last // 16}"
        assert (row.last_seen - row.first_seen).total_seconds() == last * 60
    assert Host.objects.count() == 1
    assert Residence.objects.filter(until=None).count() == Residence.objects.count() == 8
    open_pods = set(Placement.objects.filter(ended=None).values_list("gpu_id", "pod"))
    assert open_pods == {(f"GPU-{n}", f"pod-{last // 16}") for n in range(8)}


@pytest.mark.django_db(transaction=True)
def test_collectors_that_find_the_same_new_gpus_at_once_never_wait_in_a_circle() -> None:
    """Every round brings GPUs that nobody knows, told in another order by each, beside some that all know. No host is
    told, whose row would make them wait for each other in good order."""

    def collector(number: int) -> Callable[[], None]:
        order = random.Random(number)

        def work() -> None:
            for step in range(ROUNDS):
                told = [
                    block(gpu(f"GPU-{n}", hostname=""), step, {UTIL: step})
                    for n in (*range(step * 20, step * 20 + 20), *range(10))
                ]
                order.shuffle(told)
                save_sightings(seen(*told))

        return work

    at_once(*(collector(number) for number in range(COLLECTORS)))
    assert GPU.objects.count() == ROUNDS * 20
    assert {values(f"GPU-{n}")[UTIL] for n in range(10)} == {ROUNDS - 1.0}


@pytest.mark.django_db(transaction=True)
def test_two_collectors_that_replay_the_same_log_end_with_the_same_rows() -> None:
    flushes = [
        seen(
            *(block(gpu(f"GPU-{n}", gpu_id=n, pod=f"pod-{step // 5}"), step, {UTIL: step, POWER: n}) for n in range(8))
        )
        for step in range(20)
    ]

    def work() -> None:
        for sightings in flushes:
            save_sightings(sightings)

    at_once(work, work)
    assert set(GPU.objects.values_list("pod", flat=True)) == {"pod-3"}
    assert {values(f"GPU-{n}")[UTIL] for n in range(8)} == {19.0}
    found = (
        Placement.objects.filter(gpu="GPU-0").order_by("started").values_list("pod", "started", "last_seen", "ended")
    )
    spans = [(pod, (last - started).total_seconds(), ended in (None, last)) for pod, started, last, ended in found]
    assert spans == [(f"pod-{n}", 4.0, True) for n in range(4)]
    assert Placement.objects.filter(ended=None).count() == 8


@pytest.mark.django_db(transaction=True)
def test_counts_added_at_once_all_count() -> None:
    def work() -> None:
        for _ in range(10):
            add_counts(
                "c1",
                started=datetime(2025, 7, 18, tzinfo=UTC),
                messages=1,
                readings_stored=100,
                refused={"blank": 2},
                committed_offset=7,
            )

    at_once(work, work, work)
    status = CollectorStatus.objects.get()
    assert (status.messages, status.readings_stored, status.refused) == (30, 3000, {"blank": 60})
