"""Removes decommissioned GPUs and hosts from the inventory. Their readings stay in the store until its retention ends.

A removed GPU or host that reports again comes back as a new one.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from inventory.models import GPU, Host, Residence
from inventory.newest import forget_newest
from inventory.sync.bulk import lock_inventory


def with_instances(gpus: Iterable[GPU]) -> list[GPU]:
    """The GPUs, and the MIG instances of those that are whole boards."""
    given = list(gpus)
    boards = [gpu.uuid for gpu in given if not gpu.mig_id]
    keys = {gpu.pk for gpu in given}
    return [*given, *GPU.objects.filter(uuid__in=boards).exclude(pk__in=keys).order_by("id")]


def gpus_of(hosts: Iterable[Host]) -> list[GPU]:
    """The GPUs in the hosts now, with all their instances."""
    return with_instances(GPU.objects.filter(host__in=list(hosts)).order_by("id"))


@transaction.atomic
def remove_gpus(gpus: Iterable[GPU]) -> int:
    """Removes GPUs with their instances and history. Returns how many GPU rows that were. Raises django.db.Error."""
    lock_inventory()
    going = {gpu.pk for gpu in with_instances(gpus)}
    GPU.objects.filter(pk__in=going).delete()
    forget_newest(going)
    return len(going)


@transaction.atomic
def remove_hosts(hosts: Iterable[Host]) -> int:
    """Removes hosts, the GPUs in them now, and the residences of other GPUs there. Returns how many hosts.

    Raises django.db.Error and then removes nothing: ProtectedError if a GPU arrived at that very moment.
    """
    lock_inventory()
    going = list(hosts)
    remove_gpus(gpus_of(going))
    Residence.objects.filter(host__in=going).delete()
    Host.objects.filter(pk__in=[host.pk for host in going]).delete()
    return len(going)
