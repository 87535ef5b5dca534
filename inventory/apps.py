"""The Django app that knows hosts, GPUs and what runs where."""

from __future__ import annotations

import sqlite3
import time

import django_stubs_ext
from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate

# Lets admin classes take type arguments. Here, since only processes that load Django's apps need it: it takes 10 MiB.
django_stubs_ext.monkeypatch()


_LOOK_AGAIN_SECONDS = 0.02


def write_ahead(connection: BaseDatabaseWrapper, **_: object) -> None:
    """Have SQLite write ahead, which lets the web service read while collectors write.

    A file is switched to that once. SQLite does not wait for others who do it at the same moment, so this does.
    """
    if connection.vendor != "sqlite":
        return
    until = time.monotonic() + float(connection.settings_dict["OPTIONS"].get("timeout", 0.0))
    while True:
        try:
            connection.connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= until:
                raise
            time.sleep(_LOOK_AGAIN_SECONDS)
        else:
            return


class InventoryConfig(AppConfig):
    """Named so that the admin's front page reads well."""

    name = "inventory"
    verbose_name = "GPU inventory"

    def ready(self) -> None:
        """Has SQLite write ahead, and the roles made after each migration, once Django has made the permissions."""
        from inventory.roles import make_roles  # models can be imported only now

        connection_created.connect(write_ahead, dispatch_uid="inventory.write_ahead")
        post_migrate.connect(make_roles, sender=self, dispatch_uid="inventory.roles")
