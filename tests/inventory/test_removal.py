from __future__ import annotations

import pytest

from inventory.models import GPU, Host, Placement, Residence
from inventory.removal import gpus_of, remove_gpus, remove_hosts, with_instances
from tests.inventory.building import UTIL, block, gpu, save, values

pytestmark = pytest.mark.django_db


def ids() -> list[str]:
    return [each.pk for each in GPU.objects.order_by("id")]


def test_a_gpu_goes_with_its_instances_and_history_and_its_host_stays() -> None:
    save(
        block(gpu(pod="train"), 0, {UTIL: 1.0}),
        block(gpu(mig_id="3"), 0, {UTIL: 1.0}),
        block(gpu(uuid="GPU-b"), 0, {UTIL: 1.0}),
    )
    assert [each.pk for each in with_instances([GPU.objects.get(pk="GPU-a")])] == ["GPU-a", "GPU-a:3"]
    assert remove_gpus(GPU.objects.filter(pk="GPU-a")) == 2
    assert ids() == ["GPU-b"]
    assert not Placement.objects.exists()
    assert {each.gpu_id for each in Residence.objects.all()} == {"GPU-b"}
    assert Host.objects.count() == 1


def test_an_instance_goes_alone() -> None:
    save(block(gpu(mig_id="3"), 0, {UTIL: 1.0}), block(gpu(mig_id="4"), 0, {UTIL: 1.0}))
    assert remove_gpus(GPU.objects.filter(pk="GPU-a:3")) == 1
    assert ids() == ["GPU-a", "GPU-a:4"]


def test_a_host_goes_with_the_gpus_that_sit_in_it_and_those_that_left_stay() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}), block(gpu(uuid="GPU-b"), 0, {UTIL: 1.0}))
    save(block(gpu(uuid="GPU-b", hostname="host-2"), 60, {UTIL: 1.0}))
    assert [each.pk for each in gpus_of(Host.objects.filter(name="host-1"))] == ["GPU-a"]
    assert remove_hosts(Host.objects.filter(name="host-1")) == 1
    assert ids() == ["GPU-b"]
    assert [str(host) for host in Host.objects.all()] == ["host-2"]
    assert [str(each.host) for each in Residence.objects.all()] == ["host-2"]


def test_what_reports_again_is_there_again() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    remove_hosts(Host.objects.all())
    assert ids() == []
    save(block(gpu(), 60, {UTIL: 2.0}))
    found = GPU.objects.get()
    assert (found.pk, str(found.host), values()[UTIL]) == ("GPU-a", "host-1", 2.0)
    assert found.first_seen == found.last_seen
    assert Residence.objects.count() == 1
