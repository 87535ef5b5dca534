"""The URLs of the pages. None has a trailing slash."""

from __future__ import annotations

from django.urls import path

import api.converters  # noqa: F401 - registers the converter "key"
from dashboard.views.event import EventPage
from dashboard.views.events import EventsPage
from dashboard.views.explore import ExplorePage
from dashboard.views.fleet import AttentionPart, FleetPage
from dashboard.views.gpu import GpuPage
from dashboard.views.host import HostPage
from dashboard.views.hosts import HostsPage
from dashboard.views.hot import HotPage, HotTimesPart
from dashboard.views.pipeline import PipelinePage
from dashboard.views.power import EnergyPart, PowerPage
from dashboard.views.usage import UsagePage

app_name = "dashboard"

urlpatterns = [
    path("", FleetPage.as_view(), name="fleet"),
    path("events", EventsPage.as_view(), name="events"),
    path("events/attention", AttentionPart.as_view(), name="attention"),
    path("events/<int:pk>", EventPage.as_view(), name="event"),
    path("explore", ExplorePage.as_view(), name="explore"),
    path("hot", HotPage.as_view(), name="hot"),
    path("hot/times", HotTimesPart.as_view(), name="hot-times"),
    path("pipeline", PipelinePage.as_view(), name="pipeline"),
    path("power", PowerPage.as_view(), name="power"),
    path("power/energy", EnergyPart.as_view(), name="power-energy"),
    path("usage", UsagePage.as_view(), name="usage"),
    path("hosts", HostsPage.as_view(), name="hosts"),
    path("hosts/<key:name>", HostPage.as_view(), name="host"),
    path("gpus/<key:uuid>", GpuPage.as_view(), name="gpu"),
]
