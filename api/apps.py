"""The web service as an application of Django."""

from __future__ import annotations

from django.apps import AppConfig


class ApiConfig(AppConfig):
    """Adds its checks to ``manage.py check``."""

    name = "api"

    def ready(self) -> None:
        """Register the checks."""
        from api import checks  # noqa: F401
