"""The Django app that knows hosts, GPUs and what runs where."""

from __future__ import annotations

import django_stubs_ext
from django.apps import AppConfig

# Lets admin classes take type arguments. Here, since only processes that load Django's apps need it: it takes 10 MiB.
django_stubs_ext.monkeypatch()


class InventoryConfig(AppConfig):
    """Named so that the admin's front page reads well."""

    name = "inventory"
    verbose_name = "GPU inventory"
