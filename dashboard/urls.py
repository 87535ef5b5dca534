"""The URLs of the pages. None has a trailing slash."""

from __future__ import annotations

from django.urls import path

from dashboard.views.fleet import FleetPage

app_name = "dashboard"

urlpatterns = [
    path("", FleetPage.as_view(), name="fleet"),
]
