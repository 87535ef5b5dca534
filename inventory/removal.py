"""Taking what was decommissioned out of the inventory. Its readings stay in the store, for as long as that keeps them.

Nothing is held against what was removed: a GPU or host that reports again is in the inventory again, as a new one.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from inventory.models import GPU, Host, Residence


def with_instances(gpus: Iterable[GPU]) -> list[GPU]:
    """The GPUs, and of those that are whole boards the MIG instances too."""
    given = list(gpus)
    boards = [gpu.uuid for gpu in given if not gpu.mig_id]
    known = {gpu.pk for gpu in given}
    return [*given, *GPU.objects.filter(uuid__in=boards).exclude(pk__in=known).order_by("id")]


def gpus_of(hosts: Iterable[Host]) -> list[GPU]:
    """The GPUs that sit in the hosts now, with all their instances."""
    return with_instances(GPU.objects.filter(host__in=list(hosts)).order_by("id"))


@transaction.atomic
def remove_gpus(gpus: Iterable[GPU]) -> int:
    """Remove GPUs with their instances and their history; how many rows of GPUs that were. Raises django.db.Error."""
    going = [gpu.pk for gpu in with_instances(gpus)]
    GPU.objects.filter(pk__in=going).delete()
    return len(going)


@transaction.atomic
def remove_hosts(hosts: Iterable[Host]) -> int:
    """Remove hosts with the GPUs that sit in them now; how many hosts. That other GPUs once sat there is forgotten too.

    Raises django.db.Error, and removes nothing then: ProtectedError where a GPU came in at that very moment.
    """
    going = list(hosts)
    remove_gpus(gpus_of(going))
    Residence.objects.filter(host__in=going).delete()
    Host.objects.filter(pk__in=[host.pk for host in going]).delete()
    return len(going)
