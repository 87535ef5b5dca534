"""How answers are written: JSON for programs, a page for a person who opens the same address in a browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from django.template import loader
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.settings import api_settings

from api.errors import BadRequest
from api.params import Parameter

if TYPE_CHECKING:
    from rest_framework.views import APIView


class JsonRenderer(JSONRenderer):
    """JSON by msgspec: a page of 1000 rows in about a millisecond."""

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """The answer as UTF-8; indented where a person reads it."""
        if data is None:
            return b""
        encoded = msgspec.json.encode(data, enc_hook=str)
        indent = self.get_indent(accepted_media_type or "", dict(renderer_context or {}))
        return encoded if indent is None else msgspec.json.format(encoded, indent=indent)


class PageRenderer(BrowsableAPIRenderer):
    """The browsable page: the JSON with clickable links, and the view's parameters as a form."""

    format = "html"
    template = "api/browse.html"
    filter_template = "api/filters.html"

    def get_rendered_html_form(self, data: Any, view: APIView, method: str, request: Request) -> Any:
        """Nothing here is written to: no form but the filters."""
        return None

    def get_filter_form(self, data: Any, view: APIView, request: Request) -> str | None:
        """The view's parameters as a form that asks the same address again."""
        parameters: tuple[Parameter, ...] = getattr(view, "parameters", ())
        if not parameters:
            return None
        query = request.query_params
        fields = [
            {
                "name": parameter.name,
                "help": parameter.help,
                "choices": parameter.schema.get("enum", ()),
                "value": query.get(parameter.name, ""),
            }
            for parameter in parameters
            if parameter.name not in {"page", "offset", "cursor"}  # a changed filter begins at the start
        ]
        return loader.get_template(self.filter_template).render({"fields": fields, "path": request.path})


class ExportRenderer(BaseRenderer):
    """A format that rows are sent in while they are read: the view makes the answer. What is no rows is said in JSON."""

    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """For errors: see ApiView.finalize_response."""
        return JsonRenderer().render(data)


class CsvRenderer(ExportRenderer):
    """CSV (RFC 4180)."""

    media_type = "text/csv"
    format = "csv"


class NdjsonRenderer(ExportRenderer):
    """One JSON object a line."""

    media_type = "application/x-ndjson"
    format = "ndjson"


class ParquetRenderer(ExportRenderer):
    """Apache Parquet."""

    media_type = "application/vnd.apache.parquet"
    format = "parquet"


EXPORT_RENDERERS: tuple[type[ExportRenderer], ...] = (CsvRenderer, NdjsonRenderer, ParquetRenderer)


class Negotiation(DefaultContentNegotiation):
    """Chooses the renderer by ``format``, else by the Accept header; an unknown format is a 400 like any other bad value."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """What was asked for by name is given, whatever the header says."""
        renderers = list(renderers)
        try:
            chosen, media_type = super().select_renderer(request, renderers, format_suffix)
            return chosen, str(media_type)
        except NotAcceptable:
            asked = request.query_params.get(api_settings.URL_FORMAT_OVERRIDE)
            if not asked:
                raise
            chosen = self.filter_renderers(renderers, asked)[0]
            return chosen, str(chosen.media_type)

    def filter_renderers(self, renderers: Iterable[BaseRenderer], format: str) -> list[BaseRenderer]:
        """Those that write this format. Raises BadRequest."""
        renderers = list(renderers)
        chosen = [renderer for renderer in renderers if renderer.format == format]
        if not chosen:
            names = [str(renderer.format) for renderer in renderers]
            known = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
            raise BadRequest(f"format {format[:80]!r} is not known: use {known}")
        return chosen
