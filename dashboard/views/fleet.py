"""The fleet at a glance."""

from __future__ import annotations

from dashboard.views.page import Page


class FleetPage(Page):
    """The fleet at a glance."""

    title = "Fleet"
    menu = "fleet"
    template_name = "dashboard/fleet.html"
