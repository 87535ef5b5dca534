"""The URLs of the web service."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.staticfiles.storage import staticfiles_storage
from django.urls import include, path
from django.views.generic import RedirectView

admin.site.site_header = admin.site.site_title = "GPU telemetry"
admin.site.index_title = "Inventory"
admin.site.enable_nav_sidebar = False  # the columns with the newest readings need its width

urlpatterns = [
    path("favicon.ico", RedirectView.as_view(url=staticfiles_storage.url("api/icon.svg"))),
    path("admin/", admin.site.urls),
    path("", include("api.urls")),
    path("", include("dashboard.urls")),
]

handler400 = "api.errors.bad_request"
handler403 = "api.errors.forbidden"
handler404 = "api.errors.not_found"
handler500 = "api.errors.server_error"
