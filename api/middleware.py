"""Probes are asked by address and without TLS, so they are answered before any rule on host name or scheme."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from django.http import HttpRequest, HttpResponse
from rest_framework.response import Response

from api.views.probes import HealthView, ReadyView


class ProbeMiddleware:
    """Answers /health and /ready itself. Must come before all that look at hosts and schemes."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.probes: dict[str, Callable[..., HttpResponse]] = {
            "/health": HealthView.as_view(),
            "/ready": ReadyView.as_view(),
        }

    def __call__(self, request: HttpRequest) -> HttpResponse:
        probe = self.probes.get(request.path_info)
        if probe is None:
            return self.get_response(request)
        response = cast(Response, probe(request))
        response.render()
        # CommonMiddleware, which does this for the rest, checks the host name too.
        response.headers.setdefault("Content-Length", str(len(response.content)))
        return response
