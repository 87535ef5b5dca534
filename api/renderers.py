"""How answers are written: JSON for programs, a page for a person who opens the same address in a browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from django.template import loader
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request

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


class Negotiation(DefaultContentNegotiation):
    """Chooses the renderer by ``format`` or the Accept header; an unknown format is a 400 like any other bad value."""

    def filter_renderers(self, renderers: Iterable[BaseRenderer], format: str) -> list[BaseRenderer]:
        """Those that write this format. Raises BadRequest."""
        renderers = list(renderers)
        chosen = [renderer for renderer in renderers if renderer.format == format]
        if not chosen:
            known = " or ".join(str(renderer.format) for renderer in renderers)
            raise BadRequest(f"format {format[:80]!r} is not known: use {known}")
        return chosen
