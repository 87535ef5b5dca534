"""The Django app that judges the fleet's health and keeps what it found."""

from __future__ import annotations

from django.apps import AppConfig


class HealthConfig(AppConfig):
    """Named so that the admin's front page reads well."""

    name = "health"
    verbose_name = "Health"

    def ready(self) -> None:
        """Register the checks."""
        from health import checks  # noqa: F401
