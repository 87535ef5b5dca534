"""inventory.summaries: means and sums per host."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from inventory.models import GPU
from inventory.summaries import HostSummary, host_summaries
from readings.times import to_datetime
from tests.inventory.building import POWER, T0, USED, UTIL, block, fleet, gpu, save

pytestmark = pytest.mark.django_db


def only() -> HostSummary:
    [summary] = host_summaries()
    return summary


def test_no_hosts_no_summaries() -> None:
    assert host_summaries() == []


def test_a_host_has_the_mean_and_the_sums_of_its_gpus() -> None:
    save(
        block(gpu("GPU-a"), 0, {UTIL: 10.0, POWER: 100.5, USED: 1000.0}),
        block(gpu("GPU-b", gpu_id=1), 2, {UTIL: 40.0, POWER: 200.25, USED: 24.0}),
        block(gpu("GPU-c", hostname="host-0"), 1, {UTIL: 0.0}),
    )
    first, second = host_summaries()
    assert first == HostSummary("host-0", 1, 1, 0, 0.0, None, None, to_datetime(T0 + 1_000_000_000))
    assert second == HostSummary("host-1", 2, 2, 0, 25.0, 300.75, 1024.0, to_datetime(T0 + 2_000_000_000))
    assert [summary.name for summary in host_summaries(["host-1", "nowhere"])] == ["host-1"]


def test_stale_gpus_are_counted_and_their_values_are_not() -> None:
    save(
        block(gpu("GPU-a"), 0, {UTIL: 10.0, POWER: 100.0, USED: 1.0}),
        block(gpu("GPU-b", gpu_id=1), 301, {UTIL: 40.0, POWER: 200.0, USED: 2.0}),
    )
    summary = only()
    assert (summary.gpu_count, summary.reporting, summary.stale) == (2, 1, 1)
    assert (summary.mean_utilisation, summary.power_watts, summary.memory_used_mib) == (40.0, 200.0, 2.0)


def test_a_single_value_that_is_old_is_unknown_not_current() -> None:
    save(block(gpu(), 0, {UTIL: 10.0, POWER: 100.0}), block(gpu(), 301, {UTIL: 20.0}))
    assert (only().mean_utilisation, only().power_watts) == (20.0, None)


def test_a_board_counts_once_however_many_instances_it_has() -> None:
    save(
        *(
            block(gpu(mig_id=str(n), mig_profile="1g.10gb"), 0, {POWER: 300.0, USED: 1000.0 + n, UTIL: 10.0 * n})
            for n in range(3)
        )
    )
    summary = only()
    assert (summary.gpu_count, summary.reporting, summary.power_watts) == (1, 1, 300.0)
    assert (summary.memory_used_mib, summary.mean_utilisation) == (3003.0, 10.0)
    save(block(gpu(), 1, {USED: 5000.0, UTIL: 77.0}))
    assert (only().memory_used_mib, only().mean_utilisation, only().power_watts) == (5000.0, 77.0, 300.0)


def test_shares_are_never_summed() -> None:
    save(
        block(gpu(), 0, {USED: 60_000.0}),
        block(gpu(pod="a", share=True), 0, {USED: 40_000.0}),
        block(gpu(pod="b", share=True), 0, {USED: 20_000.0}),
    )
    assert only().memory_used_mib == 60_000.0


def test_a_host_that_lost_its_gpus_is_still_there() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}), block(gpu(mig_id="1"), 0, {UTIL: 1.0}))
    save(block(gpu(hostname="host-2"), 10, {UTIL: 5.0}))
    assert GPU.objects.get(pk="GPU-a:1").host_id != GPU.objects.get(pk="GPU-a").host_id
    assert [(each.name, each.gpu_count, each.mean_utilisation) for each in host_summaries()] == [
        ("host-1", 0, None),
        ("host-2", 1, 5.0),
    ]


def test_summaries_cost_as_many_queries_with_one_gpu_and_with_fifty() -> None:
    for count in (1, 50):
        save(fleet(count))
        with CaptureQueriesContext(connection) as queries:
            summaries = host_summaries()
        assert sum(each.gpu_count for each in summaries) == count
        assert len(queries) == 5
