"""The Django app that knows hosts, GPUs and what runs where."""

from __future__ import annotations

import django_stubs_ext
from django.apps import AppConfig
from django.db.models.signals import post_migrate

# Lets admin classes take type arguments. Here, since only processes that load Django's apps need it: it takes 10 MiB.
django_stubs_ext.monkeypatch()


class InventoryConfig(AppConfig):
    """Named so that the admin's front page reads well."""

    name = "inventory"
    verbose_name = "GPU inventory"

    def ready(self) -> None:
        """Has the roles made after each migration, once Django has made the permissions."""
        from inventory.roles import make_roles  # models can be imported only now

        post_migrate.connect(make_roles, sender=self, dispatch_uid="inventory.roles")
