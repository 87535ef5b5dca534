"""The index of the API, its documentation pages and the Prometheus endpoint."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerSplitView
from prometheus_client import CONTENT_TYPE_LATEST
from rest_framework.request import Request
from rest_framework.response import Response

from api.links import list_url
from api.schema.answers import IndexAnswer
from api.views.base import ApiView
from api.views.prometheus import render_metrics

# The pages load nothing from other sites, and the browser enforces that. Both tools write style attributes, and Redoc
# runs its search in a worker made from a blob.
_POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self' data:;"
    " img-src 'self' data:; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class IndexView(ApiView):
    """The URLs of the API. In a browser, each of them is a page."""

    name = "GPU telemetry"
    tag = "pipeline"
    operation_id = "index"
    answer = IndexAnswer
    error_statuses = (400,)

    def get(self, request: Request) -> Response:
        """The URLs of the API."""
        links = IndexAnswer(*[list_url(name, request) for name in IndexAnswer.__struct_fields__])
        # A query needs a metric: with one, the link can be followed.
        links.query += f"?{urlencode({'metric': 'DCGM_FI_DEV_GPU_UTIL', 'by': 'host'})}"
        return Response(links)


class SchemaView(SpectacularAPIView):
    """The OpenAPI 3 description, as JSON or, on request, as YAML."""

    renderer_classes = [OpenApiJsonRenderer2, OpenApiYamlRenderer]  # noqa: RUF012 - as its base class has it


class SwaggerView(SpectacularSwaggerSplitView):
    """Swagger UI for the schema."""

    metadata_class = None  # OPTIONS has nothing to describe

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Add the policy."""
        response.headers["Content-Security-Policy"] = _POLICY
        return super().finalize_response(request, response, *args, **kwargs)


class RedocView(SpectacularRedocView):
    """Redoc for the schema, without the fonts that its own page loads from another site."""

    metadata_class = None
    template_name = "api/redoc.html"

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Add the policy."""
        response.headers["Content-Security-Policy"] = _POLICY
        return super().finalize_response(request, response, *args, **kwargs)


@require_safe
def prometheus(request: HttpRequest) -> HttpResponse:
    """Prometheus metrics of the pipeline."""
    return HttpResponse(render_metrics(), content_type=CONTENT_TYPE_LATEST)
