"""The Django app that judges the fleet's health and keeps what it found."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class HealthConfig(AppConfig):
    """Named so that the admin's front page reads well."""

    name = "health"
    verbose_name = "Health"

    def ready(self) -> None:
        """Register the checks, and have what people may do added to their roles after each migration."""
        from health import checks  # noqa: F401
        from health.roles import make_health_roles

        post_migrate.connect(make_health_roles, sender=self, dispatch_uid="health.roles")
