"""The dashboard: pages for people over what the API offers."""

from __future__ import annotations

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    """The dashboard's Django app."""

    name = "dashboard"
