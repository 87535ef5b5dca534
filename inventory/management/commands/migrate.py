"""manage.py migrate: Django's command, run by one process at a time."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from inventory.migrating import migration_lock


class Command(migrate.Command):
    """Waits while another process migrates the same database; then only what is left is applied."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Takes the lock, then does what Django's command does."""
        with migration_lock(connections[options["database"]]):
            super().handle(*args, **options)
