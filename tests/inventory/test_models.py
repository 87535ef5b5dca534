"""inventory.models: how rows name themselves, and migrations that are complete."""

from __future__ import annotations

import pytest
from django.core.management import call_command

from inventory.models import GPU, CollectorStatus, Host, Placement, Residence
from tests.inventory.building import UTIL, block, gpu, save

pytestmark = pytest.mark.django_db


def test_rows_name_themselves() -> None:
    save(block(gpu(mig_id="3", namespace="ml", pod="train"), 0, {UTIL: 1.0}))
    host = Host.objects.get()
    assert str(host) == "host-1"
    assert str(GPU.objects.exclude(mig_id="").get()) == "GPU-a:3"
    assert str(Placement.objects.get()) == "ml/train on GPU-a:3"
    assert str(Residence.objects.get(gpu="GPU-a")) == f"GPU-a in slot 0 of host {host.pk}"
    assert str(CollectorStatus(collector_id="c1")) == "c1"


def test_the_migrations_are_what_the_models_say() -> None:
    call_command("makemigrations", "inventory", check=True, dry_run=True, verbosity=0)
