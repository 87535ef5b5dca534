"""How answers are written: JSON for programs, a page for a person who opens the same address in a browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from django.contrib.auth.middleware import get_user
from django.http import QueryDict
from django.template import loader
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.settings import api_settings

from api.browse.tables import tables_of
from api.errors import BadRequest
from api.pagination import same_with
from api.params import EXPORT_FORMATS, Parameter

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
    """The browsable page: the answer as tables with links, the view's parameters as a form, and the answer's other formats."""

    format = "html"
    template = "api/browse.html"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> str:
        """The page as text."""
        context = dict(renderer_context or {})
        view, request, response = context["view"], context["request"], context["response"]
        answer = msgspec.json.decode(JsonRenderer().render(data) or b"{}")
        page = {
            "name": getattr(view, "name", ""),
            "key": next(iter(context["kwargs"].values()), ""),
            "description": view.get_view_description(html=False).replace("`", ""),
            "status": response.status_code,
            "answer": answer,
            "tables": tables_of(answer),
            "fields": _fields(view, request.query_params),
            "given": [each for each in request.query_params.lists() if each[0] not in {"format", *_PLACES}],
            "path": request._request.path,
            "formats": _formats(view, request),
            "address": request.build_absolute_uri(),
            # Who is logged in. DRF's request has nobody, since the views leave that to api.auth.middleware.
            "user": get_user(request._request),
        }
        return loader.get_template(self.template).render(page, request=request._request)


# Where in an answer one is. A changed filter begins at the start, so the form does not keep these.
_PLACES = frozenset({"page", "offset", "cursor"})
# A file has all rows, whatever page the link to it stands on.
_PAGING = (*_PLACES, "page_size", "limit")


def _parameters(view: APIView) -> tuple[Parameter, ...]:
    found: tuple[Parameter, ...] = getattr(view, "parameters", ())
    return found


def _fields(view: APIView, query: QueryDict) -> list[dict[str, Any]]:
    """The form's fields: one for each parameter, with the values that were given and, for a list, room for one more."""
    return [
        {
            "name": parameter.name,
            "help": parameter.help,
            "choices": parameter.schema.get("enum", ()),
            "is_number": parameter.schema.get("type") == "integer",
            "default": parameter.schema.get("default"),
            "values": _values(parameter, query),
        }
        for parameter in _parameters(view)
        if parameter.name not in {"cursor", "format"}  # a cursor is followed, not typed; formats are links
    ]


def _values(parameter: Parameter, query: QueryDict) -> list[str]:
    given = [] if parameter.name in _PLACES else query.getlist(parameter.name)
    return [*given, ""] if parameter.many or not given else given[:1]


def _formats(view: APIView, request: Request) -> list[dict[str, str]]:
    """Links to the same answer for programs."""
    names: tuple[str, ...] = getattr(view, "formats", tuple)()
    exports = {
        name: same_with(request, format=name, **dict.fromkeys(_PAGING)) for name in names if name in EXPORT_FORMATS
    }
    return [
        {"name": name.upper(), "url": exports.get(name) or same_with(request, format=name)}
        for name in names
        if name != "html"
    ]


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
