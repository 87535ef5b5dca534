"""The URLs of the API. None has a trailing slash."""

from __future__ import annotations

from django.urls import path, re_path
from django.views.generic import RedirectView
from drf_spectacular.renderers import OpenApiJsonRenderer2

import api.converters  # noqa: F401 - registers the converter "key"
from api.errors import unknown_path
from api.views.access import LoginView, LogoutView, TokensView
from api.views.bands import BandsView
from api.views.events import (
    AcknowledgeView,
    EventListView,
    EventSummaryView,
    EventView,
    NoteView,
    ResolveView,
)
from api.views.fleet import AvailabilityView, FleetView, SearchView
from api.views.gpu_series import GpuSeriesView
from api.views.gpus import GpuListView, GpuView
from api.views.hosts import HostListView, HostView
from api.views.metrics import MetricsView
from api.views.mutes import MuteListView, MuteView
from api.views.pages import IndexView, RedocView, SchemaView, SwaggerView, prometheus
from api.views.placements import PlacementsView
from api.views.probes import HealthView, ReadyView
from api.views.query import QueryView
from api.views.rules import RuleListView
from api.views.stats import StatsView
from api.views.telemetry import GpuMetricsView, GpuTelemetryView, TelemetryView
from api.views.usage import UsageView

urlpatterns = [
    path("health", HealthView.as_view(), name="health"),
    path("ready", ReadyView.as_view(), name="ready"),
    path("metrics", prometheus, name="prometheus"),
    path("swagger/index.html", SwaggerView.as_view(), name="swagger"),
    # Where clients of services that swaggo describes look for it.
    path("swagger/doc.json", SchemaView.as_view(renderer_classes=[OpenApiJsonRenderer2])),
    re_path(r"^swagger/?$", RedirectView.as_view(pattern_name="swagger")),
    path("redoc", RedocView.as_view(), name="redoc"),
    path("login", LoginView.as_view(), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("api", RedirectView.as_view(pattern_name="index")),
    path("api/schema", SchemaView.as_view(), name="schema"),
    path("api/v1", IndexView.as_view(), name="index"),
    path("api/v1/fleet", FleetView.as_view(), name="fleet"),
    path("api/v1/fleet/availability", AvailabilityView.as_view(), name="fleet-availability"),
    path("api/v1/fleet/bands", BandsView.as_view(), name="fleet-bands"),
    path("api/v1/search", SearchView.as_view(), name="search"),
    path("api/v1/gpus", GpuListView.as_view(), name="gpus"),
    path("api/v1/gpus/<key:uuid>/telemetry", GpuTelemetryView.as_view(), name="gpu-telemetry"),
    path("api/v1/gpus/<key:uuid>/series", GpuSeriesView.as_view(), name="gpu-series"),
    path("api/v1/gpus/<key:uuid>/metrics", GpuMetricsView.as_view(), name="gpu-metrics"),
    path("api/v1/gpus/<key:uuid>", GpuView.as_view(), name="gpu"),
    path("api/v1/telemetry", TelemetryView.as_view(), name="telemetry"),
    path("api/v1/query", QueryView.as_view(), name="query"),
    path("api/v1/hosts", HostListView.as_view(), name="hosts"),
    path("api/v1/hosts/<key:name>", HostView.as_view(), name="host"),
    path("api/v1/placements", PlacementsView.as_view(), name="placements"),
    path("api/v1/events", EventListView.as_view(), name="events"),
    path("api/v1/events/summary", EventSummaryView.as_view(), name="event_summary"),
    path("api/v1/events/<row:id>", EventView.as_view(), name="event"),
    path("api/v1/events/<row:id>/acknowledge", AcknowledgeView.as_view(), name="event-acknowledge"),
    path("api/v1/events/<row:id>/resolve", ResolveView.as_view(), name="event-resolve"),
    path("api/v1/events/<row:id>/note", NoteView.as_view(), name="event-note"),
    path("api/v1/rules", RuleListView.as_view(), name="rules"),
    path("api/v1/mutes", MuteListView.as_view(), name="mutes"),
    path("api/v1/mutes/<row:id>", MuteView.as_view(), name="mute"),
    path("api/v1/usage", UsageView.as_view(), name="usage"),
    path("api/v1/metrics", MetricsView.as_view(), name="metrics"),
    path("api/v1/stats", StatsView.as_view(), name="stats"),
    path("api/v1/tokens", TokensView.as_view(), name="tokens"),
    path("api/<path:rest>", unknown_path),
    path("api/", unknown_path),
]
