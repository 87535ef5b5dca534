"""The Django app that knows hosts, GPUs and what runs where."""

from __future__ import annotations

from django.apps import AppConfig


class InventoryConfig(AppConfig):
    """Named so that the admin's front page reads well."""

    name = "inventory"
    verbose_name = "GPU inventory"
